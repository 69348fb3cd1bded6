"""Settling: writes the outcomes of attempts, guarded by the token."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from mrq_core.clock import Clock, from_ms
from mrq_core.contract import codec, lifecycle
from mrq_core.contract.messages import ClaimRef, NewJob, Settlement
from mrq_core.contract.record import JobRecord, Status
from mrq_core.drivers import encoding
from mrq_core.embedded.jobs import records, uniques
from mrq_core.embedded.jobs.batch import Batch
from mrq_core.embedded.jobs.enqueueing import enqueue
from mrq_core.embedded.shared import signals

_HEADS = """
SELECT id, seq, queue, path, status, token, is_plain, started_ms IS NOT NULL FROM jobs
WHERE id IN (SELECT value FROM json_each(?))"""
_BY_IDS = f"SELECT seq, {records.COLUMNS} FROM jobs WHERE id IN (SELECT value FROM json_each(?))"

Stored = dict[str, tuple[int, JobRecord]]


class Head(NamedTuple):
    """Columns that validate a claim and show whether the record must be read."""

    seq: int
    queue: str
    path: str
    status: str
    token: str | None
    is_plain: int
    is_beside: int
    """Whether the claim is stored beside the record."""

    def proves(self, claim: ClaimRef | Settlement) -> bool:
        """Whether the claim is the latest, and the job plain."""
        return bool(self.is_plain) and self.status == "started" and self.token == claim.token


def settle(connection: sqlite3.Connection, clock: Clock, settlements: Sequence[Settlement]) -> list[bool]:
    """See `Broker.settle`. Follow-ups are enqueued in the same transaction, so nothing is left to repair."""
    now_ms = clock.now_ms()
    heads = heads_of(connection, [settlement.id for settlement in settlements])
    batch = Batch(now_ms)
    followups: list[NewJob] = []
    answers = [True] * len(settlements)
    others: list[tuple[int, Settlement]] = []
    for index, settlement in enumerate(settlements):
        # Taken out: a second settlement of the same job is compared with what the first has written.
        head = heads.pop(settlement.id, None)
        outcome = settlement.outcome
        if head is not None and encoding.is_plain_success(outcome) and head.proves(settlement):
            batch.succeed(head.seq, head.queue, head.path, outcome)
            followups.extend(outcome.followups)
        else:
            others.append((index, settlement))
    batch.flush(connection)
    if others:
        settled = _settle_in_full(connection, now_ms, [settlement for _, settlement in others], followups)
        for (index, _), answer in zip(others, settled, strict=True):
            answers[index] = answer
    if followups:
        enqueue(connection, clock, followups)
    return answers


def _settle_in_full(
    connection: sqlite3.Connection,
    now_ms: int,
    settlements: Sequence[Settlement],
    followups: list[NewJob],
) -> list[bool]:
    """Reads, changes and writes the records. Adds the follow-ups to enqueue to `followups`."""
    now = from_ms(now_ms)
    stored = stored_jobs(connection, [settlement.id for settlement in settlements])
    changed: dict[str, JobRecord] = {}
    answers = []
    for settlement in settlements:
        if settlement.id not in stored:
            answers.append(False)
            continue
        record = changed.get(settlement.id) or stored[settlement.id][1]
        if record.token != settlement.token or record.status is not Status.STARTED:
            answers.append(lifecycle.was_settled_by(record, settlement.token))
            continue
        outcome = settlement.outcome
        changed[record.id] = ended = lifecycle.settled(record, outcome, now)
        if ended.status is outcome.status:  # and not cancelled instead
            followups.extend(outcome.followups)
        answers.append(True)
    batch = Batch(now_ms)
    for job_id, record in changed.items():
        seq, before = stored[job_id]
        batch.replace(seq, before, record)
        if record.unique_key is not None and record.is_ended:
            uniques.released(connection, record)
        if record.cancel_requested:
            signals.answered(connection, record)
    batch.flush(connection)
    return answers


def heads_of(connection: sqlite3.Connection, ids: Sequence[str]) -> dict[str, Head]:
    found = connection.execute(_HEADS, (codec.encode(list(ids)).decode(),)).fetchall()
    return {job_id: Head(*head) for job_id, *head in found}


def stored_jobs(connection: sqlite3.Connection, ids: Sequence[str]) -> Stored:
    found = connection.execute(_BY_IDS, (codec.encode(list(ids)).decode(),)).fetchall()
    return {columns[0]: (seq, records.read(*columns)) for seq, *columns in found}
