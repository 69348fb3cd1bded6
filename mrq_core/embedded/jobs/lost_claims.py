"""Lost claims: claimed entries whose lease has expired.

A claim sees to the lost claims of its queues first. `lifecycle.after_lost_claim` says which jobs end; the
others are claimed again, beside waiting jobs.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from mrq_core.clock import to_ms
from mrq_core.contract import lifecycle
from mrq_core.contract.messages import ClaimRequest
from mrq_core.contract.record import JobRecord
from mrq_core.drivers import encoding
from mrq_core.embedded.jobs import records, slots, uniques
from mrq_core.embedded.jobs.batch import Batch
from mrq_core.embedded.jobs.limits import Limiter
from mrq_core.embedded.shared import signals

MAX_SUSPECTS = 20
"""The number of lost claims that one call examines in a queue."""
SUSPECT_PAUSE_MS = 1000
"""How long a suspect without room under its limits is left out of claims."""

_SUSPECTS = f"""
SELECT seq, params, {records.COLUMNS} FROM jobs INDEXED BY jobs_entries
WHERE queue = ? AND rank = {records.CLAIMED_RANK} AND due_ms <= ? ORDER BY due_ms, id LIMIT ?"""


Suspect = tuple[int, JobRecord, bytes]
"""The row, the record without its params, and the params of a job that may be claimed again."""


@dataclass(slots=True)
class Found:
    """The answer of a claim, as far as the claim has come."""

    now: datetime
    records: list[JobRecord] = field(default_factory=list)
    ended: list[JobRecord] = field(default_factory=list)
    suspects: list[Suspect] = field(default_factory=list)


def see_to(
    connection: sqlite3.Connection, queue: str, request: ClaimRequest, batch: Batch, found: Found
) -> None:
    """Ends the jobs of a queue that must not run again. Adds the others to `found.suspects`."""
    now_ms = to_ms(found.now)
    for seq, params, *columns in connection.execute(_SUSPECTS, (queue, now_ms, MAX_SUSPECTS)).fetchall():
        before = records.read(*columns)
        after = lifecycle.after_lost_claim(before, request, found.now)
        if after is None:
            if not request.leaves(before.path):
                found.suspects.append((seq, before, params))
            continue
        found.ended.append(encoding.with_params(after, params))
        uniques.released(connection, after)
        if after.cancel_requested:
            signals.answered(connection, after)
        batch.replace(seq, before, after)


def take(
    connection: sqlite3.Connection,
    batch: Batch,
    limiter: Limiter,
    found: Found,
    claimed: Callable[[JobRecord], JobRecord],
    most: int,
) -> None:
    """Claims suspects until the call has `most` jobs, and postpones those whose limits leave no room.

    `claimed` makes the record of a claim.
    """
    while found.suspects and len(found.records) < most:
        seq, before, params = found.suspects.pop(0)
        if not _take_slots(connection, limiter, before):
            batch.postpone(seq, before, to_ms(found.now) + SUSPECT_PAUSE_MS)
            continue
        after = claimed(before)
        batch.replace(seq, before, after)
        found.records.append(encoding.with_params(after, params))


def _take_slots(connection: sqlite3.Connection, limiter: Limiter, suspect: JobRecord) -> bool:
    """Whether the task of the suspect is not paused, and the suspect holds its slots or finds room for those
    that it lost. Where a limit has become smaller than the number of slots, they end first."""
    if limiter.is_paused(suspect.path):
        return False
    if not suspect.limit_keys:
        return True
    held = slots.held_by(connection, suspect.id)
    lost = [key for key in suspect.limit_keys if key not in held]
    if limiter.full(lost) is not None or limiter.is_exceeded(held):
        return False
    limiter.took(lost)
    return True
