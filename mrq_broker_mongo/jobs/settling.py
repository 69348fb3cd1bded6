"""Settling: writes the outcomes of attempts, guarded by the token."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from bson import ObjectId

from mrq_broker_mongo.jobs.changing import Records
from mrq_broker_mongo.jobs.successes import successes
from mrq_broker_mongo.jobs.totals import Deltas
from mrq_broker_mongo.server.connection import Connection
from mrq_broker_mongo.server.location import Doc
from mrq_core.contract.messages import Outcome, Settlement
from mrq_core.contract.record import JobRecord
from mrq_core.drivers import encoding, replacing
from mrq_core.ids import is_id

_MOST_HELD = 10_000


class HeldJob(NamedTuple):
    """The fields of a running job that a success needs."""

    queue: str
    path: str
    is_plain: bool


class HeldJobs:
    """Queue and path of the jobs that this process claimed, which do not change before the settle.

    Other jobs are read."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[tuple[str, str], HeldJob] = OrderedDict()

    def add(self, record: JobRecord, *, is_plain: bool) -> None:
        """Adds a claimed job. `is_plain`: its success changes only its document."""
        self._jobs[record.id, record.token or ""] = HeldJob(record.queue, record.path, is_plain)
        if len(self._jobs) > _MOST_HELD:
            self._jobs.popitem(last=False)

    def get(self, job_id: str, token: str) -> HeldJob | None:
        return self._jobs.get((job_id, token))

    def drop(self, job_id: str, token: str) -> None:
        """Removes a claim that is over."""
        self._jobs.pop((job_id, token), None)


def settle(connection: Connection, settlements: Sequence[Settlement], held: HeldJobs) -> list[bool]:
    """See `Broker.settle`. Successes of plain jobs in one bulk write; the others are read and written."""
    answers = [True] * len(settlements)
    simple, others = sort(connection, settlements, held)
    if simple:
        written = write_successes(connection, settlements, simple, connection.now())
        others += simple.keys() - written
    if others:
        others.sort()
        settled = replacing.settle(Records(connection), [settlements[index] for index in others])
        for index, accepted in zip(others, settled, strict=True):
            answers[index] = accepted
    for settlement in settlements:
        held.drop(settlement.id, settlement.token)
    return answers


def sort(
    connection: Connection, settlements: Sequence[Settlement], held: HeldJobs
) -> tuple[dict[int, HeldJob], list[int]]:
    """Separates the successes that change only the document of their job from the others."""
    simple: dict[int, HeldJob] = {}
    others: list[int] = []
    unknown: list[int] = []
    seen: set[str] = set()
    for number, settlement in enumerate(settlements):
        if not _is_simple(settlement.outcome) or settlement.id in seen or not is_id(settlement.id):
            others.append(number)
            continue
        seen.add(settlement.id)
        job = held.get(settlement.id, settlement.token)
        if job is None:
            unknown.append(number)
        elif job.is_plain:
            simple[number] = job
        else:
            others.append(number)
    if unknown:
        ids = [ObjectId(settlements[number].id) for number in unknown]
        fields = {"queue": 1, "path": 1, "special": 1, "lost_claims": 1}
        found = connection.run("jobs", lambda jobs: list(jobs.find({"_id": {"$in": ids}}, fields)))
        read = {str(doc["_id"]): _held(doc) for doc in found}
        for number in unknown:
            job = read.get(settlements[number].id)
            if job is not None and job.is_plain:
                simple[number] = job
            else:
                others.append(number)
    return simple, others


def _held(doc: Doc) -> HeldJob:
    # A success ends a row of lost claims, which a job without a lost claim does not have.
    return HeldJob(doc["queue"], doc["path"], "special" not in doc and not doc.get("lost_claims"))


def _is_simple(outcome: Outcome) -> bool:
    return (
        encoding.is_plain_success(outcome)
        and not outcome.followups
        and not outcome.is_retry
        and outcome.traceback is None
        and outcome.original_traceback is None
    )


def write_successes(
    connection: Connection, settlements: Sequence[Settlement], simple: dict[int, HeldJob], now: datetime
) -> set[int]:
    """Ends the claims of these jobs that are the latest. Returns the indexes of the written settlements."""
    number = secrets.randbits(62)
    lease = connection.arrangement.name("lease_until")
    updates = successes([settlements[index] for index in simple], now, number, lease)
    result = connection.run("jobs", lambda jobs: jobs.bulk_write(updates, ordered=False))
    written = set(simple)
    if result.matched_count < len(simple):
        ids = [ObjectId(settlements[index].id) for index in simple]
        query = {"_id": {"$in": ids}, "by": number}
        found = connection.run("jobs", lambda jobs: list(jobs.find(query, {"_id": 1})))
        mine = {str(doc["_id"]) for doc in found}
        written = {index for index in simple if settlements[index].id in mine}
    deltas = Deltas()
    for index in written:
        deltas.add(simple[index].queue, simple[index].path, "started", "success")
    deltas.write(connection)
    return written
