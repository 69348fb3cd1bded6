"""Announces the embedded driver. Loads neither sqlite3 nor the rest of it before a broker is opened."""

from __future__ import annotations

from mrq_core.config.importing import import_whole
from mrq_core.contract.broker import Broker
from mrq_core.contract.driver import Driver, Opening
from mrq_core.plugins.hookspecs import hookimpl


@hookimpl
def mrq_driver() -> Driver:
    """The driver ``sqlite``."""
    return Driver(
        name="sqlite",
        summary="one SQLite file, no server",
        url_schemes=("sqlite",),
        settings=("SQLITE",),
        open_broker=open_broker,
    )


def open_broker(opening: Opening) -> Broker:
    """Opens the broker; the file is opened, or made, when it is first used."""
    import_whole("mrq_core.embedded.broker")
    from mrq_core.embedded.broker import EmbeddedBroker

    return EmbeddedBroker(opening)
