"""Raw queues: parameters that wait, and those that are leased until a job is made of them.

All kinds share two tables. What waits stands in the order of (score, seq): the score is 0 in lists and
sets, which are thereby ordered by time of arrival. A claim that leaves the parameter in its set
(pushback) is written down in the waiting row itself.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from mrq_core.clock import Clock, after, from_ms
from mrq_core.contract.broker import RawQueue
from mrq_core.contract.messages import RawClaim, RawItem
from mrq_core.contract.naming import RawKind, check_raw_queue_name
from mrq_core.contract.record import JobRecord
from mrq_core.embedded import rawclaims
from mrq_core.embedded.admitting import admit
from mrq_core.embedded.database import Database
from mrq_core.errors import InvalidValue

_SAME = "SELECT seq FROM raw_waiting INDEXED BY raw_params WHERE queue = ? AND param = ? ORDER BY seq LIMIT 1"
_ADD = "INSERT INTO raw_waiting (queue, param, score) VALUES (?, ?, ?)"
_SCORE = "UPDATE raw_waiting SET score = ? WHERE seq = ?"
_DROP = "DELETE FROM raw_waiting WHERE seq = ?"
_KNOWN = "INSERT OR IGNORE INTO queues VALUES (?)"
_PEEK = """
SELECT param, score FROM raw_waiting INDEXED BY raw_lines
WHERE queue = ? ORDER BY score, seq LIMIT ? OFFSET ?"""
_SIZE = "SELECT n FROM totals WHERE kind = 'raw' AND name = ? AND status = 'waiting'"
_HISTOGRAM = """
SELECT min(CAST((score - :start) / (:stop - :start) * :buckets AS INTEGER), :buckets - 1), count(*)
FROM raw_waiting INDEXED BY raw_lines
WHERE queue = :queue AND score >= :start AND score < :stop GROUP BY 1"""


class EmbeddedRawQueue(RawQueue):
    """One raw queue of the file."""

    def __init__(self, name: str, database: Database, clock: Clock) -> None:
        kind = check_raw_queue_name(name)
        self._name = name
        self._kind = kind
        self._has_scores = kind in (RawKind.SORTED_SET, RawKind.TIMED_SET)
        self._database = database
        self._clock = clock

    def push(self, items: Sequence[RawItem]) -> list[bool]:
        def work(connection: sqlite3.Connection) -> list[bool]:
            now = self._clock.now_ms() / 1000
            answers = []
            for item in items:
                score = self._score(item, now)
                same = None if self._kind is RawKind.LIST else self._waiting(connection, item.param)
                if same is None:
                    connection.execute(_ADD, (self._name, item.param, score))
                elif self._has_scores:
                    connection.execute(_SCORE, (score, same))
                answers.append(same is None)
            connection.execute(_KNOWN, (self._name,))
            rawclaims.add_to_size(connection, self._name, sum(answers))
            return answers

        return self._database.write(work, durable=True)

    def claim(self, limit: int, lease: float, worker: str, pushback: float | None = None) -> list[RawClaim]:
        if pushback is not None and self._kind is not RawKind.TIMED_SET:
            raise InvalidValue(
                f"pushback is {pushback!r} for {self._name!r}: expected it for timed sets only",
                path="pushback",
            )
        claims = self._database.write(
            lambda connection: rawclaims.claim(
                connection, self._name, self._kind, self._clock.now_ms(), limit, lease, pushback
            )
        )
        return claims if self._has_scores else [rawclaims.without_score(claim) for claim in claims]

    def admit(self, claims: Sequence[tuple[RawClaim, JobRecord]], lease: float) -> list[bool]:
        return self._database.write(
            lambda connection: admit(connection, self._clock, self._name, claims, lease),
            durable=any(record.at_most_once for _, record in claims),
        )

    def renew(self, claims: Sequence[RawClaim], lease: float) -> list[bool]:
        def work(connection: sqlite3.Connection) -> list[bool]:
            until = after(from_ms(self._clock.now_ms()), lease)
            return [rawclaims.renew(connection, self._name, claim, until) for claim in claims]

        return self._database.write(work)

    def settle(self, claims: Sequence[RawClaim], due_again: Sequence[float | None]) -> list[bool]:
        def work(connection: sqlite3.Connection) -> list[bool]:
            now_ms = self._clock.now_ms()
            answers = [
                rawclaims.settle(connection, self._name, claim, now_ms, delay)
                for claim, delay in zip(claims, due_again, strict=True)
            ]
            rawclaims.forget_settled(connection, now_ms, 2 * len(claims))
            return answers

        return self._database.write(work)

    def peek(self, limit: int, offset: int = 0) -> list[RawItem]:
        found = self._database.read(
            lambda connection: connection.execute(_PEEK, (self._name, limit, offset)).fetchall()
        )
        return [RawItem(param=param, score=score if self._has_scores else None) for param, score in found]

    def remove(self, params: Sequence[str]) -> list[bool]:
        def work(connection: sqlite3.Connection) -> list[bool]:
            answers = []
            for param in params:
                seq = self._waiting(connection, param)
                if seq is not None:
                    connection.execute(_DROP, (seq,))
                answers.append(seq is not None)
            rawclaims.add_to_size(connection, self._name, -sum(answers))
            return answers

        return self._database.write(work, durable=True)

    def size(self) -> int:
        row = self._database.read(lambda connection: connection.execute(_SIZE, (self._name,)).fetchone())
        return 0 if row is None else int(row[0])

    def histogram(self, start: float, stop: float, buckets: int) -> list[int]:
        """Reads the index entries between start and stop: SQLite cannot count them without."""
        numbers = [0] * buckets
        if self._has_scores and start < stop:
            values = {"queue": self._name, "start": float(start), "stop": float(stop), "buckets": buckets}
            for part, number in self._database.read(
                lambda connection: connection.execute(_HISTOGRAM, values).fetchall()
            ):
                numbers[part] = number
        return numbers

    def _waiting(self, connection: sqlite3.Connection, param: str) -> int | None:
        """The first waiting row of the parameter."""
        row = connection.execute(_SAME, (self._name, param)).fetchone()
        return None if row is None else int(row[0])

    def _score(self, item: RawItem, now: float) -> float:
        if not self._has_scores:
            return 0.0
        if item.score is None:
            return now if self._kind is RawKind.TIMED_SET else 0.0
        return float(item.score)
