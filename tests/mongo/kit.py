"""What the tests of the MongoDB broker share."""

from __future__ import annotations

import atexit
from dataclasses import dataclass
from functools import cache
from typing import Any

import pymongo

from mrq_broker_mongo.broker import MongoBroker
from mrq_broker_mongo.store import MongoStore
from mrq_core.clock import Clock, SystemClock, from_ms
from mrq_core.contract.broker import Broker
from mrq_core.contract.driver import Opening
from mrq_core.contract.messages import Claimed, ClaimRequest, NewJob, Outcome, Settlement, Unique, Wanted
from mrq_core.contract.record import JobRecord, Status
from mrq_core.ids import new_id
from tests.proxy import Proxy


@dataclass(frozen=True, slots=True)
class Place:
    """A prefix on a server."""

    url: str
    prefix: str

    def open(self, clock: Clock | None = None, timeout: float = 10.0) -> MongoBroker:
        """A broker there."""
        return open_broker(self, clock, timeout)

    def open_store(self, clock: Clock | None = None, timeout: float = 10.0) -> MongoStore:
        """A store there, for a queue that is elsewhere."""
        return open_store(self, clock, timeout)

    def clear(self) -> None:
        """Deletes its documents, but for the hints. The collections stay, with their indexes: to create them
        takes far longer."""
        database = _client(self.url).get_default_database()
        for name in database.list_collection_names():
            if name.startswith(f"{self.prefix}_") and not name.endswith("_wake"):
                database[name].delete_many({})


@cache
def _client(url: str) -> pymongo.MongoClient[dict[str, Any]]:
    """The client that empties the collections between tests. To connect takes longer than to empty them."""
    client = pymongo.MongoClient[dict[str, Any]](url)
    atexit.register(client.close)
    return client


def open_broker(place: Place, clock: Clock | None = None, timeout: float = 10.0) -> MongoBroker:
    """A broker at the place, in whichever process."""
    return MongoBroker(_opening(place, clock, timeout))


def open_store(place: Place, clock: Clock | None = None, timeout: float = 10.0) -> MongoStore:
    """A store at the place, in whichever process."""
    return MongoStore(_opening(place, clock, timeout))


def _opening(place: Place, clock: Clock | None, timeout: float) -> Opening:
    settings = {"MONGODB": place.url, "MONGODB_PREFIX": place.prefix}
    return Opening(settings=settings, clock=clock or SystemClock(), timeout=timeout)


def new_job(queue: str = "q", unique: Unique | None = None, **more: Any) -> NewJob:
    """A job of that queue."""
    now = from_ms(SystemClock().now_ms())
    record = JobRecord(
        id=new_id(), path="t.Task", params=more.pop("params", {"a": 1}), queue=queue, queued_at=now,
        updated_at=now, **more,
    )  # fmt: skip
    return NewJob(record=record, unique=unique)


def claim(broker: Broker, lease: float = 60.0, limit: int = 10, queue: str = "q") -> Claimed:
    """Claims due jobs of the queue."""
    return broker.claim(ClaimRequest(worker="w", wanted=(Wanted(name=queue),), limit=limit, lease=lease))


def success(record: JobRecord, result: Any = 7) -> Settlement:
    """The attempt ended well."""
    return ended(record, Outcome(status=Status.SUCCESS, result=result, ttl=60.0))


def ended(record: JobRecord, outcome: Outcome) -> Settlement:
    """The attempt ended so."""
    assert record.token is not None
    return Settlement(id=record.id, token=record.token, outcome=outcome)


def lose_reply_to(proxy: Proxy, place: Place, command: str, collection: str = "jobs") -> None:
    """Loses the reply to the next such command on that collection."""
    name = f"{place.prefix}_{collection}"
    proxy.lose_reply_to(b"\x02" + command.encode() + b"\x00.{4}" + name.encode() + b"\x00")
