"""Mending a whole broker, step by step."""

from __future__ import annotations

from collections.abc import Iterator

from mrq_core.broker import Broker
from mrq_core.messages import CHUNK, Mended


def mend_all(broker: Broker) -> Iterator[Mended]:
    """Does one bounded step after the other until all unfinished jobs were looked at. See `Broker.mend`."""
    cursor: str | None = None
    while True:
        step = broker.mend(CHUNK, cursor)
        yield step
        cursor = step.cursor
        if cursor is None:
            return
