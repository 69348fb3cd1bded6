"""Changes of many jobs, by id or by filter, and the repair of a broker, in bounded steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime

import msgspec
from msgspec.structs import replace

from mrq_core.contract import lifecycle
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import CHUNK, Action, Cancel, ChangeResult, Move, Remove, Requeue
from mrq_core.contract.naming import is_covered
from mrq_core.contract.queries import JobFilter, Order, RepairResult
from mrq_core.contract.record import ENDED, WAITING, JobRecord, Status
from mrq_core.contract.values import check_job_id
from mrq_core.operations.jobs import count_all
from mrq_core.operations.task_descriptions import published_task


class SetPriority(msgspec.Struct, frozen=True, kw_only=True):
    """Give waiting jobs another priority, -4 to 4. An edit of each job, see `Broker.edit`."""

    priority: int


Change = Action | SetPriority
"""What a person can do to many jobs at once."""
Answers = list[tuple[str, ChangeResult]]
"""Ids of jobs, each with the answer to its change."""

VERBS: dict[type[Change], tuple[str, str]] = {
    Requeue: ("requeue", "requeued"),
    Cancel: ("cancel", "cancelled"),
    Move: ("move", "moved"),
    Remove: ("remove", "removed"),
    SetPriority: ("change the priority of", "given the priority"),
}
"""The verb of each action, and its past participle."""


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of jobs by status that an action would change, would refuse, and would leave because they
    are as it asks already; and of unknown ids.

    `may_be_held`: a requeue may refuse some of the counted jobs, because another job holds their unique key.
    """

    changed: Mapping[str, int]
    refused: Mapping[str, int]
    unchanged: Mapping[str, int] = {}
    unknown: int = 0
    may_be_held: bool = False

    @property
    def number(self) -> int:
        """The number of jobs that the action would change."""
        return sum(self.changed.values())


def preview_for_ids(broker: Broker, ids: Sequence[str], action: Change, now: datetime) -> Preview:
    """What the action would do to these jobs. Raises InvalidValue for a malformed id."""
    unique = _checked_ids(ids)
    records = list(_records(broker, unique))
    numbers: dict[ChangeResult, Counter[str]] = {}
    for record in records:
        numbers.setdefault(expected_answer(action, record, now), Counter())[str(record.status)] += 1
    return Preview(
        changed=numbers.get(ChangeResult.DONE, {}),
        refused=numbers.get(ChangeResult.REFUSED, {}),
        unchanged=numbers.get(ChangeResult.UNCHANGED, {}),
        unknown=len(unique) - len(records),
        may_be_held=isinstance(action, Requeue) and any(map(_has_freed_key, records)),
    )


def preview_for_matching(broker: Broker, wanted: JobFilter, action: Change, now: datetime) -> Preview:
    """What the action would do to the matching jobs, as far as their status and queue tell. Counts them all,
    in steps of 250 ms where totals do not have the numbers."""
    numbers = count_all(broker, wanted, "status")
    allowed = {status: number for status, number in numbers.items() if allows(action, Status(status), now)}
    unchanged = _numbers_in_target(broker, wanted, action)
    may_be_held = isinstance(action, Requeue) and bool(allowed) and _may_be_held(broker, wanted)
    return Preview(
        changed=_without(allowed, unchanged),
        refused={s: n for s, n in numbers.items() if s not in allowed},
        unchanged=unchanged,
        may_be_held=may_be_held,
    )


def _numbers_in_target(broker: Broker, wanted: JobFilter, action: Change) -> dict[str, int]:
    """The numbers by status of matching jobs that wait in the target queue of a move already; none for other
    actions. Counts as `preview_for_matching` does."""
    if not isinstance(action, Move):
        return {}
    target = action.queue
    if wanted.queues and not is_covered(target, frozenset(wanted.queues)):
        return {}
    numbers = {}
    for status in sorted(WAITING & set(wanted.statuses or WAITING)):
        # By queue, because a target that ends with a slash names its tree in a filter.
        there = count_all(broker, replace(wanted, queues=(target,), statuses=(status,)), "queue")
        if there.get(target):
            numbers[str(status)] = there[target]
    return numbers


def _without(numbers: Mapping[str, int], less: Mapping[str, int]) -> dict[str, int]:
    """The numbers less others; without those of which none is left."""
    return dict(Counter(numbers) - Counter(less))


def _may_be_held(broker: Broker, wanted: JobFilter) -> bool:
    """Whether a requeue may find a unique key held. Examines one page of the jobs."""
    page = broker.find(wanted, limit=CHUNK)
    return page.cursor is not None or any(map(_has_freed_key, page.records))


def _has_freed_key(record: JobRecord) -> bool:
    """Whether a requeue has to reserve the unique key of the job again."""
    return record.unique_key is not None and record.is_ended


