"""Purging queues, and moving what waits in them to another queue, in bounded steps.

Running jobs go on. Jobs that are queued meanwhile may be changed too. Each step is atomic for each job: a
call that ends early, dies or runs twice has changed each job once or not at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import msgspec

from mrq_core.clock import monotonic
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import CHUNK, Action, ChangeResult, Move, Remove
from mrq_core.contract.naming import check_job_queue_name, check_served_name, is_in, is_tree, raw_kind
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import WAITING
from mrq_core.errors import InvalidValue, shown
from mrq_core.operations.jobs import count_all

OnStep = Callable[["Emptied"], None]


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """What waits in a queue or tree: jobs by status, or the parameters of a raw queue."""

    jobs: Mapping[str, int]
    params: int = 0

    @property
    def number(self) -> int:
        """The number of jobs and parameters."""
        return sum(self.jobs.values()) + self.params


class Emptied(msgspec.Struct, frozen=True, kw_only=True):
    """What a purge or a move has changed. `left`: the jobs that started or changed meanwhile. Not
    `is_complete`: the time was over, and a further call goes on."""

    jobs: int = 0
    params: int = 0
    left: int = 0
    is_complete: bool = True

    @property
    def number(self) -> int:
        """The number of jobs and parameters that were changed."""
        return self.jobs + self.params


def waiting_filter(name: str) -> JobFilter:
    """Selects the waiting jobs of a queue or tree. Raises InvalidValue for a bad name."""
    return JobFilter(queues=(check_served_name(name),), statuses=tuple(sorted(WAITING)))


def what_waits(broker: Broker, name: str) -> Waiting:
    """What a purge would remove. Counts jobs in steps of 250 ms where totals do not have the numbers. Raises
    InvalidValue for a bad name."""
    name = check_served_name(name)
    jobs = count_all(broker, waiting_filter(name), "status")
    params = broker.raw(name).size() if is_raw(name) else 0
    return Waiting(jobs={status: number for status, number in jobs.items() if number}, params=params)


def purge_queue(
    broker: Broker, name: str, *, seconds: float | None = None, on_step: OnStep = lambda done: None
) -> Emptied:
    """Removes the waiting jobs of a queue or tree with their logs, or the waiting parameters of a raw queue.

    Ends after about `seconds`, if given, and after one step at least. A tree contains no raw queues: name
    each of them. Raises InvalidValue for a bad name.
    """
    name = check_served_name(name)
    wanted = waiting_filter(name)
    deadline = None if seconds is None else monotonic() + seconds
    done = _applied(broker, wanted, Remove(), deadline, on_step)
    return _without_params(broker, name, done, deadline, on_step) if is_raw(name) else done


def move_queue(
    broker: Broker,
    name: str,
    target: str,
    *,
    seconds: float | None = None,
    on_step: OnStep = lambda done: None,
) -> Emptied:
    """Moves the waiting jobs of a queue or tree to the queue `target`; their due times and priorities stay.

    Ends as `purge_queue` does. Raises InvalidValue for a bad name, for a raw queue, which holds no jobs, and
    for a target that the queue or tree contains.
    """
    action = checked_move(name, target)
    deadline = None if seconds is None else monotonic() + seconds
    return _applied(broker, waiting_filter(name), action, deadline, on_step)


def checked_move(name: str, target: str) -> Move:
    """The action that moves jobs from the queue or tree to the target. Raises InvalidValue."""
    name = check_served_name(name)
    try:
        target = check_job_queue_name(target)
    except InvalidValue as error:
        raise InvalidValue(str(error), path="to") from error
    if is_raw(name):
        raise InvalidValue(
            f"queue is {shown(name)}, a raw queue, which holds parameters: expected a queue of jobs",
            path="queue",
        )
    if is_in(target, name):
        raise InvalidValue(
            f"to is {shown(target)}, which is the queue itself or a part of it: expected another queue",
            path="to",
        )
    return Move(queue=target)


def is_raw(name: str) -> bool:
    """Whether the name is that of a raw queue, which holds parameters."""
    return raw_kind(name) is not None and not is_tree(name)


def _is_over(deadline: float | None) -> bool:
    return deadline is not None and monotonic() >= deadline


def _applied(
    broker: Broker, wanted: JobFilter, action: Action, deadline: float | None, on_step: OnStep
) -> Emptied:
    changes: Counter[ChangeResult] = Counter()
    cursor: str | None = None
    while True:
        step = broker.apply(wanted, action, limit=CHUNK, cursor=cursor)
        changes.update(step.changes)
        cursor = step.cursor
        number = changes[ChangeResult.DONE]
        done = Emptied(jobs=number, left=changes.total() - number, is_complete=cursor is None)
        on_step(done)
        if cursor is None or _is_over(deadline):
            return done


def _without_params(
    broker: Broker, name: str, done: Emptied, deadline: float | None, on_step: OnStep
) -> Emptied:
    queue = broker.raw(name)
    most = queue.size()
    removed = examined = 0
    while examined < most:
        if examined and _is_over(deadline):
            return msgspec.structs.replace(done, params=removed, is_complete=False)
        params = [item.param for item in queue.peek(min(CHUNK, most - examined))]
        if not params:
            break
        examined += len(params)
        removed += sum(queue.remove(params))
        on_step(msgspec.structs.replace(done, params=removed))
    return msgspec.structs.replace(done, params=removed)
