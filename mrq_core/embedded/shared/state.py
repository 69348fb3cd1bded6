"""Shared state: small named values.

Versions come from one counter of the file, so that a name which was deleted and written again
never has an old version, and a compare-and-set with one is refused.
"""

from __future__ import annotations

import builtins
import sqlite3
from collections.abc import Callable, Sequence
from typing import TypeVar

from mrq_core.clock import Clock
from mrq_core.contract import codec, rules
from mrq_core.contract.codec import JsonValue
from mrq_core.contract.services import SharedState
from mrq_core.contract.shared_state import StateItem
from mrq_core.drivers.answers import names_unreadable_answers
from mrq_core.drivers.state_items import item_of
from mrq_core.embedded.jobs import records
from mrq_core.embedded.server.connection import Database
from mrq_core.errors import BrokerError

T = TypeVar("T")

_GET = """
SELECT namespace, name, value, version, expires_ms FROM state
WHERE namespace = ? AND name = ? AND (expires_ms IS NULL OR expires_ms > ?)"""
_LIST = """
SELECT namespace, name, value, version, expires_ms FROM state
WHERE namespace = ? AND (expires_ms IS NULL OR expires_ms > ?) ORDER BY name"""
_PUT = "INSERT OR REPLACE INTO state VALUES (?, ?, ?, ?, ?)"
_DELETE = "DELETE FROM state WHERE namespace = ? AND name = ? AND (expires_ms IS NULL OR expires_ms > ?)"
_NEXT_VERSION = "UPDATE numbers SET value = value + 1 WHERE name = 'state' RETURNING value"
_RULES_CHANGED = "UPDATE numbers SET value = value + 1 WHERE name = 'rules'"


@names_unreadable_answers(connection="_database")
class EmbeddedState(SharedState):
    """The shared state of one file."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def get(self, namespace: str, name: str) -> StateItem | None:
        return self._database.read(lambda connection: self._get(connection, namespace, name))

    def put(self, namespace: str, name: str, value: JsonValue, ttl: float | None = None) -> StateItem:
        return self._write(
            namespace, lambda connection: _put(connection, namespace, name, value, self._expiry(ttl))
        )

    def compare_and_set(
        self, namespace: str, name: str, value: JsonValue, *, version: int, ttl: float | None = None
    ) -> StateItem | None:
        def work(connection: sqlite3.Connection) -> StateItem | None:
            item = self._get(connection, namespace, name)
            if (0 if item is None else item.version) != version:
                return None
            return _put(connection, namespace, name, value, self._expiry(ttl))

        return self._write(namespace, work)

    def add(self, namespace: str, name: str, amount: int, ttl: float | None = None) -> int:
        def work(connection: sqlite3.Connection) -> int:
            item = self._get(connection, namespace, name)
            if item is None or not item.version:  # none, or damaged
                _put(connection, namespace, name, amount, self._expiry(ttl))
                return amount
            if not isinstance(item.value, int) or isinstance(item.value, bool):
                raise BrokerError(
                    f"the state {namespace}/{name} holds {str(item.value)[:80]!r}: expected a counter; "
                    "delete it, or use another name"
                )
            _put(connection, namespace, name, item.value + amount, records.ms(item.expires_at))
            return item.value + amount

        return self._write(namespace, work)

    def delete(self, namespace: str, names: Sequence[str]) -> list[bool]:
        def work(connection: sqlite3.Connection) -> list[bool]:
            now_ms = self._clock.now_ms()
            return [connection.execute(_DELETE, (namespace, name, now_ms)).rowcount > 0 for name in names]

        return self._write(namespace, work)

    def list(self, namespace: str) -> list[StateItem]:
        return self._database.read(lambda connection: items(connection, namespace, self._clock.now_ms()))

    def _get(self, connection: sqlite3.Connection, namespace: str, name: str) -> StateItem | None:
        return get(connection, namespace, name, self._clock.now_ms())

    def _write(self, namespace: str, work: Callable[[sqlite3.Connection], T]) -> T:
        """One transaction. Rules survive a power failure, and raise the version that `poll` compares."""
        if namespace not in rules.NAMESPACES:
            return self._database.write(work)

        def work_and_tell(connection: sqlite3.Connection) -> T:
            answer = work(connection)
            connection.execute(_RULES_CHANGED)
            return answer

        return self._database.write(work_and_tell, durable=True)

    def _expiry(self, ttl: float | None) -> int | None:
        return None if ttl is None else self._clock.now_ms() + round(ttl * 1000)


def get(connection: sqlite3.Connection, namespace: str, name: str, now_ms: int) -> StateItem | None:
    """The value. None: the name has no value, or the value has expired."""
    row = connection.execute(_GET, (namespace, name, now_ms)).fetchone()
    return None if row is None else _item(row)


def items(connection: sqlite3.Connection, namespace: str, now_ms: int) -> builtins.list[StateItem]:
    """The values of the namespace that have not expired, by name."""
    return [_item(row) for row in connection.execute(_LIST, (namespace, now_ms))]


def _put(
    connection: sqlite3.Connection, namespace: str, name: str, value: JsonValue, expires_ms: int | None
) -> StateItem:
    (version,) = connection.execute(_NEXT_VERSION).fetchone()
    row = (namespace, name, codec.encode(value), version, expires_ms)
    connection.execute(_PUT, row)
    return _item(row)


def _item(row: tuple[str, str, bytes, int, int | None]) -> StateItem:
    return item_of(*row)
