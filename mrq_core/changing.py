"""Changes that read a record, apply a transition of `lifecycle`, and write it by compare-and-set.

For drivers whose server can replace a record only if it is still what was read. Where it is not, it is
read and changed again. So the rules of a job's life stand in `lifecycle` alone, and no lock is held between
two calls.
(Optimistic concurrency control: H. T. Kung, J. T. Robinson, ACM TODS 6 (2), 1981.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Generic, Protocol, TypeVar

from msgspec.structs import replace

from mrq_core import lifecycle
from mrq_core.errors import BrokerUnavailable
from mrq_core.job import CANCELLABLE, JobRecord, Status
from mrq_core.messages import Action, Applied, Cancel, Change, Move, Page, Remove, Requeue, Settlement

ATTEMPTS = 50
"""How often a job is read again because somebody else was quicker."""


class Stored(Protocol):
    """A record as it was read, with whatever proves that it has not changed when it is written."""

    @property
    def record(self) -> JobRecord: ...


S = TypeVar("S", bound=Stored)
S_co = TypeVar("S_co", bound=Stored, covariant=True)
_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


class Written(Enum):
    """What became of a replacement."""

    DONE = "done"
    CHANGED = "changed"
    """The job is not what was read."""
    HELD = "held"
    """Another job holds its unique key."""


@dataclass(frozen=True, slots=True)
class Replacement(Generic[S_co]):
    """What is to be written in place of what was read; None: the job is to be deleted."""

    before: S_co
    after: JobRecord | None
    followups: tuple[JobRecord, ...] = ()
    """Jobs to store together with it."""
    reserve: bool = False
    """Whether the job's unique key is to be reserved again, or the change not made."""
    ask_to_stop: bool = False
    """Whether its worker is to be asked to interrupt it."""


class Records(Protocol[S]):
    """The records of a driver."""

    def read(self, ids: Sequence[str]) -> tuple[datetime, list[S | None]]:
        """The server's time, and the records, expired ones too; None where there is none."""
        ...

    def write(self, replacements: Sequence[Replacement[S]], now: datetime) -> list[Written]:
        """Writes each, with all that follows from it, if the job is still what was read."""
        ...


# --- what people and rules change -------------------------------------------------------------------


def act(records: Records[S], ids: Sequence[str], action: Action) -> list[Change]:
    """Does the action to each job. See `requeue`, `cancel`, `move` and `remove` of `Broker`."""
    made = act_where(records, ids, action, lambda record: True)
    return [Change.UNKNOWN if change is None else change for change in made]


def act_where(
    records: Records[S], ids: Sequence[str], action: Action, is_match: Callable[[JobRecord], bool]
) -> list[Change | None]:
    """The same for those jobs that match at the moment of the change; None for the others."""

    def step(job_id: str, stored: S | None, now: datetime) -> Change | tuple[Change, Replacement[S]] | None:
        if stored is None or lifecycle.has_expired(stored.record, now) or not is_match(stored.record):
            return None
        match action:
            case Requeue():
                return _requeue(stored, now, action)
            case Cancel():
                return _cancel(stored, now, action)
            case Move():
                return _move(stored, action)
            case Remove():
                return _remove(stored)

    otherwise: dict[Written, Change | None] = {Written.HELD: Change.HELD}
    return _each(records, ids, str, step, otherwise)


def apply(records: Records[S], page: Page, action: Action, is_match: Callable[[JobRecord], bool]) -> Applied:
    """Does the action to the jobs of a page that still match. See `Broker.apply`."""
    made = act_where(records, [record.id for record in page.records], action, is_match)
    numbers: dict[Change, int] = {}
    for change in made:
        if change is not None:
            numbers[change] = numbers.get(change, 0) + 1
    return Applied(matched=sum(numbers.values()), changes=numbers, cursor=page.cursor)


def _requeue(stored: S, now: datetime, how: Requeue) -> Change | tuple[Change, Replacement[S]]:
    record = stored.record
    if record.status in (Status.QUEUED, Status.STARTED):
        return Change.REFUSED
    after = lifecycle.requeued(
        record, now=now, queue=how.queue, reset_retries=how.reset_retries, delay=how.delay
    )
    return Change.DONE, Replacement(stored, after, reserve=True)


def _cancel(stored: S, now: datetime, how: Cancel) -> Change | tuple[Change, Replacement[S]]:
    record = stored.record
    if record.status is Status.STARTED:
        marked = replace(record, cancel_requested=True, updated_at=now)
        return Change.REQUESTED, Replacement(stored, marked, ask_to_stop=how.interrupt)
    if record.status not in CANCELLABLE:
        return Change.REFUSED
    return Change.DONE, Replacement(stored, lifecycle.cancelled(record, now=now, ttl=how.ttl))


def _move(stored: S, how: Move) -> Change | tuple[Change, Replacement[S]]:
    record = stored.record
    if not record.status.is_waiting or record.is_ended:
        return Change.REFUSED
    # updated_at stays: for a job that waits to be retried it says when its attempt ended
    return Change.DONE, Replacement(stored, replace(record, queue=how.queue))


def _remove(stored: S) -> Change | tuple[Change, Replacement[S]]:
    if stored.record.status is Status.STARTED:
        return Change.REFUSED
    return Change.DONE, Replacement(stored, None)


# --- settling in full -------------------------------------------------------------------------------


def settle(records: Records[S], settlements: Sequence[Settlement]) -> list[bool]:
    """Ends claims. See `Broker.settle`."""

    def step(settlement: Settlement, stored: S | None, now: datetime) -> bool | tuple[bool, Replacement[S]]:
        if stored is None:
            return False
        record = stored.record
        if record.token != settlement.token or record.status is not Status.STARTED:
            return lifecycle.was_settled_by(record, settlement.token)
        after = lifecycle.settled(record, settlement.outcome, now)
        is_as_wished = after.status is settlement.outcome.status  # and not cancelled instead
        followups = settlement.outcome.followups if is_as_wished else ()
        return True, Replacement(stored, after, followups)

    return _each(records, settlements, lambda settlement: settlement.id, step, {})


def _each(
    records: Records[S],
    items: Sequence[_Item],
    id_of: Callable[[_Item], str],
    step: Callable[[_Item, S | None, datetime], _Answer | tuple[_Answer, Replacement[S]]],
    otherwise: Mapping[Written, _Answer],
) -> list[_Answer]:
    """One step for each item, in order; items of the same job see what the one before has written.

    A step answers at once, or with what is to be written and the answer if it was. `otherwise` has the
    answers to what may become of it instead.
    """
    answers: dict[int, _Answer] = {}
    left = list(range(len(items)))
    for _ in range(ATTEMPTS):
        if not left:
            break
        # One item for each job in a round.
        chosen = list({id_of(items[place]): place for place in reversed(left)}.values())[::-1]
        now, found = records.read([id_of(items[place]) for place in chosen])
        planned: list[tuple[int, _Answer, Replacement[S]]] = []
        for place, stored in zip(chosen, found, strict=True):
            made = step(items[place], stored, now)
            if isinstance(made, tuple):
                planned.append((place, *made))
            else:
                answers[place] = made
        results = records.write([replacement for *_, replacement in planned], now)
        for (place, answer, _), result in zip(planned, results, strict=True):
            if result is Written.DONE:
                answers[place] = answer
            elif result in otherwise:
                answers[place] = otherwise[result]
        left = [place for place in left if place not in answers]
    if left:
        raise BrokerUnavailable(
            f"{len(left)} jobs were changed by others each time before this call could write them: try again"
        )
    return [answers[place] for place in range(len(items))]
