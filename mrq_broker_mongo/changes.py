"""Documents that are read and replaced, each only if it is still what was read, and what follows from that.

See `mrq_core.changing`, which makes the changes of them.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime

from bson import ObjectId
from pymongo import UpdateOne

from mrq_broker_mongo import documents, effects, removing, uniques
from mrq_broker_mongo.connection import Connection
from mrq_broker_mongo.documents import Stored, guard_of, stored, update_of
from mrq_broker_mongo.enqueueing import followup
from mrq_broker_mongo.location import Doc
from mrq_core.changing import Replacement, Written
from mrq_core.job import JobRecord

BATCH = 500


class Records:
    """The records of a prefix. See `mrq_core.changing.Records`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def read(self, ids: Sequence[str]) -> tuple[datetime, list[Stored | None]]:
        """The server's time, and the jobs, expired ones too."""
        now = self._connection.now()
        found: dict[str, Stored] = {}
        wanted = list(dict.fromkeys(documents.object_ids(ids)))
        for start in range(0, len(wanted), BATCH):
            for doc in self._documents(wanted[start : start + BATCH]):
                one = stored(doc)
                found[one.record.id] = one
        return now, [found.get(job_id) for job_id in ids]

    def _documents(self, ids: Sequence[ObjectId]) -> list[Doc]:
        return self._connection.run("jobs", lambda jobs: list(jobs.find({"_id": {"$in": list(ids)}})))

    def write(self, replacements: Sequence[Replacement[Stored]], now: datetime) -> list[Written]:
        """Writes each if it may, and then what follows from those that were written."""
        connection = self._connection
        answers = dict.fromkeys(range(len(replacements)), Written.CHANGED)
        updates: dict[int, UpdateOne] = {}
        number = secrets.randbits(62)
        removals = [one.before.doc for one in replacements if one.after is None]
        gone = removing.remove(connection, removals, now)
        for place, one in enumerate(replacements):
            if one.after is None:
                answers[place] = Written.DONE if one.before.doc["_id"] in gone else Written.CHANGED
            elif one.reserve and not uniques.hold_again(connection, one.before.doc, now):
                answers[place] = Written.HELD
            else:
                updates[place] = UpdateOne(guard_of(one.before.doc), _update(one, one.after, number, now))
        for place in _written(connection, replacements, updates, number):
            answers[place] = Written.DONE
        done = [replacements[place] for place in updates if answers[place] is Written.DONE]
        effects.follow(connection, done, now)
        return [answers[place] for place in range(len(replacements))]


def _update(one: Replacement[Stored], after: JobRecord, number: int, now: datetime) -> Doc:
    update = update_of(one.before, after)
    update["$set"]["by"] = number
    update["$inc"] = {"v": 1}
    if one.followups:
        update["$set"]["followups"] = [followup(record, now) for record in one.followups]
    return update


def _written(
    connection: Connection,
    replacements: Sequence[Replacement[Stored]],
    updates: dict[int, UpdateOne],
    number: int,
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
