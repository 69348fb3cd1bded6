"""Puts the two halves of a pair side by side: each unfinished job has its place, and nothing else has one."""

from __future__ import annotations

import redis

from mrq_broker_mongo.store import MongoStore
from mrq_broker_redis.queue import RedisQueue
from mrq_broker_redis.server.connection import Connection
from mrq_core.composed import ComposedBroker
from mrq_core.contract.queries import JobFilter, Order
from mrq_core.contract.record import Status
from tests.mongo import recount
from tests.redis.recount import names_under
from tests.redis.recount_entries import check_entries


def check_halves(broker: ComposedBroker) -> set[str]:
    """Entries are those of the records, and all that is counted is what they say. Answers with the ids of
    entries that no job needs."""
    queue, store = broker._queue, broker._store
    assert isinstance(queue, RedisQueue)
    assert isinstance(store, MongoStore)
    recount.check_store(store)
    check_entries(queue)
    connection: Connection = queue._connection
    client: redis.Redis = connection.use(lambda client: client)
    prefix = (connection.prefix + ":").encode()
    found = [name[2:].decode() for name in names_under(client, prefix) if name.startswith(b"j:")]
    return _without_need(broker, set(found))


def _without_need(broker: ComposedBroker, there: set[str]) -> set[str]:
    """Each unfinished job has its entry; what entries there are of other jobs, which start nothing."""
    unfinished = set()
    cursor = None
    while True:
        page = broker._store.find(JobFilter(), order=Order.OLDEST_FIRST, cursor=cursor, limit=500)
        ids = [record.id for record in page.records if not record.is_ended]
        unfinished |= set(ids)
        for stored, entry in zip(broker._store.read(ids), broker._queue.entries(ids), strict=True):
            assert stored is not None
            record = stored.record
            if entry is None:  # its parameter is to be delivered again
                assert record.raw_queue is not None
                assert broker._queue.is_leased(record.raw_queue, [record.id]) == [True]
                continue
            assert (entry.queue, entry.priority) == (record.queue, record.priority)
            if record.status is Status.STARTED:
                assert entry.token == record.token
            else:
                assert (entry.version, entry.token) == (stored.version, None)
        cursor = page.cursor
        if cursor is None:
            break
    others = there - unfinished
    assert not any(stored and not stored.record.is_ended for stored in broker._store.read(list(others)))
    return others
