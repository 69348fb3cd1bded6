"""Changes of one job by a person: what was done, or why not, in words."""

from __future__ import annotations

from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import Action, Cancel, ChangeResult, Move, Remove, Requeue
from mrq_core.contract.record import ENDED, JobRecord
from mrq_core.contract.values import check_job_id
from mrq_core.errors import ChangeRefused, JobNotFound
from mrq_core.operations.actions import LEASE_ENDED, VERBS, apply_to_ids, has_lapsed


def change_job(broker: Broker, job_id: str, action: Action) -> tuple[ChangeResult, str]:
    """Changes one job, and returns the answer with a sentence. A cancelled job is kept for the `cancel_ttl`
    of its task, if a worker has published the task. Up to four reads and one change. Raises JobNotFound,
    ChangeRefused with the reason, and InvalidValue for a malformed id."""
    [before] = broker.get([check_job_id(job_id)])
    if before is None:
        raise JobNotFound(job_id)
    [(_, change)] = apply_to_ids(broker, [job_id], action)
    if change is ChangeResult.UNKNOWN:
        raise JobNotFound(job_id)
    if change in (ChangeResult.REFUSED, ChangeResult.HELD):
        raise ChangeRefused(
            f"job {job_id} cannot be {VERBS[type(action)][1]}: {_reason(broker, job_id, change)}",
            job_id=job_id,
        )
    if change is ChangeResult.REQUESTED and has_lapsed(before, broker.now()):
        return change, f"Job {job_id} {LEASE_ENDED}"
    return change, f"Job {job_id} {_words(before, action, change)}"


def _reason(broker: Broker, job_id: str, change: ChangeResult) -> str:
    if change is ChangeResult.HELD:
        return "another job holds its unique key"
    [now] = broker.get([job_id])
    if now is None:
        return "it was removed just now"
    return f"it has already ended as {now.status}" if now.status in ENDED else f"its status is {now.status}"


def _words(before: JobRecord, action: Action, change: ChangeResult) -> str:
    match action:
        case Requeue():
            return f"is queued again on {action.queue or before.queue}"
        case Cancel() if change is ChangeResult.REQUESTED:
            if action.interrupt:
                return "is running; its worker is asked to stop it"
            return "is running; it finishes, but does not run again"
        case Cancel():
            return "is cancelled"
        case Move() if change is ChangeResult.UNCHANGED:
            return f"is on {action.queue} already"
        case Move():
            return f"is moved to {action.queue}"
        case Remove():
            return "is removed"
