"""Raw queues: waiting parameters, and parameters that are leased until a job is made from them.

All kinds share two tables. Waiting parameters are ordered by (score, seq). The score is 0 in lists and
sets, which are therefore ordered by arrival. A claim that leaves the parameter in its set
(pushback) is recorded in the waiting row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from mrq_core.clock import Clock, after, from_ms
from mrq_core.contract.messages import RawClaim, RawItem
from mrq_core.contract.raw import RawQueue
from mrq_core.contract.record import JobRecord
from mrq_core.drivers.answers import names_unreadable_answers
from mrq_core.drivers.raw_arguments import checks_raw_arguments
from mrq_core.embedded.jobs.damaged import past_damage
from mrq_core.embedded.raw import claiming, parameters
from mrq_core.embedded.server.connection import Database


@checks_raw_arguments
@names_unreadable_answers(connection="_database")
class EmbeddedRawQueue(RawQueue):
    """One raw queue of the file."""

    def __init__(self, name: str, database: Database, clock: Clock) -> None:
        super().__init__(name)
        self._database = database
        self._clock = clock

    def push(self, items: Sequence[RawItem]) -> list[bool]:
        return self._database.write(
            lambda c: parameters.push(c, self.name, self.kind, items, self._clock.now_ms() / 1000),
            durable=True,
        )

    def claim(self, limit: int, lease: float, worker: str, pushback: float | None = None) -> list[RawClaim]:
        claims = self._database.write(
            lambda connection: claiming.claim(
                connection, self.name, self.kind, self._clock.now_ms(), limit, lease, pushback
            )
        )
        return (
            claims
            if parameters.has_scores(self.kind)
            else [claiming.without_score(claim) for claim in claims]
        )

    def admit(self, claims: Sequence[tuple[RawClaim, JobRecord]], lease: float) -> list[bool]:
        return past_damage(
            self._database,
            self._clock,
            lambda: self._database.write(
                lambda connection: claiming.admit(connection, self._clock, self.name, claims, lease),
                durable=any(record.at_most_once for _, record in claims),
            ),
        )

    def renew(self, claims: Sequence[RawClaim], lease: float) -> list[bool]:
        def work(connection: sqlite3.Connection) -> list[bool]:
            until = after(from_ms(self._clock.now_ms()), lease)
            return [claiming.renew(connection, self.name, claim, until) for claim in claims]

        return self._database.write(work)

    def settle(self, claims: Sequence[RawClaim], due_again: Sequence[float | None]) -> list[bool]:
        def work(connection: sqlite3.Connection) -> list[bool]:
            now_ms = self._clock.now_ms()
            answers = [
                claiming.settle(connection, self.name, claim, now_ms, delay)
                for claim, delay in zip(claims, due_again, strict=True)
            ]
            claiming.forget_settled(connection, now_ms, 2 * len(claims))
            return answers

        return self._database.write(work)

    def peek(self, limit: int, offset: int = 0) -> list[RawItem]:
        return self._database.read(lambda c: parameters.peek(c, self.name, self.kind, limit, offset))

    def remove(self, params: Sequence[str]) -> list[bool]:
        return self._database.write(lambda c: parameters.remove(c, self.name, params), durable=True)

    def size(self) -> int:
        return self._database.read(lambda c: parameters.size(c, self.name))

    def histogram(self, start: float, stop: float, buckets: int) -> list[int]:
        return self._database.read(
            lambda c: parameters.histogram(c, self.name, self.kind, start, stop, buckets)
        )
