"""Changes that read a record, apply a transition of `lifecycle`, and write it by compare-and-set.

Each is written only if the job is still what it was when it was read; otherwise it is read and changed again.
So the rules stand in `lifecycle` alone, and no lock is held between the two calls.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple, TypeVar

from bson import ObjectId
from msgspec.structs import replace
from pymongo import UpdateOne

from mrq_broker_mongo import documents, effects, removing, uniques
from mrq_broker_mongo.connection import Connection
from mrq_broker_mongo.documents import Stored, guard_of, has_expired, stored, update_of
from mrq_broker_mongo.enqueueing import followup
from mrq_broker_mongo.location import Doc
from mrq_core import lifecycle
from mrq_core.errors import BrokerUnavailable
from mrq_core.job import JobRecord, Status, is_legal
from mrq_core.messages import Action, Cancel, Change, Move, Remove, Requeue, Settlement

ATTEMPTS = 50
"""How often a job is read again because somebody else was quicker."""
BATCH = 500
CHANGED, WRITTEN, HELD = 0, 1, 2

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


class Replacement(NamedTuple):
    """What is to be written in place of what was read; None: the job is to be deleted."""

    before: Stored
    after: JobRecord | None
    followups: tuple[JobRecord, ...] = ()
    reserve: bool = False
    """Whether the job's unique key is to be reserved again, or the change not made."""
    ask_to_stop: bool = False


def read(connection: Connection, ids: Sequence[str]) -> list[Stored | None]:
    """The jobs, expired ones too."""
    found: dict[str, Stored] = {}
    wanted = list(dict.fromkeys(documents.object_ids(ids)))
    for start in range(0, len(wanted), BATCH):
        query = {"_id": {"$in": wanted[start : start + BATCH]}}
        for doc in connection.run("jobs", lambda jobs, query=query: list(jobs.find(query))):  # type: ignore[misc]
            one = stored(doc)
            found[one.record.id] = one
    return [found.get(job_id) for job_id in ids]


def write(connection: Connection, replacements: Sequence[Replacement], now: datetime) -> list[int]:
    """Writes each if it may: WRITTEN, CHANGED if the job is not what was read, HELD if its key is."""
    answers = dict.fromkeys(range(len(replacements)), CHANGED)
    updates: dict[int, UpdateOne] = {}
    number = secrets.randbits(62)
    removals = [one.before.doc for one in replacements if one.after is None]
    gone = removing.remove(connection, removals, now)
    for place, one in enumerate(replacements):
        if one.after is None:
            answers[place] = WRITTEN if one.before.doc["_id"] in gone else CHANGED
        elif one.reserve and not uniques.hold_again(connection, one.before.doc, now):
            answers[place] = HELD
        else:
            updates[place] = UpdateOne(guard_of(one.before.doc), _update(one, one.after, number, now))
    for place in _written(connection, replacements, updates, number):
        answers[place] = WRITTEN
    done = [replacements[place] for place in updates if answers[place] == WRITTEN]
    effects.follow(connection, done, now)
    return [answers[place] for place in range(len(replacements))]


def _update(one: Replacement, after: JobRecord, number: int, now: datetime) -> Doc:
    update = update_of(one.before, after)
    update["$set"]["by"] = number
    update["$inc"] = {"v": 1}
    if one.followups:
        update["$set"]["followups"] = [followup(record, now) for record in one.followups]
    return update


def _written(
    connection: Connection, replacements: Sequence[Replacement], updates: dict[int, UpdateOne], number: int
) -> list[int]:
    """Writes the updates; answers with the places of those that were."""
    if not updates:
        return []
    operations = list(updates.values())
    # Made again after a lost reply, it finds what it wrote by the number.
    result = connection.run("jobs", lambda jobs: jobs.bulk_write(operations, ordered=False))
    if result.matched_count == len(updates):
        return list(updates)
    ids = [replacements[place].before.doc["_id"] for place in updates]
    mine = {"_id": {"$in": ids}, "by": number}
    found = connection.run("jobs", lambda jobs: list(jobs.find(mine, {"_id": 1})))
    written: set[ObjectId] = {doc["_id"] for doc in found}
    return [place for place in updates if replacements[place].before.doc["_id"] in written]


