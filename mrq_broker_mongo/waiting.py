"""Waiting until something may be due: on the capped collection of hints, and by the clock."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pymongo import CursorType
from pymongo.errors import OperationFailure

from mrq_broker_mongo import lines, rawlines
from mrq_broker_mongo.connection import Connection
from mrq_core.clock import to_ms
from mrq_core.messages import Wanted

_POLL_SECONDS = 0.1
"""How often is looked where the server cannot be waited for."""
_FOLLOWS_LOST = frozenset({43, 136, 175, 237})
"""Codes of a cursor that is gone."""


def wait(connection: Connection, wanted: Sequence[Wanted], timeout: float) -> bool:
    """See `Broker.wait`.

    A lease that had ended before the call does not wake: the claim has told of it, and a worker
    that is not idle could do nothing but ask again.
    """
    deadline = time.monotonic() + timeout
    roots = sorted({one.name.partition("/")[0] for one in wanted})
    began = connection.now()
    if _is_due(connection, wanted, began)[0]:
        return True
    while (seconds := deadline - time.monotonic()) > 0:
        if _follow(connection, wanted, roots, began, min(seconds, connection.wait_most)):
            return True
    return False


def _is_due(connection: Connection, wanted: Sequence[Wanted], began: datetime) -> tuple[bool, float | None]:
    """Whether something is due; and in how many seconds something will be."""
    now = connection.now()
    times = [lines.next_due(connection, wanted, leases_after=began), rawlines.next_due(connection, wanted, now)]
    due = min((time for time in times if time is not None), default=None)
    return due is not None and due <= now, None if due is None else (to_ms(due) - to_ms(now)) / 1000


def _follow(
    connection: Connection, wanted: Sequence[Wanted], roots: list[str], began: datetime, seconds: float
) -> bool:
    """Waits for hints about these roots, and looks at each; also when the next job is due by time alone.

    The cursor is opened first and the hints that are there are passed over, so that none is missed between the
    look and the waiting.
    """
    deadline = time.monotonic() + seconds

    def follow(wake: Any) -> bool:
        cursor = wake.find({"root": {"$in": roots}}, cursor_type=CursorType.TAILABLE_AWAIT)
        with cursor.max_await_time_ms(1) as hints:
            _drain(hints)
            is_due, in_seconds = _is_due(connection, wanted, began)
            if is_due:
                return True
            left = min(deadline - time.monotonic(), seconds if in_seconds is None else in_seconds)
            if left <= 0:
                return False
            if not hints.alive:
                time.sleep(min(left, _POLL_SECONDS))
                return False
        return _await(wake, roots, left)

    return connection.run("wake", follow)


def _drain(hints: Any) -> None:
    while hints.alive and hints.try_next() is not None:
        continue


def _await(wake: Any, roots: list[str], seconds: float) -> bool:
    return False


__all__ = ["OperationFailure", "wait"]
