"""Puts the two halves of a pair side by side: each unfinished job has its place, and nothing else has one."""

from __future__ import annotations

from collections import Counter, defaultdict

import msgspec
import redis

from mrq_broker_mongo.store import MongoStore
from mrq_broker_redis.connection import Connection
from mrq_broker_redis.queue import RedisQueue
from mrq_core.composed import ComposedBroker
from mrq_core.job import Status
from mrq_core.messages import JobFilter, Order
from tests.mongo import recount
from tests.redis.recount import members, names, table

Row = dict[bytes, bytes]


def check_halves(broker: ComposedBroker) -> None:
    """Entries are those of the records; lines, slots and parked jobs are what the entries say."""
    queue, store = broker._queue, broker._store
    assert isinstance(queue, RedisQueue)
    assert isinstance(store, MongoStore)
    recount.check_store(store)
    connection: Connection = queue._connection
    client: redis.Redis = connection.use(lambda client: client)
    prefix = (connection.prefix + ":").encode()
    rows = {
        name[2:]: table(client, prefix + name) for name in names(client, prefix) if name.startswith(b"j:")
    }
    _check_entries(broker, {job_id.decode() for job_id in rows})
    _check_lines(client, prefix, rows)


def _check_entries(broker: ComposedBroker, there: set[str]) -> None:
    unfinished = set()
    cursor = None
    while True:
        page = broker._store.find(JobFilter(), order=Order.OLDEST_FIRST, cursor=cursor, limit=500)
        ids = [record.id for record in page.records if not record.is_ended]
        unfinished |= set(ids)
        for stored, entry in zip(broker._store.read(ids), broker._queue.entries(ids), strict=True):
            assert stored is not None
            assert entry is not None, stored.record
            record = stored.record
            assert (entry.queue, entry.priority) == (record.queue, record.priority)
            if record.status is Status.STARTED:
                assert entry.token == record.token
            else:
                assert (entry.version, entry.token) == (stored.version, None)
        cursor = page.cursor
        if cursor is None:
            break
    assert there == unfinished


def _check_lines(client: redis.Redis, prefix: bytes, rows: dict[bytes, Row]) -> None:
    lines: dict[bytes, set[bytes]] = defaultdict(set)
    slots, parked = set(), set()
    for job_id, row in rows.items():
        if row[b"s"] == b"started":
            lines[b"c:" + row[b"q"]].add(job_id)
            keys: list[str] = msgspec.msgpack.decode(row[b"l"]) if b"l" in row else []
            slots |= {job_id + b" " + key.encode() for key in keys}
        elif row.get(b"z", b"w") == b"w":
            lines[b"w:" + row.get(b"k", b"0") + b":" + row[b"q"]].add(job_id)
        else:
            parked.add(job_id)
    found = {
        name: set(members(client, prefix + name))
        for name in names(client, prefix)
        if name.startswith((b"w:", b"c:"))
    }
    assert found == lines
    held = set(members(client, prefix + b"slots"))
    assert held <= slots
    running = Counter(member.partition(b" ")[2] for member in held)
    assert table(client, prefix + b"running") == {key: str(n).encode() for key, n in running.items()}
    assert set(table(client, prefix + b"parked")) == parked
    assert not [name for name in names(client, prefix) if name.startswith((b"r:", b"i:", b"n:", b"l:"))]
