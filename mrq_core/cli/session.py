"""Opens the broker for one command and closes it after."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mrq_core.cli.options import Given
from mrq_core.client.client import Client


@contextmanager
def opened(given: Given, **settings: object) -> Iterator[Client]:
    """A client of the configured broker. Raises ConfigError; the broker is not yet connected."""
    client = Client(given.config(**settings))
    try:
        yield client
    finally:
        client.close()
