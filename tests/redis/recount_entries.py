"""Counts anew what a queue half on Redis keeps counted, straight from the hashes of the entries."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import msgspec
import redis

from mrq_broker_redis.queue import RedisQueue
from mrq_broker_redis.server.connection import Connection
from tests.redis.recount import Row, check_parked, check_trees, hash_of, members_of, names_under

_FIELDS = {field.encode() for field in "qkdvntwzblumpor"}
_KINDS = {
    *("j", "w", "c", "ready", "later", "park", "wake", "raw", "raw-until", "raw-lease", "raw-visit"),
    *("layout", "ranks", "queues", "u", "slots", "running", "parked", "parked-keys", "parked-in"),
    *("rates", "spacings"),
    *("raw-names", "raw-settled", "queues-walk"),
}
"""What the names of keys begin with: no records, no indexes, no totals."""


def check_entries(queue: RedisQueue) -> None:
    """Lines, slots, parked entries, trees and unique keys are what the hashes say, and there is no more."""
    connection: Connection = queue._connection
    client: redis.Redis = connection.use(lambda client: client)
    prefix = (connection.prefix + ":").encode()
    names = names_under(client, prefix)
    assert {name.decode().partition(":")[0] for name in names} <= _KINDS
    entries = {name[2:]: hash_of(client, prefix + name) for name in names if name.startswith(b"j:")}
    lines: dict[bytes, set[bytes]] = defaultdict(set)
    slots, parked = set(), set()
    for job_id, row in entries.items():
        assert row.keys() <= _FIELDS
        assert all(len(value) <= 64 for value in row.values())  # of the server, for what is kept in one piece
        assert (b"o" in row) == bool(row.keys() & {b"l", b"u", b"b", b"z"})
        row[b"z"] = b"c" if b"t" in row else row.get(b"z", b"w")
        keys: list[str] = msgspec.msgpack.decode(row[b"l"]) if b"l" in row else []
        if row[b"z"] == b"c":
            lines[b"c:" + row[b"q"]].add(job_id)
            slots |= {job_id + b" " + key.encode() for key in keys}
        elif row[b"z"] == b"p":
            parked.add(job_id)
        else:
            lines[b"w:" + row.get(b"k", b"0") + b":" + row[b"q"]].add(job_id)
    _check_lines(client, prefix, names, lines, entries)
    held = set(members_of(client, prefix + b"slots"))
    assert held <= slots
    running = Counter(member.partition(b" ")[2] for member in held)
    assert hash_of(client, prefix + b"running") == {key: str(n).encode() for key, n in running.items()}
    assert set(hash_of(client, prefix + b"parked")) == parked
    in_queues = Counter(entries[job_id][b"q"] for job_id in parked)
    assert hash_of(client, prefix + b"parked-in") == {key: str(n).encode() for key, n in in_queues.items()}
    check_parked(client, prefix)
    check_trees(client, prefix, entries)
    holders = hash_of(client, prefix + b"u")
    assert {key for key, value in holders.items() if value[24:]} == set(members_of(client, prefix + b"u:x"))
    assert hash_of(client, prefix + b"u:at").keys() <= holders.keys()


def _check_lines(
    client: redis.Redis,
    prefix: bytes,
    names: list[bytes],
    lines: dict[bytes, set[bytes]],
    entries: dict[bytes, Row],
) -> None:
    """Each entry stands in its line at the time that it says; a suspect that was put off, later."""
    found: dict[bytes, Any] = {
        name: client.zrange(prefix + name, 0, -1, withscores=True)
        for name in names
        if name.startswith((b"w:", b"c:"))
    }
    assert {name: {member for member, _ in line} for name, line in found.items()} == lines
    for name, line in found.items():
        for member, score in line:
            row = entries[member]
            assert score == int(row[b"d"]) or (name.startswith(b"c:") and score > int(row[b"d"]))
            row[b"d"] = str(int(score)).encode()
