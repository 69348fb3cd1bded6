"""Announces the MongoDB driver. Loads neither pymongo nor the rest of it before a broker is opened."""

from __future__ import annotations

from mrq_core.broker import Broker
from mrq_core.driver import Driver, Opening
from mrq_core.errors import ConfigError
from mrq_core.hookspecs import hookimpl


@hookimpl
def mrq_driver() -> Driver:
    """The driver ``mongo``."""
    return Driver(
        name="mongo",
        summary="queues and records in MongoDB 5.0 or later",
        url_schemes=("mongodb", "mongodb+srv"),
        settings=("MONGODB", "MONGODB_PREFIX"),
        open_broker=open_broker,
    )


def open_broker(opening: Opening) -> Broker:
    """Opens the broker; it connects when it is first used. Raises ConfigError."""
    try:
        from mrq_broker_mongo.broker import MongoBroker
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("pymongo", "bson", "gridfs", "dns"):
            raise
        raise ConfigError(
            "the MongoDB broker needs the package pymongo, which is not installed: pip install 'mrq[mongo]'"
        ) from error
    return MongoBroker(opening)
