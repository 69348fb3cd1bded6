"""Waiting for due entries: by hints in a capped collection, and by the clock."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from datetime import datetime
from functools import partial

from bson.int64 import Int64
from pymongo.client_session import ClientSession
from pymongo.database import Database
from pymongo.errors import OperationFailure, PyMongoError

from mrq_broker_mongo.jobs import trees
from mrq_broker_mongo.raw import parameters
from mrq_broker_mongo.server.connection import Connection
from mrq_broker_mongo.server.layout import WAKE_NUMBER
from mrq_broker_mongo.server.location import Doc
from mrq_core.clock import monotonic, to_ms
from mrq_core.contract.messages import Wanted

_POLL_SECONDS = 0.1
"""The interval of polls where the server cannot hold a wait."""
_CURSOR_LOST = frozenset({43, 136, 175, 237})
"""Codes of a cursor that is gone."""


def wait(connection: Connection, wanted: Sequence[Wanted], timeout: float) -> bool:
    """See `Broker.wait`.

    A lease that ended before the call does not wake, because the claim has seen to it.
    """
    deadline = monotonic() + timeout
    roots = sorted({one.name.partition("/")[0] for one in wanted})
    began = connection.now()
    if _is_due(connection, wanted, began)[0]:
        return True
    while (seconds := deadline - monotonic()) > 0:
        if _follow(connection, wanted, roots, began, min(seconds, connection.wait_most)):
            return True
    return False


def _is_due(connection: Connection, wanted: Sequence[Wanted], began: datetime) -> tuple[bool, float | None]:
    """Whether something is due; and in how many seconds something will be."""
    now = connection.now()
    looks = (
        partial(trees.next_waiting, connection, wanted),
        partial(trees.next_lease, connection, wanted, began),
        partial(parameters.next_due, connection, wanted, now),
    )
    due: datetime | None = None
    for look in looks:
        found = look()
        due = found if due is None or (found is not None and found < due) else due
        if due is not None and due <= now:
            return True, 0.0
    return due is not None and due <= now, None if due is None else (to_ms(due) - to_ms(now)) / 1000


def _follow(
    connection: Connection, wanted: Sequence[Wanted], roots: list[str], began: datetime, seconds: float
) -> bool:
    """Follows the hints about these roots, so long at most, and looks at each; also when the next job is due
    by time alone.

    The cursor is opened first, and the hints that are there already are passed over: none is missed between
    the look and the waiting. The cursor is moved by plain commands, because the cursor class of pymongo does
    not tell whether a request for more would wait.
    """
    deadline = monotonic() + seconds
    name = connection.name("wake")

    def follow(database: Database[Doc]) -> bool:
        with database.client.start_session() as session:
            query = {"find": name, "filter": {"root": {"$in": roots}}, "tailable": True, "awaitData": True}
            cursor = database.command({**query, "batchSize": WAKE_NUMBER + 1}, session=session)["cursor"][
                "id"
            ]
            try:
                while True:
                    with connection.calls_inside():
                        is_due, in_seconds = _is_due(connection, wanted, began)
                    left = deadline - monotonic()
                    if is_due or left <= 0:
                        return is_due
                    left = left if in_seconds is None else min(left, max(in_seconds, 0.001))
                    if not cursor:
                        time.sleep(min(left, _POLL_SECONDS))
                        return False
                    more = {
                        "getMore": Int64(cursor),
                        "collection": name,
                        "maxTimeMS": max(1, math.ceil(left * 1000)),
                    }
                    cursor = database.command(more, session=session)["cursor"]["id"]
            except OperationFailure as error:
                if error.code in _CURSOR_LOST:  # the hints were overwritten, or the primary is another one
                    return False
                raise
            finally:
                _forget(database, name, cursor, session)

    return connection.on_database(follow)


def _forget(database: Database[Doc], name: str, cursor: int, session: ClientSession) -> None:
    if cursor:
        with contextlib.suppress(PyMongoError):  # it is closed by the server in the end
            database.command({"killCursors": name, "cursors": [Int64(cursor)]}, session=session)