# --- what people and rules change -------------------------------------------------------------------


def act(connection: Connection, ids: Sequence[str], action: Action) -> list[Change]:
    """Does the action to each job. See `requeue`, `cancel`, `move` and `remove` of `Broker`."""
    made = act_where(connection, ids, action, lambda record: True)
    return [Change.UNKNOWN if change is None else change for change in made]


def act_where(
    connection: Connection, ids: Sequence[str], action: Action, is_match: Callable[[JobRecord], bool]
) -> list[Change | None]:
    """The same for those jobs that match at the moment of the change; None for the others."""

    def step(job_id: str, one: Stored | None, now: datetime) -> Change | tuple[Change, Replacement] | None:
        if one is None or has_expired(one.doc, now) or not is_match(one.record):
            return None
        match action:
            case Requeue():
                return _requeue(one, now, action)
            case Cancel():
                return _cancel(one, now, action)
            case Move():
                return _move(one, action)
            case Remove():
                return _remove(one)

    otherwise: dict[int, Change | None] = {HELD: Change.HELD}
    return each(connection, ids, str, step, otherwise)


def _requeue(one: Stored, now: datetime, how: Requeue) -> Change | tuple[Change, Replacement]:
    record = one.record
    if record.status is Status.STARTED or not is_legal(record.status, Status.QUEUED):
        return Change.REFUSED
    after = lifecycle.requeued(
        record, now=now, queue=how.queue, reset_retries=how.reset_retries, delay=how.delay
    )
    return Change.DONE, Replacement(one, after, reserve=True)


def _cancel(one: Stored, now: datetime, how: Cancel) -> Change | tuple[Change, Replacement]:
    record = one.record
    if record.status is Status.STARTED:
        marked = replace(record, cancel_requested=True, updated_at=now)
        return Change.REQUESTED, Replacement(one, marked, ask_to_stop=how.interrupt)
    if not is_legal(record.status, Status.CANCEL):
        return Change.REFUSED
    return Change.DONE, Replacement(one, lifecycle.cancelled(record, now=now, ttl=how.ttl))


def _move(one: Stored, how: Move) -> Change | tuple[Change, Replacement]:
    record = one.record
    if not record.status.is_waiting or record.is_ended:
        return Change.REFUSED
    # updated_at stays: for a job that waits to be retried it says when its attempt ended
    return Change.DONE, Replacement(one, replace(record, queue=how.queue))


def _remove(one: Stored) -> Change | tuple[Change, Replacement]:
    if one.record.status is Status.STARTED:
        return Change.REFUSED
    return Change.DONE, Replacement(one, None)


# --- settling in full -------------------------------------------------------------------------------


def settle(connection: Connection, settlements: Sequence[Settlement]) -> list[bool]:
    """Ends claims whose outcome concerns more than the job's own document."""

    def step(settlement: Settlement, one: Stored | None, now: datetime) -> bool | tuple[bool, Replacement]:
        if one is None:
            return False
        record = one.record
        if record.token != settlement.token or record.status is not Status.STARTED:
            return lifecycle.was_settled_by(record, settlement.token)
        after = lifecycle.settled(record, settlement.outcome, now)
        is_as_wished = after.status is settlement.outcome.status  # and not cancelled instead
        followups = settlement.outcome.followups if is_as_wished else ()
        return True, Replacement(one, after, followups)

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
    answers to what the write may say instead.
    """
    answers: dict[int, _Answer] = {}
    left = list(range(len(items)))
    for _ in range(ATTEMPTS):
        if not left:
            break
        # One item for each job in a round.
        chosen = list({id_of(items[place]): place for place in reversed(left)}.values())[::-1]
        now = connection.now()
        planned: list[tuple[int, _Answer, Replacement]] = []
        for place, one in zip(
            chosen, read(connection, [id_of(items[place]) for place in chosen]), strict=True
        ):
            made = step(items[place], one, now)
            if isinstance(made, tuple):
                planned.append((place, *made))
            else:
                answers[place] = made
        results = write(connection, [replacement for *_, replacement in planned], now)
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
