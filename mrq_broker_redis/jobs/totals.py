"""Totals of jobs, counts of queues, and the names of queues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mrq_broker_redis.jobs.records import moment
from mrq_broker_redis.server.connection import Connection
from mrq_core.contract.messages import QueueCounts, Totals
from mrq_core.contract.record import Status

BATCH = 100


def totals(connection: Connection) -> Totals:
    """See `Broker.totals`. Three hashes, which grow with the number of queues, paths and error groups."""
    found = []
    for key in ("n:q", "n:h", "n:e"):
        table: dict[str, dict[Status, int]] = {}
        flat = connection.execute("HGETALL", connection.key(key))
        for field, number in _pairs(flat):
            status, _, name = field.decode().partition(" ")
            table.setdefault(name, {})[Status(status)] = int(number)
        found.append(table)
    return Totals(by_queue=found[0], by_path=found[1], by_error_group=found[2])


def _pairs(found: Any) -> list[tuple[bytes, bytes]]:
    """Fields and values, from either form that the client returns."""
    if isinstance(found, dict):
        return list(found.items())
    return list(zip(found[::2], found[1::2], strict=True))


def counts(connection: Connection, queues: Sequence[str]) -> list[QueueCounts]:
    """See `Broker.counts`. Costs a few look-ups for each queue, whatever its length."""
    answers: list[QueueCounts] = []
    for start in range(0, len(queues), BATCH):
        part = list(queues[start : start + BATCH])
        for queue, found in zip(part, connection.run("counts", part, repeatable=True), strict=True):
            waiting, due, claimed, oldest = found
            answers.append(
                QueueCounts(
                    queue=queue,
                    waiting=waiting,
                    due=due,
                    claimed=claimed,
                    oldest_due=moment(oldest),
                )
            )
    return answers


def queue_names(connection: Connection, prefix: str, after: str, limit: int) -> list[str]:
    """See `Broker.queue_names`."""
    low = f"({after}" if after >= prefix and after else f"[{prefix}" if prefix else "-"
    high = b"(" + prefix.encode() + b"\xff" if prefix else b"+"
    found = connection.execute("ZRANGEBYLEX", connection.key("queues"), low, high, "LIMIT", 0, limit)
    return [name.decode() for name in found]
