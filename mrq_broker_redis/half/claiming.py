"""Claiming due entries for a worker, in one script."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from mrq_broker_redis.half.writing import entry_in, limit_keys_in
from mrq_broker_redis.jobs.claiming import arguments_of
from mrq_broker_redis.jobs.records import moment
from mrq_broker_redis.jobs.trees import Rotation
from mrq_broker_redis.jobs.uniques import unique_in
from mrq_broker_redis.server.connection import Connection
from mrq_core.clock import after, from_ms
from mrq_core.contract.lifecycle import make_token
from mrq_core.contract.messages import ClaimRequest
from mrq_core.contract.pair import ClaimedEntries, Entry
from mrq_core.ids import new_nonce


def claim(
    connection: Connection, request: ClaimRequest, rotation: Rotation, *, leave_suspects: bool
) -> ClaimedEntries:
    """See `JobQueue.claim`. One nonce for all entries: a token is compared together with the id."""
    nonce = new_nonce()
    arguments = arguments_of(request, rotation, nonce, limit=request.limit, leave_suspects=leave_suspects)
    answer = connection.run("entry_claim", arguments)
    now_ms = int(answer[1])
    now = from_ms(now_ms)
    if answer[0] == b"suspects":
        found = answer[2]
        suspects = [
            entry_in(job_id.decode(), row) for job_id, row in zip(found[::2], found[1::2], strict=True)
        ]
        return ClaimedEntries(suspects=tuple(suspects), now=now)
    _, _, rows, due, continued, parked, swept = answer[:7]
    rotation.note(now_ms, continued, parked, swept)
    until = after(now, request.lease)
    return ClaimedEntries(
        entries=tuple(_claimed(row, until, nonce) for row in rows),
        next_due=moment(due),
        now=now,
    )


def _claimed(row: Sequence[Any], until: datetime, nonce: str) -> Entry:
    """The claimed entry. The last fields of a row exist only for some entries."""
    queue, rank, version, claims, has_more, job_id = row[:6]
    limit_keys, key, how_long, period = row[6:] if has_more else (None, None, None, None)
    count = int(claims or 0)
    return Entry(
        id=job_id.decode(),
        queue=queue.decode(),
        version=int(version or 1),
        priority=-int(rank or 0),
        due_at=until,
        claims=count,
        token=make_token(count + 1, nonce),
        limit_keys=limit_keys_in(limit_keys),
        unique=unique_in(key, how_long, period),
    )
