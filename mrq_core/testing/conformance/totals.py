"""Totals, and what holds after whatever history."""

from __future__ import annotations

import random

import pytest

from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import Cancel, Move, Requeue
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import Status
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import Contract, claim, lose, new_job, settle, started, take


class TotalsContract(Contract):
    """What totals promise, and what holds whatever happens."""

    def test_nothing_is_counted_where_nothing_is(self, broker: Broker) -> None:
        assert broker.totals().by_status() == {}

    def test_expired_jobs_are_counted_until_they_are_pruned(self, broker: Broker, clock: ManualClock) -> None:
        settle(broker, started(broker, clock), ttl=1.0)
        clock.advance(1)
        assert broker.totals().by_status() == {Status.SUCCESS: 1}
        broker.prune()
        assert broker.totals().by_status() == {}

    @pytest.mark.parametrize("seed", range(5))
    def test_totals_and_queues_are_right_after_a_random_history(
        self, broker: Broker, clock: ManualClock, seed: int
    ) -> None:
        chance = random.Random(seed)
        for _ in range(60):
            random_step(broker, clock, chance)
            check_totals(broker)
        check_queues(broker, clock)


QUEUES = ("a", "b", "t/x", "t/y")
PATHS = ("p1", "p2")


def random_step(broker: Broker, clock: ManualClock, chance: random.Random) -> None:
    """One change of some jobs, by any of the broker's operations."""
    records = broker.find(JobFilter(), limit=1000).records
    ids = [record.id for record in chance.sample(records, min(len(records), 3))]
    step = chance.randrange(9)
    if step <= 1:
        broker.enqueue(
            [
                new_job(
                    clock,
                    chance.choice(QUEUES),
                    path=chance.choice(PATHS),
                    priority=chance.randint(-4, 4),
                    delay=chance.choice([None, 0.0, 30.0]),
                    at_most_once=chance.random() < 0.2,
                )
                for _ in range(chance.randint(1, 4))
            ]
        )
    elif step == 2:
        claim(broker, "a", "b", "t/", limit=chance.randint(1, 5), lost_limit=chance.randint(0, 2))
    elif step == 3:
        for record in records:
            if record.status is Status.STARTED and chance.random() < 0.6:
                status = chance.choice([status for status in Status if status is not Status.STARTED])
                goes_on = status.is_waiting
                has_failed = status is not Status.SUCCESS and chance.random() < 0.7
                settle(
                    broker,
                    record,
                    status,
                    delay=chance.choice([0.0, 20.0]) if goes_on else None,
                    queue=chance.choice([None, *QUEUES]),
                    ttl=None if goes_on else chance.choice([None, 50.0]),
                    is_retry=status is Status.RETRY,
                    lost=status in (Status.QUEUED, Status.FAILED) and chance.random() < 0.5,
                    exception_type="E" if has_failed else None,
                    error_group=chance.choice(["g1", "g2"]) if has_failed else None,
                )
    elif step == 4:
        broker.requeue(ids, Requeue(queue=chance.choice([None, *QUEUES])))
    elif step == 5:
        broker.cancel(ids, Cancel(ttl=50.0))
    elif step == 6:
        broker.move(ids, Move(queue=chance.choice(QUEUES)))
    elif step == 7:
        broker.remove(ids[:1])
    else:
        clock.advance(chance.choice([1.0, 10.0, 60.0]))
        broker.prune()


def check_totals(broker: Broker) -> None:
    """Totals are what a recount gives. Nothing has expired: the steps prune as soon as time passes."""
    by_queue: dict[str, dict[Status, int]] = {}
    by_path: dict[str, dict[Status, int]] = {}
    by_group: dict[str, dict[Status, int]] = {}
    for record in broker.find(JobFilter(), limit=1000).records:
        named = [(by_queue, record.queue), (by_path, record.path)]
        if record.error_group is not None:
            named.append((by_group, record.error_group))
        for table, name in named:
            row = table.setdefault(name, {})
            row[record.status] = row.get(record.status, 0) + 1
    totals = broker.totals()
    for told, counted in (
        (totals.by_queue, by_queue),
        (totals.by_path, by_path),
        (totals.by_error_group, by_group),
    ):
        present = {name: {status: n for status, n in row.items() if n} for name, row in told.items()}
        assert {name: row for name, row in present.items() if row} == counted


def check_queues(broker: Broker, clock: ManualClock) -> None:
    """What the queues hold are the jobs that wait, and all of them can be claimed in the end."""
    lose(clock, 100.0)
    for record in broker.find(JobFilter(statuses=(Status.STARTED,)), limit=1000).records:
        settle(broker, record, Status.FAILED)
    waiting = {record.id for record in broker.find(JobFilter(), limit=1000).records if not record.is_ended}
    assert sum(counts.waiting for counts in broker.counts(QUEUES)) == len(waiting)
    taken: set[str] = set()
    while ids := take(broker, *QUEUES, limit=7):
        assert taken.isdisjoint(ids)
        taken.update(ids)
    assert taken == waiting
