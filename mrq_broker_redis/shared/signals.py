"""Pauses of queues, and requests to interrupt running jobs, which each process polls once a second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mrq_broker_redis.server.connection import Connection
from mrq_core.contract.messages import PollResult, Versions


def poll(connection: Connection, worker: str, versions: Versions) -> PollResult:
    """See `Broker.poll`. Two look-ups in one round trip without changes."""

    def look(client: Any) -> list[Any]:
        pipeline = client.pipeline(transaction=False)
        pipeline.get(connection.key("pauses:n"))
        pipeline.zrangebyscore(
            connection.key(f"sig:{worker}"), f"({versions.signals}", "+inf", withscores=True
        )
        answers: list[Any] = pipeline.execute()
        return answers

    number, found = connection.use(look)
    pauses = int(number or 0)
    signals = [(job_id.decode(), int(score)) for job_id, score in found]
    return PollResult(
        versions=Versions(pauses=pauses, signals=signals[-1][1] if signals else versions.signals),
        paused=None if pauses == versions.pauses else paused(connection),
        interrupts=tuple(job_id for job_id, _ in signals),
    )


def set_paused(connection: Connection, queues: Sequence[str], *, is_paused: bool) -> None:
    """Pauses or resumes queues, and counts the change."""
    if not queues:
        return

    def work(client: Any) -> None:
        pipeline = client.pipeline(transaction=True)
        change = pipeline.sadd if is_paused else pipeline.srem
        change(connection.key("paused"), *queues)
        pipeline.incr(connection.key("pauses:n"))
        pipeline.execute()

    connection.use(work)


def paused(connection: Connection) -> frozenset[str]:
    """See `Broker.paused`."""
    return frozenset(name.decode() for name in connection.execute("SMEMBERS", connection.key("paused")))