def allows(action: Change, status: Status, now: datetime) -> bool:
    """Whether the rules of `lifecycle` let the action change a job with this status."""
    record = JobRecord(
        id="0" * 24,
        path="",
        params={},
        queue="",
        status=status,
        queued_at=now,
        updated_at=now,
        ended_at=now if status in ENDED else None,
    )
    return expected_answer(action, record, now) is not ChangeResult.REFUSED


def expected_answer(action: Change, record: JobRecord, now: datetime) -> ChangeResult:
    """What the action would do to the job: DONE, UNCHANGED or REFUSED. A requeue may still find the unique
    key held."""
    if isinstance(action, SetPriority):
        if not record.status.is_waiting or record.is_ended:
            return ChangeResult.REFUSED
        return ChangeResult.UNCHANGED if record.priority == action.priority else ChangeResult.DONE
    answer, _ = lifecycle.changed(record, action, now)
    return ChangeResult.DONE if answer is ChangeResult.REQUESTED else answer


def _checked_ids(ids: Iterable[str]) -> list[str]:
    """The ids, each once. Raises InvalidValue for a malformed id."""
    return list(dict.fromkeys(map(check_job_id, ids)))


def apply_to_ids(
    broker: Broker,
    ids: Sequence[str],
    action: Action,
    *,
    on_step: Callable[[Answers], None] = lambda answers: None,
) -> Answers:
    """Changes these jobs, each once, and returns the answer for each. A cancelled job is kept as `cancels_of`
    says. Calls `on_step` with the answers of each step. Raises InvalidValue for a malformed id; then no job
    is changed."""
    unique = _checked_ids(ids)
    answers: Answers = []
    for start in range(0, len(unique), CHUNK):
        chunk = unique[start : start + CHUNK]
        if isinstance(action, Cancel):
            step = _cancel(broker, chunk, action)
        else:
            step = list(zip(chunk, _apply(broker, chunk, action), strict=True))
        on_step(step)
        answers += step
    return answers


def _cancel(broker: Broker, ids: Sequence[str], cancel: Cancel) -> Answers:
    found = dict.fromkeys(ids, ChangeResult.UNKNOWN)
    for one, known in cancels_of(broker, list(_records(broker, ids)), cancel):
        found.update(zip(known, broker.cancel(known, one), strict=True))
    return list(found.items())


def apply_to_matching(
    broker: Broker,
    wanted: JobFilter,
    action: Action,
    *,
    on_step: Callable[[Counter[ChangeResult]], None] = lambda done: None,
) -> Counter[ChangeResult]:
    """Changes all matching jobs, in bounded steps, and counts the answers.

    Calls `on_step` after each step with the counts so far. If a step fails, the changes of the earlier steps
    stay. The call can be repeated. Each cancelled job is kept as `cancels_of` says.
    """
    done: Counter[ChangeResult] = Counter()
    cursor: str | None = None
    while True:
        if isinstance(action, Cancel):
            page = broker.find(wanted, order=Order.OLDEST_FIRST, limit=CHUNK, cursor=cursor)
            for cancel, ids in cancels_of(broker, page.records, action):
                done.update(apply_to_still_matching(broker, wanted, cancel, ids))
            cursor = page.cursor
        else:
            applied = broker.apply(wanted, action, limit=CHUNK, cursor=cursor)
            done.update(applied.changes)
            cursor = applied.cursor
        on_step(done)
        if cursor is None:
            return done


def apply_to_still_matching(
    broker: Broker, wanted: JobFilter, action: Action, ids: Sequence[str]
) -> Counter[ChangeResult]:
    """Changes those of these jobs, up to 1,000, that still match, and counts the answers. One or a few round
    trips; more where a broker is slow and its time ends within the call."""
    wanted = replace(wanted, ids=tuple(ids))
    answers: Counter[ChangeResult] = Counter()
    cursor: str | None = None
    while True:
        applied = broker.apply(wanted, action, limit=len(ids), cursor=cursor)
        answers.update(applied.changes)
        cursor = applied.cursor
        if cursor is None:
            return answers


def cancels_of(
    broker: Broker, records: Sequence[JobRecord], cancel: Cancel
) -> list[tuple[Cancel, list[str]]]:
    """The cancels for these jobs, each with the ids of its jobs: a job is kept for the `cancel_ttl` of its
    task if a worker has published the task, and else for that of `cancel`. One read for each task."""
    ttls = {path: _cancel_ttl(broker, path, cancel.ttl) for path in {record.path for record in records}}
    ids_by_ttl: dict[float, list[str]] = {}
    for record in records:
        ids_by_ttl.setdefault(ttls[record.path], []).append(record.id)
    return [(replace(cancel, ttl=ttl), ids) for ttl, ids in ids_by_ttl.items()]


