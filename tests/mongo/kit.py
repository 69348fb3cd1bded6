"""What the tests of the MongoDB broker share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pymongo

from mrq_broker_mongo.broker import MongoBroker
from mrq_core.broker import Opening
from mrq_core.clock import Clock, SystemClock


@dataclass(frozen=True, slots=True)
class Place:
    """A prefix on a server."""

    url: str
    prefix: str

    def open(self, clock: Clock | None = None, timeout: float = 10.0) -> MongoBroker:
        """A broker there."""
        return open_broker(self, clock, timeout)

    def clear(self) -> None:
        """Deletes its documents, but for the hints. The collections stay, with their indexes: to create them takes
        far longer."""
        with pymongo.MongoClient[dict[str, Any]](self.url) as client:
            database = client.get_default_database()
            for name in database.list_collection_names():
                if name.startswith(f"{self.prefix}_") and not name.endswith("_wake"):
                    database[name].delete_many({})


def open_broker(place: Place, clock: Clock | None = None, timeout: float = 10.0) -> MongoBroker:
    """A broker at the place, in whichever process."""
    settings = {"MONGODB": place.url, "MONGODB_PREFIX": place.prefix}
    return MongoBroker(Opening(settings=settings, clock=clock or SystemClock(), timeout=timeout))
