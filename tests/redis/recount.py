"""Counts anew what the Redis broker keeps counted, straight from the hashes of the jobs."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import msgspec
import redis

from mrq_broker_redis.broker import RedisBroker
from mrq_broker_redis.connection import Connection


def check_keys(broker: RedisBroker) -> None:
    """Lines, indexes, totals, slots and parked jobs are what the hashes say; so are the records."""
    connection: Connection = broker._connection
    client: redis.Redis = connection.use(lambda client: client)
    prefix = (connection.prefix + ":").encode()
    jobs = _jobs(client, prefix)
    sets: dict[bytes, set[bytes]] = defaultdict(set)
    totals: dict[bytes, Counter[bytes]] = {b"n:q": Counter(), b"n:h": Counter()}
    slots, parked = set(), set()
    for job_id, row in jobs.items():
        for kind in (b"s", b"q", b"h", b"g", b"y"):
            if row.get(kind):
                sets[b"i:" + kind + b":" + row[kind]].add(job_id)
        if row[b"z"] == b"w":
            sets[b"w:" + row[b"k"] + b":" + row[b"q"]].add(job_id)
        if row[b"z"] == b"c":
            sets[b"c:" + row[b"q"]].add(job_id)
        if row.get(b"x"):
            sets[b"x"].add(job_id)
        for key, field in ((b"n:q", b"q"), (b"n:h", b"h")):
            totals[key][row[b"s"] + b" " + row[field]] += 1
        keys: list[str] = msgspec.msgpack.decode(row[b"l"]) if b"l" in row else []
        if row[b"z"] == b"c":
            slots |= {job_id + b" " + key.encode() for key in keys}
        if row[b"z"] == b"p":
            parked.add(job_id)
    found = {
        key: set(_members(client, prefix + key))
        for key in _names(client, prefix)
        if key.startswith((b"i:", b"w:", b"c:")) or key == b"x"
    }
    assert found == sets
    for key, numbers in totals.items():
        assert _hash(client, prefix + key) == {field: str(n).encode() for field, n in numbers.items()}
    held = set(_members(client, prefix + b"slots"))
    assert held <= slots
    running = Counter(member.partition(b" ")[2] for member in held)
    assert _hash(client, prefix + b"running") == {key: str(n).encode() for key, n in running.items()}
    assert set(_hash(client, prefix + b"parked")) == parked
    in_queues = Counter(jobs[job_id][b"q"] for job_id in parked)
    assert _hash(client, prefix + b"parked-in") == {key: str(n).encode() for key, n in in_queues.items()}
    _check_records(broker, jobs)


def _check_records(broker: RedisBroker, jobs: dict[bytes, dict[bytes, bytes]]) -> None:
    ids = [job_id.decode() for job_id, row in jobs.items()]
    for start in range(0, len(ids), 500):
        part = ids[start : start + 500]
        for job_id, record in zip(part, broker.get(part), strict=True):
            if record is not None:
                row = jobs[job_id.encode()]
                assert record.status.value.encode() == row[b"s"]
                assert (record.queue.encode(), record.path.encode()) == (row[b"q"], row[b"h"])
                assert (record.token or "").encode() == row.get(b"t", b"")


def _jobs(client: redis.Redis, prefix: bytes) -> dict[bytes, dict[bytes, bytes]]:
    start = prefix + b"j:"
    found = {key[len(start) :]: _hash(client, key) for key in client.scan_iter(_pattern(start), count=1000)}
    places = {b"started": b"c", b"success": b""}
    return {job_id: {**row, b"z": places.get(row[b"s"], row[b"z"])} for job_id, row in found.items()}


def _names(client: redis.Redis, prefix: bytes) -> list[bytes]:
    return [key[len(prefix) :] for key in client.scan_iter(_pattern(prefix), count=1000)]


def _pattern(start: bytes) -> bytes:
    return start.replace(b"[", b"\\[") + b"*"


def _members(client: redis.Redis, key: bytes) -> list[bytes]:
    found: Any = client.zrange(key, 0, -1)
    return list(found)


def _hash(client: redis.Redis, key: bytes) -> dict[bytes, bytes]:
    found: Any = client.hgetall(key)
    return dict(found)
