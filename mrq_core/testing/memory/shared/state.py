"""SharedState in memory."""

from __future__ import annotations

import builtins
import threading
from collections.abc import Sequence
from datetime import datetime

from msgspec.structs import replace

from mrq_core.clock import Clock, after, from_ms
from mrq_core.contract import rules
from mrq_core.contract.codec import JsonValue, decode, encode
from mrq_core.contract.services import SharedState
from mrq_core.contract.shared_state import StateItem


class StateItems:
    """The values, and the counter that gives their versions."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], StateItem] = {}
        """By namespace and name."""
        self.version = 0
        self.rules_version = 0
        """Grows with each write to a namespace of rules."""

    def written(self, namespace: str) -> None:
        """Notes a change in a namespace."""
        if namespace in rules.NAMESPACES:
            self.rules_version += 1

    def drop_expired(self, now: datetime) -> None:
        """Deletes expired values."""
        for key, item in [*self.items.items()]:
            if item.expires_at is not None and item.expires_at <= now:
                del self.items[key]


class MemoryState(SharedState):
    """Named values in a dict, under the lock of the broker's data."""

    def __init__(self, data: StateItems, lock: threading.RLock, clock: Clock) -> None:
        self._data = data
        self._lock = lock
        self._clock = clock

    def get(self, namespace: str, name: str) -> StateItem | None:
        with self._lock:
            self._data.drop_expired(self._now())
            item = self._data.items.get((namespace, name))
            return None if item is None else _isolated(item)

    def put(self, namespace: str, name: str, value: JsonValue, ttl: float | None = None) -> StateItem:
        with self._lock:
            # One counter for all names: a version is never used twice, not even after a delete.
            self._data.version += 1
            item = StateItem(
                namespace=namespace,
                name=name,
                value=value,
                version=self._data.version,
                expires_at=None if ttl is None else after(self._now(), ttl),
            )
            self._data.items[namespace, name] = _isolated(item)
            self._data.written(namespace)
            return _isolated(item)

    def compare_and_set(
        self, namespace: str, name: str, value: JsonValue, *, version: int, ttl: float | None = None
    ) -> StateItem | None:
        with self._lock:
            present = self.get(namespace, name)
            if (present.version if present else 0) != version:
                return None
            return self.put(namespace, name, value, ttl)

    def add(self, namespace: str, name: str, amount: int, ttl: float | None = None) -> int:
        with self._lock:
            present = self.get(namespace, name)
            if present is None:
                self.put(namespace, name, amount, ttl)
                return amount
            if not isinstance(present.value, int):
                raise ValueError(f"{namespace}/{name} is {present.value!r}: expected a counter")
            count = present.value + amount
            written = self.put(namespace, name, count)
            self._data.items[namespace, name] = replace(written, expires_at=present.expires_at)
            return count

    def delete(self, namespace: str, names: Sequence[str]) -> builtins.list[bool]:
        with self._lock:
            self._data.drop_expired(self._now())
            self._data.written(namespace)
            return [self._data.items.pop((namespace, name), None) is not None for name in names]

    def list(self, namespace: str) -> builtins.list[StateItem]:
        with self._lock:
            self._data.drop_expired(self._now())
            return [
                _isolated(item) for (space, _), item in sorted(self._data.items.items()) if space == namespace
            ]

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())


def _isolated(item: StateItem) -> StateItem:
    return replace(item, value=decode(encode(item.value)))
