"""Documents that are read and replaced, each only if it is still what was read, and what follows from that.

See `mrq_core.drivers.replacing`, which makes the changes of them.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from datetime import datetime

from bson import ObjectId
from pymongo import UpdateOne

from mrq_broker_mongo.jobs import effects, removing, sizes, uniques
from mrq_broker_mongo.jobs.enqueueing import document_of
from mrq_broker_mongo.jobs.records import Stored, guard_of, object_ids, stored, update_of
from mrq_broker_mongo.server import layout
from mrq_broker_mongo.server.connection import Connection, Jobs
from mrq_broker_mongo.server.location import Doc
from mrq_core.contract.messages import NewJob
from mrq_core.contract.pair import Replacement, WriteResult
from mrq_core.contract.record import JobRecord
from mrq_core.drivers.replacing import LeavesNoRoom
from mrq_core.errors import RecordTooLarge, ValueTooLarge

BATCH = 500


class Records:
    """The records of a prefix. See `mrq_core.drivers.replacing.Records`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def read(self, ids: Sequence[str]) -> tuple[datetime, list[Stored | None]]:
        """The server's time, and the jobs, expired ones too."""
        now = self._connection.now()
        found = read(self._connection, ids)
        return now, [found.get(job_id) for job_id in ids]

    def write(self, replacements: Sequence[Replacement[Stored]], now: datetime) -> list[WriteResult]:
        """Writes each if it may, and then what follows from those that were written."""
        if not replacements:
            return []
        connection = self._connection
        layout.recognize(connection)
        answers = dict.fromkeys(range(len(replacements)), WriteResult.CHANGED)
        number = secrets.randbits(62)
        updates = updates_to(connection, replacements, number, lambda job: document_of(connection, job, now))
        removals = [one.before.doc for one in replacements if one.after is None]
        gone = removing.remove(connection, removals, now)
        for index, one in enumerate(replacements):
            if one.after is None:
                answers[index] = WriteResult.DONE if one.before.doc["_id"] in gone else WriteResult.CHANGED
            elif one.reserve and not uniques.hold_again(connection, one.before.doc, now):
                answers[index] = WriteResult.HELD
                del updates[index]
        for index in written(connection, replacements, updates, number):
            answers[index] = WriteResult.DONE
        done = [replacements[index] for index in updates if answers[index] is WriteResult.DONE]
        effects.follow(connection, done, now)
        return [answers[index] for index in range(len(replacements))]


def read(connection: Connection, ids: Sequence[str]) -> dict[str, Stored]:
    """The jobs that there are, expired ones too, by their ids."""
    arrangement = connection.arrangement
    return {job_id: stored(doc, arrangement) for job_id, doc in documents_of(connection, ids).items()}


def documents_of(connection: Connection, ids: Sequence[str]) -> dict[str, Doc]:
    """The same as documents."""
    wanted = list(dict.fromkeys(object_ids(ids)))
    found: dict[str, Doc] = {}
    for start in range(0, len(wanted), BATCH):
        part = {"_id": {"$in": wanted[start : start + BATCH]}}
        found.update((str(doc["_id"]), doc) for doc in connection.run("jobs", _finder(part)))
    return found


def _finder(query: Doc) -> Callable[[Jobs], list[Doc]]:
    return lambda jobs: list(jobs.find(query))


def updates_to(
    connection: Connection,
    replacements: Sequence[Replacement[Stored]],
    number: int,
    document_of: Callable[[NewJob], Doc],
) -> dict[int, UpdateOne]:
    """The updates by the indexes of the jobs that stay. `document_of` makes the document of a follow-up.

    Raises ValueTooLarge for edited params, and RecordTooLarge for other changes after which a job or a
    follow-up would leave no room for a claim. Writes nothing.
    """
    updates: dict[int, UpdateOne] = {}
    refused: list[LeavesNoRoom] = []
    for index, one in enumerate(replacements):
        if one.after is None:
            continue
        try:
            followups = [document_of(job) for job in one.followups]
        except ValueTooLarge as error:
            raise RecordTooLarge(f"a follow-up of job {one.after.id} cannot be stored: {error}") from error
        try:
            updates[index] = _update_to(connection, one.before, one.after, number, followups)
        except LeavesNoRoom as error:
            refused.append(error)
    if refused:
        raise sizes.all_of(refused)
    return updates


def _update_to(
    connection: Connection, before: Stored, after: JobRecord, number: int, followups: Sequence[Doc]
) -> UpdateOne:
    """The update of the job by the call with this number, guarded by the version that was read."""
    update = update_of(before, after, connection.arrangement)
    update["$set"]["by"] = number
    update["$inc"] = {"v": 1}
    if followups:
        update["$set"]["followups"] = list(followups)
    sizes.check_again(before, after, update)
    return UpdateOne(guard_of(before.doc), update)


def written(
    connection: Connection,
    replacements: Sequence[Replacement[Stored]],
    updates: dict[int, UpdateOne],
    number: int,
) -> list[int]:
    """Writes the updates; answers with the indexes of those that were."""
    if not updates:
        return []
    operations = list(updates.values())
    # Made again after a lost reply, it finds what it wrote by the number.
    result = connection.run("jobs", lambda jobs: jobs.bulk_write(operations, ordered=False))
    if result.matched_count == len(updates):
        return list(updates)
    ids = [replacements[index].before.doc["_id"] for index in updates]
    mine = {"_id": {"$in": ids}, "by": number}
    found = connection.run("jobs", lambda jobs: list(jobs.find(mine, {"_id": 1})))
    written: set[ObjectId] = {doc["_id"] for doc in found}
    return [index for index in updates if replacements[index].before.doc["_id"] in written]
