"""Announces the MongoDB driver. Loads neither pymongo nor the rest of it before something is opened."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mrq_core.config.importing import import_whole
from mrq_core.contract.broker import Broker
from mrq_core.contract.driver import Driver, Opening
from mrq_core.contract.pair import JobStore
from mrq_core.errors import ConfigError
from mrq_core.plugins.hookspecs import hookimpl


@hookimpl
def mrq_driver() -> Driver:
    """The driver ``mongo``."""
    return Driver(
        name="mongo",
        summary="queues and records in MongoDB 5.0 or later",
        url_schemes=("mongodb", "mongodb+srv"),
        settings=("MONGODB", "MONGODB_PREFIX"),
        open_broker=open_broker,
        open_store=open_store,
    )


def open_broker(opening: Opening) -> Broker:
    """Opens the broker; it connects when it is first used. Raises ConfigError."""
    with _telling_what_is_missing("broker"):
        import_whole("mrq_broker_mongo.broker")
        from mrq_broker_mongo.broker import MongoBroker
    return MongoBroker(opening)


def open_store(opening: Opening) -> JobStore:
    """Opens the records alone, for a queue that is elsewhere; connects when it is first used. Raises
    ConfigError."""
    with _telling_what_is_missing("store"):
        import_whole("mrq_broker_mongo.store")
        from mrq_broker_mongo.store import MongoStore
    return MongoStore(opening)


@contextmanager
def _telling_what_is_missing(half: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        is_blocked = sys.modules.get(error.name or "", error) is None
        if error.name not in ("pymongo", "bson", "gridfs", "dns") or is_blocked:
            raise
        raise ConfigError(
            f"the MongoDB {half} needs the package pymongo, which is not installed: pip install pymongo"
        ) from error
