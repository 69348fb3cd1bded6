"""Changes that read a record, apply a transition of `lifecycle`, and write it in full.

Written by one script, each only if the job is still what it was when it was read; otherwise it is read and
changed again. So the rules stand in `lifecycle` alone, and no lock is held between the two calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import TypeVar

from msgspec.structs import replace

from mrq_broker_redis import enqueueing, rows
from mrq_broker_redis.connection import Connection
from mrq_broker_redis.rows import Stored
from mrq_core import lifecycle
from mrq_core.clock import from_ms, to_ms
from mrq_core.errors import BrokerUnavailable
from mrq_core.job import CANCELLABLE, JobRecord, Status
from mrq_core.messages import Action, Cancel, Change, Move, Remove, Requeue, Settlement

BATCH = 100
"""How many jobs one script reads or writes."""
ATTEMPTS = 50
"""How often a job is read again because somebody else was quicker."""
CHANGED, WRITTEN, HELD = 0, 1, 2

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Replacement:
    """What is to be written in place of what was read; None: the job is to be deleted."""

    before: Stored
    after: JobRecord | None
    followups: tuple[JobRecord, ...] = ()
    reserve: bool = False
    """Whether the job's unique key is to be reserved again, or the change not made."""
    ask_to_stop: bool = False


def read(connection: Connection, ids: Sequence[str]) -> tuple[datetime, list[Stored | None]]:
    """The server's time, and the records, expired ones too."""
    stored: list[Stored | None] = []
    now = from_ms(0)
    for start in range(0, max(1, len(ids)), BATCH):
        answer = connection.run("read", list(ids[start : start + BATCH]), repeatable=True)
        now = from_ms(int(answer[0]))
        stored += [None if row is None else rows.read(row) for row in islice(answer, 1, None)]
    return now, stored


def write(connection: Connection, replacements: Sequence[Replacement]) -> list[int]:
    """Writes each if it may: WRITTEN, CHANGED if the job is not what was read, HELD if its key is."""
    answers: list[int] = []
    for start in range(0, len(replacements), BATCH):
        part = replacements[start : start + BATCH]
        answers += connection.run("replace", [_as_list(one) for one in part])
    return answers


def _as_list(one: Replacement) -> object:
    row = False if one.after is None else rows.row_of(one.after)
    followups = [enqueueing.followup(record) for record in one.followups]
    reserve = "reserve" if one.reserve else ""
    return [one.before.record.id, rows.binary(one.before.seen), row, reserve, followups, one.ask_to_stop]


# --- what people and rules change -------------------------------------------------------------------


def act(connection: Connection, ids: Sequence[str], action: Action) -> list[Change]:
    """Does the action to each job. See `requeue`, `cancel`, `move` and `remove` of `Broker`."""
    made = act_where(connection, ids, action, lambda record: True)
    return [Change.UNKNOWN if change is None else change for change in made]


def act_where(
    connection: Connection, ids: Sequence[str], action: Action, is_match: Callable[[JobRecord], bool]
) -> list[Change | None]:
    """The same for those jobs that match at the moment of the change; None for the others."""

    def step(job_id: str, stored: Stored | None, now: datetime) -> Change | tuple[Change, Replacement] | None:
        if stored is None or (stored.expires_ms is not None and stored.expires_ms <= to_ms(now)):
            return None
        if not is_match(stored.record):
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

    otherwise: dict[int, Change | None] = {HELD: Change.HELD}
    return each(connection, ids, str, step, otherwise)


def _requeue(stored: Stored, now: datetime, how: Requeue) -> Change | tuple[Change, Replacement]:
    record = stored.record
    if record.status in (Status.QUEUED, Status.STARTED):
        return Change.REFUSED
    after = lifecycle.requeued(
        record, now=now, queue=how.queue, reset_retries=how.reset_retries, delay=how.delay
    )
    return Change.DONE, Replacement(stored, after, reserve=True)


def _cancel(stored: Stored, now: datetime, how: Cancel) -> Change | tuple[Change, Replacement]:
    record = stored.record
    if record.status is Status.STARTED:
        marked = replace(record, cancel_requested=True, updated_at=now)
        return Change.REQUESTED, Replacement(stored, marked, ask_to_stop=how.interrupt)
    if record.status not in CANCELLABLE:
        return Change.REFUSED
    return Change.DONE, Replacement(stored, lifecycle.cancelled(record, now=now, ttl=how.ttl))


def _move(stored: Stored, how: Move) -> Change | tuple[Change, Replacement]:
    record = stored.record
    if not record.status.is_waiting or record.is_ended:
        return Change.REFUSED
    # updated_at stays: for a job that waits to be retried it says when its attempt ended
    return Change.DONE, Replacement(stored, replace(record, queue=how.queue))


def _remove(stored: Stored) -> Change | tuple[Change, Replacement]:
    if stored.record.status is Status.STARTED:
        return Change.REFUSED
    return Change.DONE, Replacement(stored, None)


# --- settling in full -------------------------------------------------------------------------------


def settle(connection: Connection, settlements: Sequence[Settlement]) -> list[bool]:
    """Ends claims whose outcome concerns more than the job's own record."""

    def step(settlement: Settlement, stored: Stored | None, now: datetime) -> bool | tuple[bool, Replacement]:
        if stored is None:
            return False
        record = stored.record
        if record.token != settlement.token or record.status is not Status.STARTED:
            return lifecycle.was_settled_by(record, settlement.token)
        after = lifecycle.settled(record, settlement.outcome, now)
        is_as_wished = after.status is settlement.outcome.status  # and not cancelled instead
        followups = settlement.outcome.followups if is_as_wished else ()
        return True, Replacement(stored, after, followups)

    return each(connection, settlements, lambda settlement: settlement.id, step, {})


def each(
    connection: Connection,
    items: Sequence[_Item],
    id_of: Callable[[_Item], str],
    step: Callable[[_Item, Stored | None, datetime], _Answer | tuple[_Answer, Replacement]],
    otherwise: dict[int, _Answer],
) -> list[_Answer]:
    """One step for each item, in order; items of the same job see what the one before has written.

    A step answers at once, or with what is to be written and the answer if it was. `otherwise` has the
    answers to what the script may say instead.
    """
    answers: dict[int, _Answer] = {}
    left = list(range(len(items)))
    for _ in range(ATTEMPTS):
        if not left:
            return [answers[place] for place in range(len(items))]
        # One item for each job in a round.
        chosen = list({id_of(items[place]): place for place in reversed(left)}.values())[::-1]
        now, stored = read(connection, [id_of(items[place]) for place in chosen])
        planned: list[tuple[int, _Answer, Replacement]] = []
        for place, item in zip(chosen, stored, strict=True):
            made = step(items[place], item, now)
            if isinstance(made, tuple):
                planned.append((place, *made))
            else:
                answers[place] = made
        results = write(connection, [replacement for *_, replacement in planned])
        for (place, answer, _), result in zip(planned, results, strict=True):
            if result == WRITTEN:
                answers[place] = answer
            elif result in otherwise:
                answers[place] = otherwise[result]
        left = [place for place in left if place not in answers]
    if left:
        raise BrokerUnavailable(
            f"{len(left)} jobs were changed by others each time before this call could write them: try again"
        )
    return [answers[place] for place in range(len(items))]
