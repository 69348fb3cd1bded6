"""The limits of one claim: concurrency by counting slots, rates by GCRA (see `mrq_core.drivers.limits`)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from mrq_core.contract.messages import ClaimRequest
from mrq_core.contract.record import JobRecord
from mrq_core.drivers.limits import limit_of, rules_of, spacing_of, task_key

_RUNNING = "SELECT n FROM running WHERE limit_key = ?"
_RATE = "SELECT tat_us FROM rates WHERE limit_key = ?"
_CHARGE = "INSERT OR REPLACE INTO rates VALUES (?, ?)"
_PRUNE = """
DELETE FROM rates WHERE limit_key IN
    (SELECT limit_key FROM rates INDEXED BY rates_by_time WHERE tat_us <= ? LIMIT ?)"""


class Limiter:
    """The limits of one request, and their use by this transaction. `flush` writes the use."""

    def __init__(self, connection: sqlite3.Connection, request: ClaimRequest, now_ms: int) -> None:
        self._connection = connection
        self._limits = rules_of(request)
        self._paused = request.paused_tasks
        self._now_us = now_ms * 1000
        self._running: dict[str, int] = {}
        self._times_us: dict[str, int] = {}

    def room(self, key: str) -> int | None:
        """The number of further jobs that may run under the key. None: no limit."""
        limit = limit_of(key, self._limits)
        if limit is None or limit.concurrency is None:
            return None
        if key not in self._running:
            row = self._connection.execute(_RUNNING, (key,)).fetchone()
            self._running[key] = 0 if row is None else row[0]
        return max(0, limit.concurrency - self._running[key])

    def full(self, keys: Sequence[str]) -> str | None:
        """The first of the keys that has no room; None if a job with these keys may run."""
        return next((key for key in keys if self.room(key) == 0), None)

    def is_paused(self, path: str) -> bool:
        """Whether the task is paused."""
        return path in self._paused

    def full_of(self, record: JobRecord) -> str | None:
        """The first key that has no room for the job: the key of its task, if it is paused, or a limit
        key."""
        return task_key(record.path) if self.is_paused(record.path) else self.full(record.limit_keys)

    def took(self, keys: Sequence[str]) -> None:
        """A job with these keys takes a slot under each of them."""
        for key in dict.fromkeys(keys):
            if key in self._running:
                self._running[key] += 1

    def allowed_ms(self, keys: Sequence[str]) -> int:
        """Reserves the next claim under the rates of all these keys, and returns its time."""
        allowed_us = self._now_us
        for key, interval_us, tolerance_us in self._rates(keys):
            time_us = self._time_us(key)
            allowed_us = max(allowed_us, time_us - tolerance_us)
            self._times_us[key] = time_us + interval_us
        return -(-allowed_us // 1000)

    def flush(self) -> None:
        """Writes what was charged. Slots are written with their jobs."""
        self._connection.executemany(_CHARGE, list(self._times_us.items()))
        self._times_us.clear()
        self._running.clear()

    def _rates(self, keys: Sequence[str]) -> Iterator[tuple[str, int, int]]:
        """For each key with a rate, the time from claim to claim, and how much earlier a burst may come."""
        for key in dict.fromkeys(keys):
            limit = limit_of(key, self._limits)
            spacing = spacing_of(limit) if limit is not None else None
            if spacing is not None:
                yield key, spacing.interval_us, spacing.burst_us

    def _time_us(self, key: str) -> int:
        if key not in self._times_us:
            row = self._connection.execute(_RATE, (key,)).fetchone()
            self._times_us[key] = 0 if row is None else row[0]
        return max(self._times_us[key], self._now_us)


def prune(connection: sqlite3.Connection, now_ms: int, limit: int) -> None:
    """Deletes the times of keys whose rate is fully available again."""
    connection.execute(_PRUNE, (now_ms * 1000, limit))
