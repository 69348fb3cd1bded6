"""What the embedded driver does about limits beside the contract: places in line, costs, mending."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mrq_core.contract.messages import (
    Cancel,
    ClaimRef,
    ClaimRequest,
    Limit,
    Move,
    Outcome,
    Requeue,
    Settlement,
    Wanted,
)
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import JobRecord, Status
from mrq_core.embedded.broker import EmbeddedBroker
from mrq_core.embedded.jobs import limits, parking, slots
from mrq_core.embedded.jobs.claiming import MIN_BLOCKED, SWEEP_MS
from mrq_core.testing.clock import ManualClock
from tests.embedded.kit import job, open_broker, succeed
from tests.embedded.recount import check_tables

LEASE = 60.0
ONE = {"k": Limit(concurrency=1)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mrq.sqlite3"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def broker(path: Path, clock: ManualClock) -> Iterator[EmbeddedBroker]:
    with closing(open_broker(path, clock=clock)) as broker:
        broker.prepare()
        yield broker
        check_tables(path)


def claim(
    broker: EmbeddedBroker,
    limits: dict[str, Limit],
    *,
    limit: int = 10,
    lost_limit: int = 1,
    queue: str = "q",
) -> list[JobRecord]:
    request = ClaimRequest(
        worker="w1",
        wanted=(Wanted(name=queue),),
        limit=limit,
        lease=LEASE,
        lost_limit=lost_limit,
        limits=limits,
    )
    return list(broker.claim(request).records)


def put(broker: EmbeddedBroker, number: int, queue: str = "q", key: str = "k") -> list[str]:
    answers = broker.enqueue([job(queue, limit_keys=(key,)) for _ in range(number)])
    return [answer.id for answer in answers]


def test_a_job_that_is_let_go_stands_where_it_stood_before(
    broker: EmbeddedBroker, clock: ManualClock
) -> None:
    put(broker, 1)
    [running] = claim(broker, ONE)
    [parked] = put(broker, 1)
    assert claim(broker, ONE) == []
    clock.advance(1.0)
    put(broker, 5)
    clock.advance(1.0)
    broker.settle([succeed(running)])
    assert [record.id for record in claim(broker, ONE)] == [parked]


def test_jobs_whose_limit_is_gone_are_let_go_in_bounded_parts(broker: EmbeddedBroker) -> None:
    ids = put(broker, 1_000)
    taken = claim(broker, ONE, limit=1)
    for _ in range(1_000 // MIN_BLOCKED):
        assert claim(broker, ONE, limit=1) == []
    assert broker.counts(["q"])[0].due == 0
    while records := claim(broker, {}, limit=1):
        assert broker.counts(["q"])[0].due <= 2 * MIN_BLOCKED
        taken += records
    assert sorted(record.id for record in taken) == sorted(ids)


def test_a_worker_that_is_always_full_lets_parked_jobs_go_too(
    broker: EmbeddedBroker, clock: ManualClock
) -> None:
    [_, parked] = put(broker, 2)
    claim(broker, ONE)
    broker.enqueue([job() for _ in range(10)])
    for _ in range(3):
        clock.advance(SWEEP_MS / 1000)
        assert len(claim(broker, {}, limit=1)) == 1
    [record] = broker.get([parked])
    assert record is not None
    assert record.due_at is not None


def test_many_keys_with_room_take_turns(broker: EmbeddedBroker, clock: ManualClock) -> None:
    keys = [f"k:{number}" for number in range(3 * parking.MAX_KEYS)]
    for key in keys:
        put(broker, 2, key=key)
    held = claim(broker, ONE, limit=200)
    assert len(held) == len(keys)
    taken: list[JobRecord] = []
    for _ in range(len(keys)):
        taken += claim(broker, {"k": Limit(concurrency=2)}, limit=200)
    assert len(taken) == len(keys)


def test_a_renewal_behind_the_end_of_the_lease_takes_the_slot_again(
    broker: EmbeddedBroker, clock: ManualClock
) -> None:
    put(broker, 1)
    [late] = claim(broker, ONE)
    clock.advance(LEASE)
    assert claim(broker, ONE, limit=0) == []
    assert late.token is not None
    assert broker.renew([ClaimRef(id=late.id, token=late.token)], LEASE) == [True]
    put(broker, 1)
    assert claim(broker, ONE) == []


def test_a_rate_counts_exactly_where_a_float_would_not(broker: EmbeddedBroker, clock: ManualClock) -> None:
    put(broker, 10)
    limits = {"k": Limit(rate=3.0, per=1.0)}
    assert len(claim(broker, limits)) == 3
    turns = sorted(
        round((record.due_at - clock.now()).total_seconds() * 1000)
        for record in broker.find(JobFilter(statuses=(Status.QUEUED,))).records
        if record.due_at is not None
    )
    assert turns == [334, 667, 1000, 1334, 1667, 2000, 2334]


def test_a_thousand_blocked_jobs_get_a_thousand_turns_and_are_not_met_again(
    broker: EmbeddedBroker, clock: ManualClock
) -> None:
    ids = put(broker, 1_000)
    limits = {"k": Limit(rate=1.0, per=1.0)}
    records = [record for _ in range(15) for record in claim(broker, limits)]
    broker.settle(list(map(succeed, records)))
    taken = [record.id for record in records]
    waiting = broker.find(JobFilter(statuses=(Status.QUEUED,)), limit=1_000).records
    # One is pushed back to each second of the horizon, and the others are parked.
    assert (len(taken), len({record.due_at for record in waiting})) == (1, 61)
    for _ in range(999):
        clock.advance(1.0)
        [record] = claim(broker, limits)
        assert record.claims == 1
        broker.settle([succeed(record)])
        taken.append(record.id)
    assert taken == ids


def test_times_of_an_earlier_version_are_read_and_cut(
    broker: EmbeddedBroker, clock: ManualClock, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, fast = {"k": Limit(rate=1, per=600.0)}, {"k": Limit(rate=1, per=100.0)}
    began = clock.now()
    pushed_back = put(broker, 3)
    with monkeypatch.context() as patch:
        patch.setattr(limits, "HORIZON_US", 10**12)  # the earlier version had no horizon
        broker.settle([succeed(record) for record in claim(broker, slow)])
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute("DELETE FROM rates WHERE limit_key = char(10) || 'k'").rowcount == 1
        assert connection.execute("UPDATE rates SET limit_key = 'k'").rowcount == 1
    new = put(broker, 2)
    starts: dict[str, float] = {}
    for _ in range(1300):
        for record in claim(broker, fast):
            starts[record.id] = (clock.now() - began).total_seconds()
            broker.settle([succeed(record)])
        clock.advance(1.0)
    assert starts == {new[0]: 100.0, new[1]: 200.0, pushed_back[1]: 600.0, pushed_back[2]: 1200.0}
    with closing(sqlite3.connect(path)) as connection:
        names = [name for (name,) in connection.execute("SELECT limit_key FROM rates")]
    assert names == ["\nk", "k\n100000000:0"]


def test_rates_of_quiet_keys_are_pruned(broker: EmbeddedBroker, clock: ManualClock, path: Path) -> None:
    put(broker, 1)
    claim(broker, {"k": Limit(rate=1.0, per=10.0)})
    with closing(sqlite3.connect(path)) as connection:
        rates = "SELECT count(*) FROM rates"
        broker.prune()
        assert connection.execute(rates).fetchone() == (2,)
        clock.advance(10.0)
        broker.prune()
        assert connection.execute(rates).fetchone() == (0,)


def test_the_next_of_a_key_is_found_in_the_index(broker: EmbeddedBroker, path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement, values in (
            (slots._FIRST_PARKED, ("k", 1)),
            (slots._EXPIRED, (1, 1)),
            (limits._PRUNE, (1, 1)),
        ):
            plan = [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + statement, values)]
            assert not any("SCAN" in line or "TEMP B-TREE" in line for line in plan), plan


@pytest.mark.parametrize("seed", range(10))
def test_after_any_history_slots_and_parked_jobs_are_what_a_recount_gives(
    broker: EmbeddedBroker, clock: ManualClock, path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    limits = {"k": Limit(concurrency=2), "r": Limit(concurrency=1, rate=2.0, per=5.0)}
    held: list[JobRecord] = []
    for _ in range(60):
        ids = [record.id for record in broker.find(JobFilter(), limit=1_000).records]
        some = chance.sample(ids, min(3, len(ids)))
        match chance.randrange(8):
            case 0 | 1:
                keys = chance.choice([(), ("k",), ("k:x",), ("k", "r"), ("r", "other")])
                broker.enqueue([job(chance.choice("qp") + "/s", limit_keys=keys) for _ in range(4)])
            case 2 | 3:
                queue = chance.choice(["q/", "p/s", "p/"])
                held += claim(broker, limits, limit=4, lost_limit=chance.randint(0, 3), queue=queue)
            case 4:
                ended = [held.pop(chance.randrange(len(held))) for _ in range(min(2, len(held)))]
                broker.settle([_some_end(record, chance) for record in ended])
            case 5:
                broker.cancel(some, Cancel())
                broker.requeue(some[:1], Requeue())
            case 6:
                broker.move(some, Move(queue="q/s"))
                broker.remove(some[:1])
            case _:
                clock.advance(chance.choice([0.5, 5.0, LEASE]))
        check_tables(path)
        running = broker.find(JobFilter(statuses=(Status.STARTED,)), limit=1_000).records
        for key, most in (("k", 2), ("k:x", 2), ("r", 1)):
            live = [
                r for r in running if key in r.limit_keys and r.lease_until and r.lease_until > clock.now()
            ]
            assert len(live) <= most


def _some_end(record: JobRecord, chance: random.Random) -> Settlement:
    if chance.random() < 0.6:
        return succeed(record)
    assert record.token is not None
    outcome = Outcome(status=Status.RETRY, delay=1.0, is_retry=True)
    return Settlement(id=record.id, token=record.token, outcome=outcome)
