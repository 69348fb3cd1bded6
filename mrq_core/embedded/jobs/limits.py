"""The limits of one claim: concurrency by counting slots, rates by GCRA (see `mrq_core.drivers.limits`).

The time of a limit key stands in `rates` under the key, a line feed and the spacing that it was counted in:
``interval:burst``. Earlier versions wrote the time under the key alone. The time by starts, in the same
spacing, stands under the start key.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from mrq_core.contract.messages import ClaimRequest
from mrq_core.contract.record import JobRecord
from mrq_core.drivers.limits import HORIZON_US, Spacing, limit_of, rules_of, spacing_of, start_key, task_key
from mrq_core.embedded.jobs import records, slots

_RUNNING = "SELECT n FROM running WHERE limit_key = ?"
_RATE = "SELECT limit_key, tat_us FROM rates WHERE limit_key >= ? AND limit_key < ? ORDER BY limit_key"
_START = "SELECT tat_us FROM rates WHERE limit_key = ?"
_CHARGE = "INSERT OR REPLACE INTO rates VALUES (?, ?)"
_FORGET = "DELETE FROM rates WHERE limit_key = ?"
_BEFORE_SPACING, _AFTER_SPACING = "\n", "\x0b"
_PRUNE = """
DELETE FROM rates WHERE limit_key IN
    (SELECT limit_key FROM rates INDEXED BY rates_by_time WHERE tat_us <= ? LIMIT ?)"""


class Rate(NamedTuple):
    """The stored time of a limit key."""

    name: str
    """The key, and the spacing where it is known."""
    even_us: int
    spacing: Spacing | None


def rates_of(connection: sqlite3.Connection, key: str) -> list[Rate]:
    """The stored times of a limit key: usually one."""
    found = connection.execute(_RATE, (key, key + _AFTER_SPACING)).fetchall()
    return [Rate(name, even_us, _spacing_in(name)) for name, even_us in found]


def rate_room(connection: sqlite3.Connection, key: str, now_ms: int) -> int | None:
    """The number of jobs whose starts a claim may reserve under the rate that the last claim has used. None:
    no claim has used a rate of the key, or its spacing is not known."""
    rooms = [
        rate.spacing.room(rate.even_us, now_ms * 1000)
        for rate in rates_of(connection, key)
        if rate.spacing is not None
    ]
    return min(rooms, default=None)


def _spacing_in(name: str) -> Spacing | None:
    _, separator, text = name.rpartition(_BEFORE_SPACING)
    return Spacing(*map(int, text.split(":"))) if separator else None


def _stored_name(key: str, spacing: Spacing) -> str:
    return f"{key}{_BEFORE_SPACING}{spacing.interval_us}:{spacing.burst_us}"


class Limiter:
    """The limits of one request, and their use by this transaction. `flush` writes the use."""

    def __init__(self, connection: sqlite3.Connection, request: ClaimRequest, now_ms: int) -> None:
        self._connection = connection
        self._limits = rules_of(request)
        self._paused = request.paused_tasks
        self._now_us = now_ms * 1000
        self._running: dict[str, int] = {}
        self._times_us: dict[str, int] = {}
        self._starts_us: dict[str, int] = {}
        self._changed: dict[str, int] = {}
        """By stored name: the times to write."""
        self._first_parked: dict[str, tuple[int, int, str] | None] = {}
        """By limit key: rank, due time and id of the parked job that is let go first."""
        self._examined: set[str] = set()
        """Keys with a rate that may have parked jobs."""

    def room(self, key: str) -> int | None:
        """The number of further jobs that may run under the key. None: no limit."""
        limit = limit_of(key, self._limits)
        if limit is None or limit.concurrency is None:
            return None
        return max(0, limit.concurrency - self._running_under(key))

    def _running_under(self, key: str) -> int:
        if key not in self._running:
            row = self._connection.execute(_RUNNING, (key,)).fetchone()
            self._running[key] = 0 if row is None else row[0]
        return self._running[key]

    def room_to_let_go(self, key: str) -> int | None:
        """The number of parked jobs that may go now, by the concurrency and the rate of the key. None: no
        limit."""
        room, spacing = self.room(key), self._spacing(key)
        if spacing is None:
            return room
        self._examined.add(key)
        of_rate = spacing.room(self._time_us(key, spacing), self._now_us)
        return of_rate if room is None else min(room, of_rate)

    def opens_ms(self) -> int | None:
        """The first time at which a rate lets a parked job of the examined keys go. None: no such time is
        known."""
        times = []
        for key in self._examined:
            spacing = self._spacing(key)
            if spacing is None or self.room(key) == 0:
                continue
            if slots.first_parked_under(self._connection, key) is not None:
                times.append(-(-spacing.opens_at_us(self._time_us(key, spacing)) // 1000))
        return min(times, default=None)

    def full(self, keys: Sequence[str]) -> str | None:
        """The first of the keys that has no room; None if a job with these keys may run."""
        return next((key for key in keys if self.room(key) == 0), None)

    def is_exceeded(self, keys: Iterable[str]) -> bool:
        """Whether more run under one of the keys than its rule allows, because the rule has changed."""
        most = {key: limit.concurrency for key in keys if (limit := limit_of(key, self._limits)) is not None}
        return any(number is not None and self._running_under(key) > number for key, number in most.items())

    def is_paused(self, path: str) -> bool:
        """Whether the task is paused."""
        return path in self._paused

    def full_of(self, record: JobRecord) -> str | None:
        """The first key that has no room for the job: the key of its task, if it is paused, or a limit
        key."""
        return task_key(record.path) if self.is_paused(record.path) else self.full(record.limit_keys)

    def may_start(self, keys: Sequence[str]) -> bool:
        """Whether a job with these keys may start at a time that was reserved for it."""
        return all(
            spacing.may_start(self._start_us(key, spacing), self._now_us)
            for key, spacing in self._rates(keys)
        )

    def took(self, keys: Sequence[str]) -> None:
        """A job with these keys takes a slot under each of them."""
        for key in dict.fromkeys(keys):
            if key in self._running:
                self._running[key] += 1

    def starts(self, keys: Sequence[str]) -> None:
        """A waiting job with these keys starts: it takes slots, and counts under the rates."""
        self.took(keys)
        for key, spacing in self._rates(keys):
            start_us = self._start_us(key, spacing) + spacing.interval_us
            self._set_start(key, start_us)
            if start_us > self._time_us(key, spacing):
                self._set_time(key, spacing, start_us)

    def allowed_ms(self, record: JobRecord, *, is_late: bool) -> int | str:
        """Reserves the next start under all rates of a due job, and returns its time. A key: its rate allows
        a start beyond the horizon, or its parked jobs come before this job, and nothing is reserved.

        `is_late`: the job had a reserved start, could not take it, and always gets another.
        """
        allowed_us, latest = self._now_us, ""
        charged = []
        for key, spacing in self._rates(record.limit_keys):
            if not is_late and self._comes_after_parked(record, key):
                self._examined.add(key)
                return key
            time_us = max(self._time_us(key, spacing), self._start_us(key, spacing))
            charged.append((key, spacing, time_us + spacing.interval_us))
            if time_us - spacing.burst_us > allowed_us:
                allowed_us, latest = time_us - spacing.burst_us, key
        if allowed_us > self._now_us + HORIZON_US and not is_late:
            self._examined.add(latest)
            return latest
        for key, spacing, time_us in charged:
            self._set_time(key, spacing, time_us)
        return -(-allowed_us // 1000)

    def _comes_after_parked(self, record: JobRecord, key: str) -> bool:
        if key not in self._first_parked:
            self._first_parked[key] = slots.first_parked_under(self._connection, key)
        first = self._first_parked[key]
        return first is not None and first < (-record.priority, records.ms(record.due_at) or 0, record.id)

    def flush(self) -> None:
        """Writes what was charged. Slots are written with their jobs."""
        if self._changed:
            self._connection.executemany(_CHARGE, list(self._changed.items()))
            self._changed.clear()
        self._times_us.clear()
        self._starts_us.clear()
        self._running.clear()
        self._first_parked.clear()

    def _rates(self, keys: Sequence[str]) -> Iterator[tuple[str, Spacing]]:
        """The keys with a rate, each once, and their spacings."""
        for key in dict.fromkeys(keys):
            spacing = self._spacing(key)
            if spacing is not None:
                yield key, spacing

    def _spacing(self, key: str) -> Spacing | None:
        limit = limit_of(key, self._limits)
        return None if limit is None else spacing_of(limit)

    def _time_us(self, key: str, spacing: Spacing) -> int:
        """The time of the key. Where the rule has changed, it and the time by starts are cut, and replace the
        stored times."""
        if key not in self._times_us:
            stored = {rate.name: rate.even_us for rate in rates_of(self._connection, key)}
            even_us = stored.pop(_stored_name(key, spacing), None)
            if even_us is None:
                even_us = spacing.cut(max(stored.values(), default=0), self._now_us)
                if stored:
                    self._connection.executemany(_FORGET, [(name,) for name in stored])
                    self._set_time(key, spacing, even_us)
                    self._set_start(key, spacing.cut(self._stored_start_us(key), self._now_us))
            self._times_us[key] = even_us
        return max(self._times_us[key], self._now_us)

    def _start_us(self, key: str, spacing: Spacing) -> int:
        """The time of the key by starts."""
        self._time_us(key, spacing)  # which cuts both
        if key not in self._starts_us:
            self._starts_us[key] = self._stored_start_us(key)
        return max(self._starts_us[key], self._now_us)

    def _stored_start_us(self, key: str) -> int:
        row = self._connection.execute(_START, (start_key(key),)).fetchone()
        return 0 if row is None else int(row[0])

    def _set_time(self, key: str, spacing: Spacing, time_us: int) -> None:
        self._times_us[key] = self._changed[_stored_name(key, spacing)] = time_us

    def _set_start(self, key: str, time_us: int) -> None:
        self._starts_us[key] = self._changed[start_key(key)] = time_us


def prune(connection: sqlite3.Connection, now_ms: int, limit: int) -> None:
    """Deletes the times of keys whose rate is fully available again."""
    connection.execute(_PRUNE, (now_ms * 1000, limit))
