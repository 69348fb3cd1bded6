"""Repairs a whole broker, step by step."""

from __future__ import annotations

from collections.abc import Iterator

from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import CHUNK, RepairResult


def repair_all(broker: Broker) -> Iterator[RepairResult]:
    """Repairs in bounded steps until every unfinished job was examined. See `Broker.repair`."""
    cursor: str | None = None
    while True:
        step = broker.repair(CHUNK, cursor)
        yield step
        cursor = step.cursor
        if cursor is None:
            return
