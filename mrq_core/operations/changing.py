"""Changes of one job by a person: what was done, or why not, in words."""

from __future__ import annotations

from mrq_core.config.secrets import HIDDEN, is_secret
from mrq_core.contract.broker import Broker
from mrq_core.contract.codec import JsonObject, JsonValue
from mrq_core.contract.messages import Action, Cancel, ChangeResult, Move, Remove, Requeue
from mrq_core.contract.record import ENDED, JobRecord
from mrq_core.contract.values import check_job_id
from mrq_core.errors import ChangeRefused, InvalidValue, JobNotFound
from mrq_core.operations.actions import VERBS, apply_to_ids


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


def with_secrets(value: JsonValue, original: JsonValue, *, name: str = "params") -> JsonValue:
    """The value with the secrets of the original where it has ``***`` for the value of a key that looks
    secret, as `views.redacted` shows them. Raises InvalidValue for a ``***`` that stands for nothing."""
    if isinstance(value, dict):
        known: JsonObject = original if isinstance(original, dict) else {}
        return {key: _restored(key, item, known, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        items = original if isinstance(original, list) else []
        return [
            with_secrets(item, items[index] if index < len(items) else None, name=f"{name}[{index}]")
            for index, item in enumerate(value)
        ]
    return value


def _restored(key: str, item: JsonValue, known: JsonObject, name: str) -> JsonValue:
    if item != HIDDEN or not is_secret(key, item):
        return with_secrets(item, known.get(key), name=name)
    if not is_secret(key, known.get(key)):
        raise InvalidValue(f"{name} is ***, which stands for no known secret: expected the value", path=name)
    return known[key]
