"""What the state machine is made of: names and values that its rules draw, and what it compares."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from msgspec.structs import replace

from mrq_core.contract.broker import Broker
from mrq_core.contract.lifecycle import claim_number
from mrq_core.contract.messages import Action, ChangeResult, ClaimRef, Limit
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import JobRecord, Status

QUEUES = ("a", "b", "t/x", "t/y", "limited", "rated")
WORKERS = ("w1", "w2")
LEASE = 30.0
LIMITS = {"rule": Limit(concurrency=2)}
RATES = [{"rate": Limit(rate=2, per=per)} for per in (50.0, 50.0, 400.0)]
"""Jobs are pushed back, or parked, and the rule changes now and then."""
PAUSABLE = "p0"
"""The path of the task that is paused now and then."""
ENDS = [Status.SUCCESS, Status.FAILED, Status.ABORT, Status.TIMEOUT, Status.MAXRETRIES, Status.CANCEL]
ERRORS: list[dict[str, Any]] = [
    {},
    {"exception_type": "a.E", "exception_message": "no lamps", "error_group": "g1"},
    {"exception_type": "b.E", "exception_message": "no chairs", "error_group": "g2"},
]
TERMS = [
    JobFilter(exception_types=("E",)),
    JobFilter(exception_types=("a.E",), error_words=("no",)),
    JobFilter(error_words=("chairs",)),
    JobFilter(error_groups=("g1",)),
    JobFilter(search_keys={"n": 1}),
    JobFilter(search_keys={"m": 1}),
    JobFilter(search_keys={"n": 1}, error_words=("lamps",)),
]
GOES_ON = [Status.RETRY, Status.INTERRUPT, Status.QUEUED]


class Pair(NamedTuple):
    """One claim of one job, as the driver gave it and as the model did."""

    ours: JobRecord
    models: JobRecord


def plain_record(record: JobRecord, now: datetime, aliases: Mapping[str, str]) -> JobRecord:
    """The record without what the contract leaves open."""
    due_at: datetime | None = record.due_at
    if (
        (record.limit_keys or record.path == PAUSABLE)
        and record.status.is_waiting
        and due_at is not None
        and due_at <= now
    ):
        due_at = None
    return replace(
        record,
        id=aliases.get(record.id, record.id),
        due_at=due_at,
        token=None if record.token is None else str(claim_number(record.token)),
        history=tuple(replace(attempt, token=str(claim_number(attempt.token))) for attempt in record.history),
    )


def ids_of(broker: Broker, wanted: JobFilter, aliases: Mapping[str, str]) -> list[str]:
    """The ids of the jobs that match, as the model has given them."""
    found = broker.find(wanted, limit=1000).records
    return sorted(aliases.get(record.id, record.id) for record in found)


def present_totals(broker: Broker) -> list[dict[str, dict[Status, int]]]:
    """The totals without their zeros."""
    tables = []
    totals = broker.totals()
    for table in (totals.by_queue, totals.by_path, totals.by_error_group):
        rows = {
            name: {status: number for status, number in row.items() if number} for name, row in table.items()
        }
        tables.append({name: row for name, row in rows.items() if row})
    return tables


def apply_all(broker: Broker, wanted: JobFilter, action: Action) -> tuple[int, dict[ChangeResult, int]]:
    """A bulk action to its end, in steps of two jobs: what it matched and did altogether."""
    matched, changes, cursor = 0, dict.fromkeys(ChangeResult, 0), None
    while True:
        applied = broker.apply(wanted, action, limit=2, cursor=cursor)
        matched += applied.matched
        for change, number in applied.changes.items():
            changes[change] += number
        cursor = applied.cursor
        if cursor is None:
            return matched, changes


def ref_of(record: JobRecord) -> ClaimRef:
    """The claim of the record."""
    return ClaimRef(id=record.id, token=record.token or "")
