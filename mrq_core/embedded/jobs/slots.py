"""Slots under limit keys, and parked jobs, changed in one transaction with the jobs.

Each claimed job holds a slot under each of its limit keys until its claim ends or its lease does.
`running` counts the slots of a key. A parked job is listed under the key that had no room,
in the order of release: by priority, then by the time since it was parked.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from mrq_core.contract.record import JobRecord, Status
from mrq_core.drivers import encoding
from mrq_core.embedded.jobs import records

_TAKE = "INSERT OR IGNORE INTO slots VALUES (?, ?, ?)"
_PROLONG = "UPDATE slots SET until_ms = ? WHERE job_id = ?"
_FREE = "DELETE FROM slots WHERE job_id = ? RETURNING limit_key"
_ADD = """
INSERT INTO running VALUES (?, ?)
ON CONFLICT DO UPDATE SET n = n + excluded.n RETURNING n"""
_NONE_LEFT = "DELETE FROM running WHERE limit_key = ? AND n <= 0"
_EXPIRED = "SELECT job_id, limit_key FROM slots WHERE until_ms <= ? ORDER BY until_ms LIMIT ?"
_FREE_ONE = "DELETE FROM slots WHERE job_id = ? AND limit_key = ?"
_HELD = "SELECT limit_key FROM slots WHERE job_id = ?"
_PARK = "INSERT INTO parked VALUES (?, ?, ?, ?, ?)"
_RERANK = "UPDATE parked SET rank = ? WHERE job_id = ?"
_UNPARK = "DELETE FROM parked WHERE job_id = ?"
_FIRST = """
SELECT rank, due_ms, job_id FROM parked WHERE limit_key = ?
ORDER BY rank, since_ms, due_ms, job_id LIMIT 1"""
_FIRST_PARKED = """
SELECT seq, job_id, record, parked.due_ms FROM parked CROSS JOIN jobs ON jobs.id = parked.job_id
WHERE limit_key = ? ORDER BY parked.rank, since_ms, parked.due_ms, job_id LIMIT ?"""


class Parked(NamedTuple):
    """A parked job, and the time at which it was due."""

    seq: int
    record: JobRecord
    due_ms: int


class SlotChanges:
    """What one batch changes of slots and parked jobs."""

    def __init__(self) -> None:
        self._taken: list[JobRecord] = []
        self._freed: list[str] = []
        self._parked: list[tuple[str, int, int, int, str]] = []
        self._unparked: list[str] = []
        self._reranked: list[tuple[int, str]] = []

    def change(self, before: JobRecord | None, after: JobRecord | None) -> None:
        """Takes note of a job with limit keys that changes; None: before it was stored, or after its end."""
        if before is not None and encoding.is_parked(before):
            if after is None or not encoding.is_parked(after):
                self._unparked.append(before.id)
            elif after.priority != before.priority:
                self._reranked.append((-after.priority, after.id))
        if after is not None and after.status is Status.STARTED:
            self._taken.append(after)
        elif before is not None and before.status is Status.STARTED:
            self._freed.append(before.id)

    def park(self, record: JobRecord, key: str, since_ms: int) -> None:
        """Lists the job, as it was when it was due, under the key that has no room for it."""
        due_ms = records.ms(record.due_at)
        assert due_ms is not None
        self._parked.append((key, -record.priority, since_ms, due_ms, record.id))

    def write(self, connection: sqlite3.Connection) -> dict[str, int]:
        """Writes the changes; answers with how many slots became free under each key."""
        connection.executemany(_UNPARK, [(job_id,) for job_id in self._unparked])
        connection.executemany(_RERANK, self._reranked)
        connection.executemany(_PARK, self._parked)
        freed: dict[str, int] = {}
        for job_id in self._freed:
            for (key,) in connection.execute(_FREE, (job_id,)).fetchall():
                freed[key] = freed.get(key, 0) + 1
        _count(connection, freed, -1)
        taken: dict[str, int] = {}
        for record in self._taken:
            until_ms = records.ms(record.due_at)
            connection.execute(_PROLONG, (until_ms, record.id))
            for key in record.limit_keys:
                if connection.execute(_TAKE, (record.id, key, until_ms)).rowcount:
                    taken[key] = taken.get(key, 0) + 1
        _count(connection, taken, 1)
        return freed


def free_expired(connection: sqlite3.Connection, now_ms: int, limit: int) -> dict[str, int]:
    """Frees slots whose lease has ended; answers with how many under each key.

    The job keeps its claim until another worker claims it, and takes a slot again when it is renewed.
    """
    expired = connection.execute(_EXPIRED, (now_ms, limit)).fetchall()
    connection.executemany(_FREE_ONE, expired)
    freed: dict[str, int] = {}
    for _, key in expired:
        freed[key] = freed.get(key, 0) + 1
    _count(connection, freed, -1)
    return freed


def held_by(connection: sqlite3.Connection, job_id: str) -> frozenset[str]:
    """The keys under which the job has a slot."""
    return frozenset(key for (key,) in connection.execute(_HELD, (job_id,)))


def first_parked_under(connection: sqlite3.Connection, key: str) -> tuple[int, int, str] | None:
    """Rank, due time and id of the job under the key that is released first. None: no job is parked."""
    found: tuple[int, int, str] | None = connection.execute(_FIRST, (key,)).fetchone()
    return found


def first_parked(connection: sqlite3.Connection, numbers: Mapping[str, int]) -> Iterator[Parked]:
    """The given number of jobs parked under each key, in the order in which they are released."""
    for key, number in numbers.items():
        for seq, job_id, record, due_ms in connection.execute(_FIRST_PARKED, (key, number)).fetchall():
            yield Parked(seq, records.decode(job_id, record), due_ms)


def _count(connection: sqlite3.Connection, numbers: Mapping[str, int], sign: int) -> None:
    for key, number in numbers.items():
        (left,) = connection.execute(_ADD, (key, sign * number)).fetchone()
        if left <= 0:
            connection.execute(_NONE_LEFT, (key,))
