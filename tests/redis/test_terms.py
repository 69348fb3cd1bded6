"""What terms cost on the server, and counts that come from the totals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from mrq_broker_redis.broker import RedisBroker
from mrq_broker_redis.jobs import searching, totals
from mrq_core.contract.matching import matches
from mrq_core.contract.messages import Cancel, ClaimRequest, NewJob, Outcome, Requeue, Settlement, Wanted
from mrq_core.contract.queries import JobFilter, Order
from mrq_core.contract.record import JobRecord, Status
from mrq_core.operations.jobs import count_all
from mrq_core.testing import ManualClock
from tests.redis.kit import Place
from tests.redis.recount import check_keys
from tests.redis.servers import Server
from tests.redis.test_connection import claim, new_job, success
from tests.redis.test_cost import calls, in_all

KEYS = {"user_id": 42, "order": "A-1"}
UUID = "6f9619ff-8b86-d011-b42d-00c04fc964ff"


def keyed(queue: str = "q", **fields: Any) -> NewJob:
    return NewJob(record=replace(new_job(queue).record, **{"search_keys": KEYS, **fields}))


def failure(record: JobRecord, group: str = "g", status: Status = Status.FAILED) -> Settlement:
    runs_again = status is Status.RETRY
    outcome = Outcome(
        status=status,
        ttl=None if runs_again else 60.0,
        delay=0.0 if runs_again else None,
        exception_type="shop.NoStock",
        exception_message="No stock of 12 lamps, 3 ordered",
        error_group=group,
    )
    return Settlement(id=record.id, token=record.token or "", outcome=outcome)


@pytest.fixture
def broker(place: Place) -> Iterator[RedisBroker]:
    broker = place.open()
    broker.enqueue([new_job("other")])  # the scripts are there by now
    claim(broker)
    yield broker
    broker.close()


def test_each_search_key_costs_one_member_of_an_index(broker: RedisBroker, server: Server) -> None:
    broker.enqueue([keyed()])
    plain = calls(server, lambda: broker.enqueue([new_job()]))
    with_keys = calls(server, lambda: broker.enqueue([keyed()]))
    assert with_keys == {**plain, "zadd": plain["zadd"] + len(KEYS)}
    many = calls(server, lambda: broker.enqueue([keyed() for _ in range(100)]))
    assert many["zadd"] == with_keys["zadd"]


def test_jobs_with_search_keys_are_claimed_and_settled_like_all_others(
    broker: RedisBroker, server: Server
) -> None:
    def run() -> None:
        [record] = claim(broker, limit=1).records
        assert broker.settle([success(record)]) == [True]

    costs = []
    for job in (new_job(), new_job(), keyed()):  # the first run sends the scripts
        broker.enqueue([job])
        costs.append(calls(server, run))
    assert costs[2] == costs[1]


def test_a_job_with_search_keys_stays_in_one_piece_of_memory(broker: RedisBroker, server: Server) -> None:
    job = keyed(search_keys={"customer_id": UUID, "order_id": UUID, "n": 2**63 - 1})
    broker.enqueue([job])
    with server.client() as client:
        assert client.object("encoding", broker._connection.key(f"j:{job.record.id}")) in (
            b"listpack",
            b"ziplist",
        )


def test_finding_by_a_term_costs_the_same_however_many_jobs_have_other_terms(
    broker: RedisBroker, server: Server
) -> None:
    wanted = [
        JobFilter(search_keys={"user_id": -1}),
        JobFilter(search_keys={"user_id": -1, "order": "A-1"}, statuses=(Status.FAILED,)),
        JobFilter(error_groups=("rare",)),
        JobFilter(error_words=("rare", "lamps"), exception_types=("NoStock",)),
        JobFilter(error_groups=("rare",)),
    ]
    broker.enqueue([keyed(search_keys={**KEYS, "user_id": -1})])
    [record] = claim(broker, limit=1).records
    settlement = failure(record, "rare")
    rare = replace(settlement.outcome, exception_message="rare lamps")
    broker.settle([replace(settlement, outcome=rare)])

    def find() -> None:
        for one in wanted:
            assert [found.id for found in broker.find(one).records] == [record.id]
            assert broker.count(one).numbers == {"": 1}
            assert broker.count(one, "error_group").numbers == {"rare": 1}

    numbers = []
    for number in (50, 1000):
        broker.enqueue([keyed() for _ in range(number)])
        records = claim(broker, limit=number).records
        broker.settle([failure(one) for one in records])
        find()
        numbers.append(in_all(server, find))
    assert numbers[0] == numbers[1]


@pytest.mark.parametrize("order", list(Order))
def test_a_job_that_has_several_of_the_wanted_terms_is_found_once(broker: RedisBroker, order: Order) -> None:
    broker.enqueue([new_job() for _ in range(5)])
    records = claim(broker).records
    broker.settle([failure(one) for one in records])
    wanted = JobFilter(exception_types=("NoStock", "shop.NoStock", "Other"))
    assert broker.count(wanted).numbers == {"": 5}
    found: list[str] = []
    cursor: str | None = None
    while not found or cursor is not None:
        page = broker.find(wanted, order=order, cursor=cursor, limit=2)
        found += [record.id for record in page.records]
        cursor = page.cursor
    assert found == sorted((record.id for record in records), reverse=order is Order.NEWEST_FIRST)


def test_a_failed_job_leaves_nothing_when_it_is_deleted(place: Place) -> None:
    clock = ManualClock()
    broker = place.open(clock)
    broker.enqueue([keyed(), keyed(unique_key="u"), keyed()])
    first, second, third = claim(broker).records
    broker.settle([failure(first), failure(second, status=Status.RETRY), failure(third)])
    check_keys(broker)
    broker.cancel([second.id], Cancel(ttl=60.0))
    broker.requeue([third.id], Requeue())
    check_keys(broker)
    broker.cancel([third.id], Cancel(ttl=60.0))
    clock.advance(61.0)
    assert broker.prune() == 3
    check_keys(broker)
    connection = broker._connection
    left: list[bytes] = connection.use(lambda client: client.keys(connection.key("*")))
    prefix = len(connection.prefix) + 1
    kept = {name[prefix:].decode() for name in left} - {"wake:q"}
    assert kept == {"layout"}
    broker.close()


LONG_GROUP = "g" * 500
COUNTS = [
    *({}, {"statuses": (Status.FAILED,)}, {"statuses": (Status.RETRY, Status.QUEUED)}),
    *({"error_groups": ("g1", "none")}, {"error_groups": ("g1",), "statuses": (Status.RETRY,)}),
    *(
        {"exception_types": ("NoStock",)},
        {"exception_types": ("shop.NoStock", "x"), "statuses": (Status.RETRY,)},
    ),
    *({"queues": ("t/",)}, {"queues": ("q", "t/a"), "statuses": (Status.FAILED,)}, {"paths": ("t.Task",)}),
    *({"paths": ("t.Task",), "queues": ("q",)}, {"error_groups": (LONG_GROUP,)}),
]
GROUPS = (None, "status", "queue", "path", "error_group", "exception_type", "worker")


@pytest.mark.parametrize("wanted", COUNTS)
def test_counts_from_the_totals_are_those_of_the_jobs(
    place: Place, monkeypatch: pytest.MonkeyPatch, wanted: dict[str, Any]
) -> None:
    clock = ManualClock()
    broker = place.open(clock)
    broker.enqueue([keyed(queue) for queue in ("q", "t/a", "t/b") for _ in range(4)])
    records = [*take(broker, "q"), *take(broker, "t/")]
    broker.settle([success(one) for one in records[:2]])
    broker.settle([failure(one, f"g{index % 3}") for index, one in enumerate(records[2:8])])
    clock.advance(60.0)  # these have expired
    broker.settle([failure(records[8], "g1"), failure(records[9], LONG_GROUP)])
    broker.settle([failure(records[10], "g1", Status.RETRY)])
    chosen = JobFilter(**wanted)
    counted = {group: broker.count(chosen, group).numbers for group in GROUPS}
    monkeypatch.setattr(totals, "_MOST_EXPIRED", 7)
    assert totals.counted(broker._connection, chosen, None) is None
    assert {group: broker.count(chosen, group).numbers for group in GROUPS} == counted
    monkeypatch.setattr(totals, "counted", lambda *_: None)
    assert {group: broker.count(chosen, group).numbers for group in GROUPS} == counted
    broker.close()


def take(broker: RedisBroker, queue: str) -> list[JobRecord]:
    request = ClaimRequest(worker="w", wanted=(Wanted(name=queue),), limit=10, lease=600.0)
    return list(broker.claim(request).records)


@pytest.mark.parametrize("is_limited", [False, True])
@pytest.mark.parametrize(
    "wanted",
    [
        JobFilter(workers=("w",)),
        JobFilter(params={"a": 1}),
        JobFilter(queues=("t/",), statuses=(Status.FAILED,), paths=("t.Task",)),
        JobFilter(queues=("t/", "q"), error_groups=("rare",)),
        JobFilter(queues=("none/",), params={"a": 1}),
    ],
)
def test_a_count_whose_time_is_over_goes_on_at_its_cursor(
    broker: RedisBroker, monkeypatch: pytest.MonkeyPatch, wanted: JobFilter, is_limited: bool
) -> None:
    for number in range(60):
        broker.enqueue([keyed(("q", "t/a", "t/b")[number % 3])])
    for queue in ("q", "t/"):
        records = take(broker, queue)[:8]
        broker.settle([failure(one, ("rare", "usual")[index % 2]) for index, one in enumerate(records)])
    if is_limited:
        monkeypatch.setattr(searching, "MOST_MERGED", 1)
    monkeypatch.setattr(searching, "MAX_SECONDS", 0.0)
    everything = broker.get([one.id for one in every_job(broker)])
    expected = [one for one in everything if one is not None and matches(one, wanted)]
    assert broker.count(wanted).is_complete == (wanted.queues == ("none/",))
    for group in GROUPS:
        numbers = Counter("" if group is None else getattr(one, group) for one in expected)
        del numbers[None]
        assert count_all(broker, wanted, group) == (numbers if group else {"": len(expected)})


def every_job(broker: RedisBroker) -> list[JobRecord]:
    """All jobs, page by page."""
    found: list[JobRecord] = []
    cursor: str | None = None
    while not found or cursor is not None:
        page = broker.find(JobFilter(), cursor=cursor, limit=100)
        found += page.records
        cursor = page.cursor
    return found
