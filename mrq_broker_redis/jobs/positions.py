"""Positions of waiting jobs and entries in their queues, each in one script."""

from __future__ import annotations

from typing import Any

from mrq_broker_redis.jobs.records import moment
from mrq_broker_redis.server.connection import Connection
from mrq_core.contract.messages import MOST_AHEAD
from mrq_core.contract.queries import KeyUse, QueuePosition


def position(connection: Connection, job_id: str) -> QueuePosition | None:
    """See `Broker.queue_position`. Ranks and counts of sorted sets are exact at any length."""
    return _position_in(connection.run("position", [job_id], repeatable=True))


def entry_position(connection: Connection, job_id: str) -> QueuePosition | None:
    """See `JobQueue.position`."""
    return _position_in(connection.run("entry_position", [job_id], repeatable=True))


def _position_in(answer: Any) -> QueuePosition | None:
    if answer is None:
        return None
    ahead, due, key, since, allowed, uses = answer
    return QueuePosition(
        ahead=ahead,
        due_at=moment(due),
        parked_under=None if key is None else key.decode(),
        parked_since=moment(since),
        allowed_at=moment(allowed),
        keys=tuple(map(_use_in, uses)),
    )


def _use_in(row: Any) -> KeyUse:
    key, running, holders, parked, waiters, even_at = row
    return KeyUse(
        key=key.decode(),
        running=running,
        holders=tuple(job_id.decode() for job_id in holders),
        parked=min(parked, MOST_AHEAD),
        waiters=tuple(job_id.decode() for job_id in waiters),
        even_at=moment(even_at),
    )
