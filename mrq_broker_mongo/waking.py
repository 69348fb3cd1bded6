"""Hints that something was queued: documents of a capped collection, which waiting workers follow."""

from __future__ import annotations

from collections.abc import Iterable

from mrq_broker_mongo.connection import Connection


def wake(connection: Connection, queues: Iterable[str]) -> None:
    """Tells those that wait for the queues, or for their trees, to look. A hint may get lost."""
    roots = {queue.partition("/")[0] for queue in queues}
    if roots:
        connection.hint("wake", [{"root": root} for root in sorted(roots)])
