"""The driver and the in-memory broker, put through the same random history, give the same answers."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

import pytest
from msgspec.structs import replace

from mrq_core.contract.broker import Broker
from mrq_core.contract.lifecycle import claim_number
from mrq_core.contract.messages import Cancel, Claimed, ClaimRef, Move, NewJob, Requeue, Settlement, Unique
from mrq_core.contract.queries import JobFilter, Order
from mrq_core.contract.record import JobRecord, Status
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import Contract, claim, new_job, ref, settlement
from mrq_core.testing.memory import MemoryBroker

T = TypeVar("T")
QUEUES = ("a", "b")
ENDS = [Status.SUCCESS, Status.FAILED, Status.ABORT, Status.TIMEOUT, Status.MAXRETRIES, Status.CANCEL]
GOES_ON = [Status.RETRY, Status.INTERRUPT, Status.QUEUED]


class ModelContract(Contract):
    """Compares a driver with the model. Only one broker at a time is asked, so there is one right answer."""

    @pytest.mark.parametrize("seed", range(20))
    def test_a_random_history_goes_as_it_goes_in_memory(
        self, broker: Broker, clock: ManualClock, seed: int
    ) -> None:
        history = _History(broker, clock, random.Random(seed), unique=self.supports_unique)
        for _ in range(80):
            history.step()
            history.compare()


class _History:
    """Two brokers that are asked the same, and the claims that each of them has given."""

    def __init__(self, broker: Broker, clock: ManualClock, chance: random.Random, *, unique: bool) -> None:
        self._brokers = (broker, MemoryBroker(clock=clock))
        self._clock = clock
        self._chance = chance
        self._unique = unique
        self._jobs: list[NewJob] = []
        self._claims: list[tuple[JobRecord, JobRecord]] = []
        """Every claim ever made, as the driver and as the model gave it."""

    def step(self) -> None:
        """One random call, made to both."""
        chance = self._chance
        steps = (self._enqueue, self._claim, self._settle, self._renew, self._change, self._pass_time)
        chance.choices(steps, (3, 4, 4, 1, 2, 2))[0]()

    def compare(self) -> None:
        """All that can be read is the same, but for the nonces in the tokens."""
        self._same(
            lambda broker: [
                _plain(record)
                for record in broker.find(JobFilter(), order=Order.OLDEST_FIRST, limit=1000).records
            ]
        )
        self._same(lambda broker: broker.totals().by_status())
        self._same(lambda broker: broker.count(JobFilter(queues=("a",)), "status").numbers)

    def _same(self, ask: Callable[[Broker], T]) -> T:
        answer, expected = (ask(broker) for broker in self._brokers)
        assert answer == expected
        return answer

    def _enqueue(self) -> None:
        chance = self._chance
        # One priority: the contract does not say which of several suspects comes first.
        jobs = [
            new_job(
                self._clock,
                chance.choice(QUEUES),
                params={"n": chance.randrange(3)},
                delay=chance.choice([None, None, 0.0, 15.0]),
                at_most_once=chance.random() < 0.1,
                unique=self._some_unique(),
            )
            for _ in range(chance.randint(1, 3))
        ]
        if self._jobs and chance.random() < 0.3:
            jobs.append(chance.choice(self._jobs))
        self._jobs += jobs
        self._same(lambda broker: broker.enqueue(jobs))

    def _some_unique(self) -> Unique | None:
        if not self._unique or self._chance.random() < 0.6:
            return None
        until = self._chance.choice(["queued", "done", "period", "record"])
        key = self._chance.choice(["k1", "k2"])
        return Unique(key=key, until=until, period=40.0 if until == "period" else None)

    def _claim(self) -> None:
        queue, limit = self._chance.choice(QUEUES), self._chance.randint(1, 3)
        lost_limit, worker = self._chance.randint(0, 2), self._chance.choice(["w1", "w2"])
        given: list[Claimed] = [
            claim(broker, queue, limit=limit, lease=30.0, lost_limit=lost_limit, worker=worker)
            for broker in self._brokers
        ]
        ours, models = given
        assert [_plain(record) for record in ours.records] == [_plain(record) for record in models.records]
        assert {record.id for record in ours.ended} == {record.id for record in models.ended}
        assert ours.now == models.now
        self._claims += zip(ours.records, models.records, strict=True)

    def _settle(self) -> None:
        if not self._claims:
            return
        chance = self._chance
        # Mostly a late one, so that most settles are accepted; now and then any that ever was.
        pair = chance.choice(self._claims if chance.random() < 0.3 else self._claims[-4:])
        goes_on = chance.random() < 0.4
        status = chance.choice(GOES_ON if goes_on else ENDS)
        delay = chance.choice([0.0, 10.0]) if goes_on else None
        queue, ttl = chance.choice([None, *QUEUES]), chance.choice([None, 50.0])
        outcomes: list[Settlement] = [
            settlement(
                record, status, delay=delay, queue=queue, ttl=ttl, cancel_ttl=20.0, result=[status.value]
            )
            for record in pair
        ]
        answers = [broker.settle([outcome]) for broker, outcome in zip(self._brokers, outcomes, strict=True)]
        assert answers[0] == answers[1]

    def _renew(self) -> None:
        pairs = self._claims[-5:]
        refs: list[list[ClaimRef]] = [[ref(pair[side]) for pair in pairs] for side in (0, 1)]
        answers = [broker.renew(mine, 30.0) for broker, mine in zip(self._brokers, refs, strict=True)]
        assert answers[0] == answers[1]

    def _change(self) -> None:
        chance = self._chance
        ids = [job.record.id for job in chance.sample(self._jobs, min(len(self._jobs), 4))]
        queue = chance.choice(QUEUES)
        changes: list[Callable[[Broker], object]] = [
            lambda broker: broker.requeue(ids, Requeue(queue=queue)),
            lambda broker: broker.cancel(ids, Cancel(ttl=25.0)),
            lambda broker: broker.move(ids, Move(queue=queue)),
            lambda broker: broker.remove(ids[:1]),
        ]
        self._same(chance.choice(changes))

    def _pass_time(self) -> None:
        self._clock.advance(self._chance.choice([0.001, 5.0, 29.999, 30.0]))
        self._same(lambda broker: broker.prune())


def _plain(record: JobRecord) -> JobRecord:
    """The record without the nonces of its tokens, which are random."""
    return replace(
        record,
        token=None if record.token is None else str(claim_number(record.token)),
        history=tuple(replace(attempt, token=str(claim_number(attempt.token))) for attempt in record.history),
    )