def _cancel_ttl(broker: Broker, path: str, default: float) -> float:
    task = published_task(broker, path)
    ttl = None if task is None else task.options.get("cancel_ttl")
    is_time = isinstance(ttl, int | float) and not isinstance(ttl, bool) and ttl > 0
    return float(ttl) if is_time else default  # type: ignore[arg-type]


def summary(done: Counter[ChangeResult], action: Change) -> str:
    """The counts in one line, such as ``3 jobs requeued; 1 refused: their status does not allow it``."""
    participle = VERBS[type(action)][1]
    if isinstance(action, SetPriority):
        participle += f" {action.priority}"
    number = done[ChangeResult.DONE]
    is_interrupt = isinstance(action, Cancel) and action.interrupt
    texts = {
        ChangeResult.REQUESTED: "started: their workers are asked to stop them, if they live"
        if is_interrupt
        else "started: they may finish, but do not run again",
        ChangeResult.UNCHANGED: "unchanged: already in that queue"
        if isinstance(action, Move)
        else "unchanged: they have this priority already",
        ChangeResult.REFUSED: "refused: their status does not allow it",
        ChangeResult.TOO_LARGE: "refused: too large to run again",
        ChangeResult.HELD: "refused: another job holds their unique key",
        ChangeResult.UNKNOWN: "unknown",
    }
    others = [f"{done[change]:,} {text}" for change, text in texts.items() if done[change]]
    return "; ".join([f"{number:,} job{'' if number == 1 else 's'} {participle}", *others])


def statuses_of(broker: Broker, ids: Sequence[str]) -> dict[str, Status]:
    """The statuses of these jobs by id. Leaves out unknown jobs. Raises InvalidValue for a malformed id."""
    return {record.id: record.status for record in _records(broker, _checked_ids(ids))}


def _records(broker: Broker, ids: Sequence[str]) -> Iterator[JobRecord]:
    """The records of these jobs. Leaves out unknown jobs."""
    for start in range(0, len(ids), CHUNK):
        yield from (record for record in broker.get(ids[start : start + CHUNK]) if record is not None)


LEASE_ENDED = "has no worker: its lease has ended; the next claim from its queue cancels it"
"""What is said of a cancelled job whose worker does not renew its lease, and may be dead."""


def has_lapsed(record: JobRecord, now: datetime) -> bool:
    """Whether the lease of a job has ended without an end of its attempt."""
    return record.status == Status.STARTED and record.lease_until is not None and record.lease_until <= now


def cancelled_texts(
    broker: Broker, answers: Answers, before: Mapping[str, Status], action: Cancel
) -> list[tuple[str, str]]:
    """What a cancel did to each job that it did not refuse. `before`: the statuses before the cancel."""
    texts = []
    asked = [job_id for job_id, change in answers if change is ChangeResult.REQUESTED]
    now = broker.now()
    lapsed = {record.id for record in _records(broker, asked) if has_lapsed(record, now)}
    for job_id, change in answers:
        if job_id in lapsed:
            texts.append((job_id, LEASE_ENDED))
        elif change is ChangeResult.REQUESTED and action.interrupt:
            texts.append((job_id, "is running; its worker is asked to stop it"))
        elif change is ChangeResult.REQUESTED:
            texts.append((job_id, "is running; it finishes, but does not run again (--interrupt stops it)"))
        elif change is ChangeResult.DONE:
            status = before.get(job_id)
            was = "had ended as" if status is not None and status in ENDED else "was"
            texts.append((job_id, f"{was} {status}; it is cancelled" if status else "is cancelled"))
    return texts


def refusals(broker: Broker, answers: Answers) -> list[tuple[str, str]]:
    """The jobs that were not changed, each with the reason. Reads the status of those that were refused."""
    statuses = statuses_of(broker, [i for i, change in answers if change is ChangeResult.REFUSED])
    reasons = {
        ChangeResult.HELD: "another job holds its unique key",
        ChangeResult.UNKNOWN: "there is no such job; it was removed, or has expired",
    }
    found = []
    for job_id, change in answers:
        if change is ChangeResult.REFUSED:
            status = statuses.get(job_id)
            ended = "it has already ended as" if status in ENDED else "its status is"
            found.append((job_id, f"{ended} {status or 'unknown'}"))
    return found + [(i, reasons[change]) for c in reasons for i, change in answers if change is c]


def repair_all(broker: Broker) -> Iterator[RepairResult]:
    """Repairs a broker in bounded steps, until every unfinished job is examined. See `Broker.repair`."""
    cursor: str | None = None
    while True:
        step = broker.repair(CHUNK, cursor)
        yield step
        cursor = step.cursor
        if cursor is None:
            return


def _apply(broker: Broker, ids: Sequence[str], action: Requeue | Move | Remove) -> list[ChangeResult]:
    match action:
        case Requeue():
            return broker.requeue(ids, action)
        case Move():
            return broker.move(ids, action)
        case Remove():
            return broker.remove(ids)
