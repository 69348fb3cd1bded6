"""The waiting parameters of raw queues, on Redis's lists, sets and sorted sets.

A set has no order: its parameters come in any order, and each parameter once.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from mrq_broker_redis.server.connection import Connection
from mrq_core.contract.messages import RawItem
from mrq_core.contract.naming import RawKind

BATCH = 500


def push(connection: Connection, name: str, kind: RawKind, items: Sequence[RawItem]) -> list[bool]:
    """See `RawParameters.push`."""
    answers: list[bool] = []
    for start in range(0, len(items), BATCH):
        part = [[item.param, _score(item)] for item in items[start : start + BATCH]]
        # Not repeatable: a list would get the items again, and a set would answer that it holds them.
        answers += map(bool, connection.run("raw_push", [name, str(kind), part]))
    return answers


def peek(connection: Connection, name: str, kind: RawKind, limit: int, offset: int) -> list[RawItem]:
    """See `RawParameters.peek`."""
    if limit <= 0:
        return []
    key = _key(connection, name)
    last = offset + limit - 1
    if has_scores(kind):
        found = connection.use(lambda client: client.zrange(key, offset, last, withscores=True))
        return [RawItem(param=param.decode(), score=float(score)) for param, score in found]
    if kind is RawKind.LIST:
        params = connection.execute("LRANGE", key, offset, last)
    else:
        params = _first_of_set(connection, key, offset + limit)[offset:]
    return [RawItem(param=param.decode()) for param in params]


def _first_of_set(connection: Connection, key: str, number: int) -> list[bytes]:
    """The first members of a scan, whose order is stable while the set does not change."""

    def scan(client: Any) -> list[bytes]:
        seen: dict[bytes, None] = {}
        for member in client.sscan_iter(key, count=min(number, 1000)):
            seen[member] = None
            if len(seen) >= number:
                break
        return list(seen)

    return connection.use(scan)


def remove(connection: Connection, name: str, kind: RawKind, params: Sequence[str]) -> list[bool]:
    """See `RawParameters.remove`."""
    arguments = [name, str(kind), list(params)]
    return [bool(answer) for answer in connection.run("raw_remove", arguments)]


def size(connection: Connection, name: str, kind: RawKind) -> int:
    """See `RawParameters.size`."""
    command = {RawKind.LIST: "LLEN", RawKind.SET: "SCARD"}.get(kind, "ZCARD")
    return int(connection.execute(command, _key(connection, name)))


def histogram(
    connection: Connection, name: str, kind: RawKind, start: float, stop: float, buckets: int
) -> list[int]:
    """See `RawParameters.histogram`."""
    if not has_scores(kind) or start >= stop:
        return [0] * buckets
    key = _key(connection, name)
    edges = [start + (stop - start) * number / buckets for number in range(buckets)] + [stop]

    def count(client: Any) -> list[int]:
        pipeline = client.pipeline(transaction=False)
        for low, high in pairwise(edges):
            pipeline.zcount(key, repr(low), f"({high!r}")
        return [int(number) for number in pipeline.execute()]

    return connection.use(count)


def has_scores(kind: RawKind) -> bool:
    """Whether the parameters of this kind have a score."""
    return kind in (RawKind.SORTED_SET, RawKind.TIMED_SET)


def _key(connection: Connection, name: str) -> str:
    return connection.key(f"raw:{name}")


def _score(item: RawItem) -> str:
    return "" if item.score is None else repr(float(item.score))
