"""Making jobs of claimed raw parameters: record, claimed entry and end of the lease in one step."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from mrq_core import failpoints
from mrq_core.clock import Clock, from_ms
from mrq_core.contract import codec
from mrq_core.contract.lifecycle import admitted, was_admitted_by
from mrq_core.contract.messages import RawClaim
from mrq_core.contract.record import JobRecord
from mrq_core.embedded import rawclaims, rows
from mrq_core.embedded.batch import Batch

_STORED = f"SELECT id, {rows.COLUMNS} FROM jobs WHERE id IN (SELECT value FROM json_each(?))"


def admit(
    connection: sqlite3.Connection,
    clock: Clock,
    queue: str,
    claims: Sequence[tuple[RawClaim, JobRecord]],
    lease: float,
) -> list[bool]:
    """See `RawQueue.admit`."""
    now_ms = clock.now_ms()
    now = from_ms(now_ms)
    ids = codec.encode([claim.job_id for claim, _ in claims]).decode()
    stored = {
        job_id: rows.read(*columns) for job_id, *columns in connection.execute(_STORED, (ids,)).fetchall()
    }
    batch = Batch(now_ms)
    answers = []
    for claim, record in claims:
        if claim.job_id in stored:
            answers.append(was_admitted_by(stored[claim.job_id], claim.token))
            continue
        if not rawclaims.end_lease(connection, queue, claim):
            answers.append(False)
            continue
        stored[claim.job_id] = started = admitted(
            record, job_id=claim.job_id, token=claim.token, now=now, lease=lease
        )
        batch.insert(started, None)
        answers.append(True)
    failpoints.reach("raw.leases")
    batch.flush(connection)
    return answers
