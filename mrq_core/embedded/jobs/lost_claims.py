"""Lost claims: claimed entries whose lease has expired.

A claim sees to the lost claims of its queues first. `lifecycle.after_lost_claim` says which jobs end; an idle
worker claims one of the others, alone.
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
"""The number of lost claims that one call examines in a queue, to end jobs that must not run again."""
SUSPECT_PAUSE_MS = 1000
"""How long a suspect without room under its limits is left out of claims."""

_SUSPECTS = f"""
SELECT seq, params, {records.COLUMNS} FROM jobs INDEXED BY jobs_entries
WHERE queue = ? AND rank = {records.CLAIMED_RANK} AND due_ms <= ? ORDER BY due_ms, id LIMIT ?"""


@dataclass(slots=True)
class Found:
    """The answer of a claim, as far as the claim has come."""

    now: datetime
    records: list[JobRecord] = field(default_factory=list)
    ended: list[JobRecord] = field(default_factory=list)
    suspects_due: bool = False


def see_to(
    connection: sqlite3.Connection,
    queue: str,
    request: ClaimRequest,
    batch: Batch,
    limiter: Limiter,
    found: Found,
    claimed: Callable[[JobRecord], JobRecord],
) -> None:
    """Ends the jobs of a queue that must not run again, and claims one of the others for an idle worker.

    `claimed` makes the record of a claim of one job alone.
    """
    now_ms = to_ms(found.now)
    for seq, params, *columns in connection.execute(_SUSPECTS, (queue, now_ms, MAX_SUSPECTS)).fetchall():
        before = records.read(*columns)
        ended = lifecycle.after_lost_claim(before, request, found.now)
        if ended is not None:
            after = ended
        elif before.limit_keys and not _has_slots(connection, limiter, before):
            batch.postpone(seq, before, now_ms + SUSPECT_PAUSE_MS)
            continue
        elif request.idle and not found.records and request.limit > 0:
            after = claimed(before)
            found.records.append(encoding.with_params(after, params))
        else:
            found.suspects_due = found.suspects_due or not request.idle
            continue
        if after.is_ended:
            found.ended.append(encoding.with_params(after, params))
            uniques.released(connection, after)
            if after.cancel_requested:
                signals.answered(connection, after)
        batch.replace(seq, before, after)


def _has_slots(connection: sqlite3.Connection, limiter: Limiter, suspect: JobRecord) -> bool:
    """Whether the suspect still holds its slots, or finds room for the slots that it lost."""
    held = slots.held_by(connection, suspect.id)
    return limiter.full([key for key in suspect.limit_keys if key not in held]) is None
