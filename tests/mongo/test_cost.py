"""What calls cost: every question that the driver asks goes through an index, and reads what it answers with.

The server explains each command of the driver, in the moment before it is sent, on collections of thousands
of jobs.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import product
from typing import Any

import pymongo
import pytest

from mrq_broker_mongo.broker import MongoBroker
from mrq_broker_mongo.shared import metrics
from mrq_core import failpoints
from mrq_core.clock import after
from mrq_core.contract.messages import (
    Cancel,
    ClaimRef,
    ClaimRequest,
    Limit,
    NewJob,
    Note,
    Outcome,
    RawItem,
    Remove,
    Requeue,
    Settlement,
    Unique,
    Wanted,
)
from mrq_core.contract.metrics import Resolution, measured
from mrq_core.contract.queries import JobFilter, LogLine, Order
from mrq_core.contract.record import JobRecord, Status
from mrq_core.contract.shared_state import Versions
from mrq_core.errors import BrokerUnavailable
from mrq_core.ids import new_id
from tests.mongo.explaining import Doc, Explained, check, figures
from tests.mongo.kit import Place

MANY = 3000


@pytest.fixture
def explained(place: Place) -> Iterator[Explained]:
    with pymongo.MongoClient[Doc](place.url) as client:
        yield Explained(client)


@pytest.fixture
def broker(place: Place, explained: Explained) -> Iterator[MongoBroker]:
    """A broker with thousands of jobs of each sort."""
    broker = place.open()
    connection = broker._connection
    connect = lambda: pymongo.MongoClient[Doc](place.url, event_listeners=[explained])  # noqa: E731
    connection.location = connection.location._replace(connect=connect)
    broker.prepare()
    yield broker
    explained.is_on = False
    broker.close()


def new_job(queue: str = "q", **more: Any) -> NewJob:
    now = datetime.now(UTC)
    outer = {name: more.pop(name) for name in ("delay", "unique") if name in more}
    record = JobRecord(
        id=new_id(),
        path=more.pop("path", "t.Task"),
        params={"n": 1},
        queue=queue,
        queued_at=now,
        updated_at=now,
        **more,
    )
    return NewJob(record=record, **outer)


def claim(broker: MongoBroker, *names: str, limit: int = 10, **more: Any) -> list[JobRecord]:
    wanted = tuple(Wanted(name=name) for name in names or ("q",))
    return list(
        broker.claim(ClaimRequest(worker="w", wanted=wanted, limit=limit, lease=60.0, **more)).records
    )


def fill(broker: MongoBroker, number: int = MANY) -> None:
    """Due jobs; urgent ones that are not due; claimed ones; ended ones; some in trees."""
    broker.enqueue([new_job() for _ in range(1000)])
    claim(broker, limit=500)
    outcome = Outcome(status=Status.FAILED, ttl=1000.0, exception_type="E")
    records = claim(broker, limit=500)
    broker.settle([Settlement(id=one.id, token=one.token or "", outcome=outcome) for one in records])
    for start in range(0, number, 500):
        broker.enqueue([new_job() for _ in range(500)])
        broker.enqueue([new_job(delay=1000.0, priority=4) for _ in range(500)])
        broker.enqueue([new_job(f"tree/{start + place}", delay=500.0 * (place % 2)) for place in range(500)])


def success(record: JobRecord) -> Settlement:
    outcome = Outcome(status=Status.SUCCESS, ttl=1000.0, result=1)
    return Settlement(id=record.id, token=record.token or "", outcome=outcome)


# --- the hot path -----------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("q",), ("q", "empty"), ("tree/",), ("tree/1", "tree/501", "tree/")])
def test_a_claim_and_a_settle(broker: MongoBroker, explained: Explained, names: tuple[str, ...]) -> None:
    fill(broker)
    for limit in (1, 10, 100):
        records: list[JobRecord] = []
        check(explained, lambda: records.extend(claim(broker, *names, limit=limit)))  # noqa: B023
        assert len(records) == min(limit, 32 if "tree/" in names else limit)
        check(explained, lambda: broker.settle([success(one) for one in records]))  # noqa: B023


def test_a_claim_in_reverse(broker: MongoBroker, explained: Explained) -> None:
    fill(broker)
    for name in ("q", "tree/"):
        wanted = (Wanted(name=name, reverse=True),)
        request = ClaimRequest(worker="w", wanted=wanted, limit=10, lease=60.0)
        check(explained, lambda request=request: broker.claim(request))  # type: ignore[misc]


def test_a_claim_where_nothing_is_due(broker: MongoBroker, explained: Explained) -> None:
    fill(broker)
    names = [f"tree/{number}" for number in range(1, 60, 2)]
    check(explained, lambda: claim(broker, *names, limit=50))
    check(explained, lambda: broker.wait([Wanted(name=name) for name in names], 0.01))


def test_a_claim_does_not_look_at_what_is_not_due(broker: MongoBroker, explained: Explained) -> None:
    """Delayed jobs of urgent priorities stand before the others in the index."""
    fill(broker)
    check(explained, lambda: claim(broker, limit=10))
    looks = [told for command, told in explained.found if "find" in command and "rank" in command["filter"]]
    assert len(looks) == 1
    assert figures(looks[0])["totalKeysExamined"] <= 10 + 2 * 9


def test_the_end_of_leases(broker: MongoBroker, explained: Explained) -> None:
    fill(broker)
    broker.enqueue([new_job("s", limit_keys=("k",)) for _ in range(50)])
    limits = {"k": Limit(concurrency=100)}
    request = ClaimRequest(worker="w", wanted=(Wanted(name="s"),), limit=50, lease=0.01, limits=limits)
    assert len(broker.claim(request).records) == 50
    lost: list[JobRecord] = []
    again = lambda: lost.extend(claim(broker, "s", "q", limit=5, lost_limit=5, limits=limits))  # noqa: E731
    check(explained, again, scanned=60)
    assert [record.lost_claims for record in lost] == [1] * 5


def test_limits_and_parked_jobs(broker: MongoBroker, explained: Explained) -> None:
    fill(broker)
    limits = {"k": Limit(concurrency=5)}
    broker.enqueue([new_job("s", limit_keys=("k",)) for _ in range(1000)])
    records: list[JobRecord] = []
    check(explained, lambda: records.extend(claim(broker, "s", limit=20, limits=limits)), scanned=110)
    assert len(records) == 5
    refs = [ClaimRef(id=one.id, token=one.token or "") for one in records]
    check(explained, lambda: broker.renew(refs, 60.0))
    check(explained, lambda: broker.settle([success(one) for one in records]))


def test_renew_annotate_and_other_ends(broker: MongoBroker, explained: Explained) -> None:
    fill(broker)
    records = claim(broker, limit=20)
    refs = [ClaimRef(id=one.id, token=one.token or "") for one in records]
    check(explained, lambda: broker.renew(refs, 60.0))
    check(
        explained, lambda: broker.annotate([Note(id=ref.id, token=ref.token, progress=0.5) for ref in refs])
    )
    outcome = Outcome(status=Status.FAILED, ttl=1.0, exception_type="E")
    check(
        explained,
        lambda: broker.settle([Settlement(id=ref.id, token=ref.token, outcome=outcome) for ref in refs]),
    )


def test_enqueueing_with_unique_keys(broker: MongoBroker, explained: Explained) -> None:
    fill(broker)
    jobs = [new_job(unique=Unique(key=f"u{number % 5}")) for number in range(10)]
    for _ in range(2):
        check(explained, lambda: broker.enqueue(jobs))


@pytest.mark.parametrize("limit", [1, 5])
def test_no_claim_is_made_without_its_index(broker: MongoBroker, limit: int) -> None:
    broker.enqueue([new_job()])
    broker._connection.run("jobs", lambda jobs: jobs.drop_index("due"))
    with pytest.raises(BrokerUnavailable, match="mrq check --fix"):
        claim(broker, limit=limit)
    broker.prepare()
    assert len(claim(broker, limit=limit)) == 1


# --- looking and changing ---------------------------------------------------------------------------


def test_finding(broker: MongoBroker, explained: Explained) -> None:
    fill(broker)
    filters = (
        JobFilter(),
        JobFilter(statuses=(Status.STARTED,)),
        JobFilter(statuses=(Status.STARTED, Status.FAILED)),
        JobFilter(queues=("q",)),
        JobFilter(paths=("t.Task",)),
        JobFilter(exception_types=("E",)),
        JobFilter(schedules=("none",)),
    )
    for wanted, order in product(filters, Order):
        page = broker.find(wanted, order=order, limit=20)
        check(explained, lambda: broker.find(wanted, order=order, limit=20))  # noqa: B023
        check(explained, lambda: broker.find(wanted, order=order, cursor=page.cursor, limit=20))  # noqa: B023


def testfigures(broker: MongoBroker, explained: Explained) -> None:
    fill(broker)
    check(explained, broker.totals)
    check(explained, lambda: broker.queue_names("tree/", "tree/5", 10))
    check(explained, lambda: broker.counts(["q", "tree/1", "empty"]))
    check(explained, lambda: broker.poll("w", Versions()))
    check(explained, lambda: broker.count(JobFilter(statuses=(Status.FAILED,))).numbers)


def test_logs(broker: MongoBroker, explained: Explained) -> None:
    fill(broker)
    records = claim(broker, limit=50)
    for record in records:
        lines = [
            LogLine(job_id=record.id, attempt=1, seq=seq, at=datetime.now(UTC), level="INFO", message="m")
            for seq in range(40)
        ]
        broker.append_logs(lines, 10**6)
    check(explained, lambda: broker.append_logs(lines, 10**6))
    check(explained, lambda: broker.read_logs(records[5].id, "1.10", 10))


def test_metrics(broker: MongoBroker, explained: Explained) -> None:
    """Other names, other times and old pages are not read."""
    now = broker.now()
    series = [(name, (("task", f"t{number}"),)) for name in ("a", "b", "c") for number in range(50)]
    for hours in (0, 1, 30, 800):
        at = after(now, -3600 * hours)
        broker.record_metrics([measured(name, at, tags, [1.0]) for name, tags in series])
    check(
        explained, lambda: broker.record_metrics([measured("a", now, tags, [1.0]) for _, tags in series[:9]])
    )
    for resolution in Resolution:
        start, end = after(now, -7200), after(now, 1)
        check(explained, lambda: broker.read_metrics(["a", "c"], start, end, resolution))  # noqa: B023
    broker.prune(0)
    check(explained, lambda: broker.prune(40))
    assert broker.read_metrics(["a"], after(now, -3600 * 801), after(now, -3600 * 799), Resolution.HOUR) != []


def test_metrics_that_another_process_has_changed_are_added_again(
    broker: MongoBroker, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the read and the write of the one, the other writes some of the documents, and a new one."""
    now = broker.now()
    series = [(("task", f"t{number}"),) for number in range(9)]
    broker.record_metrics([measured("a", now, tags, [1.0]) for tags in series[:6]])
    other = place.open()
    calls: list[str] = []

    def reach(point: str) -> None:
        calls.append(point)
        if calls.count("metrics.after") == 1 and point == "metrics.after":
            other.record_metrics([measured("a", now, tags, [2.0]) for tags in series[3:8]])

    monkeypatch.setattr(failpoints, "hook", reach)
    broker.record_metrics([measured("a", now, tags, [4.0]) for tags in series])
    monkeypatch.setattr(failpoints, "hook", None)
    for resolution in Resolution:
        read = broker.read_metrics(["a"], after(now, -7200), after(now, 1), resolution)
        found = {metric.tags: metric.total for metric in read}
        assert list(map(found.get, series)) == [5.0, 5.0, 5.0, 7.0, 7.0, 7.0, 6.0, 6.0, 4.0]
    other.close()


def test_metrics_that_change_all_the_time_are_given_up(
    broker: MongoBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "_add", lambda connection, cells: dict(cells))
    monkeypatch.setattr(metrics, "_PAUSE", 0.0)
    with pytest.raises(BrokerUnavailable, match="4 metrics"):
        broker.record_metrics([measured("a", broker.now(), (("task", task),), [1.0]) for task in "xy"])


def test_changes_and_housekeeping(broker: MongoBroker, explained: Explained) -> None:
    fill(broker)
    some = [record.id for record in broker.find(JobFilter(queues=("q",)), limit=10).records]
    check(explained, lambda: broker.cancel(some, Cancel(ttl=-1.0)))
    check(explained, lambda: broker.apply(JobFilter(statuses=(Status.FAILED,)), Requeue(), limit=10))
    check(explained, lambda: broker.apply(JobFilter(statuses=(Status.FAILED,)), Remove(), limit=10))
    broker.prune(0)  # which recounts, once a minute, and that reads every job
    check(explained, lambda: broker.prune(10))


def test_raw_queues(broker: MongoBroker, explained: Explained) -> None:
    for name in ("a_raw", "b_set", "c_sorted_set", "d_timed_set"):
        raw = broker.raw(name)
        for start in range(0, 2000, 1000):
            raw.push(
                [RawItem(param=f"{number}", score=float(number)) for number in range(start, start + 1000)]
            )
        raw.claim(300, 60.0, "w")

        def use(name: str = name) -> None:
            raw = broker.raw(name)
            claims = raw.claim(10, 60.0, "w")
            raw.renew(claims[:5], 60.0)
            raw.settle(claims[:5], [None] * 4 + [1.0])
            raw.admit([(one, new_job("jobs").record) for one in claims[5:]], 60.0)
            raw.peek(10)
            raw.remove(["1500", "none"])
            raw.push([RawItem(param="1700", score=1.0)])
            broker.wait([Wanted(name=name)], 0.01)

        check(explained, use)


# --- round trips ------------------------------------------------------------------------------------


def test_batches_take_a_bounded_number_of_round_trips(broker: MongoBroker, explained: Explained) -> None:
    claim(broker)  # by which the time is known, and that no lease ends
    jobs = [new_job() for _ in range(1000)]
    assert len(check(explained, lambda: broker.enqueue(jobs)).commands) <= 6
    records: list[JobRecord] = []
    assert len(check(explained, lambda: records.extend(claim(broker, limit=1000))).commands) <= 6
    assert len(records) == 1000
    assert len(check(explained, lambda: broker.settle([success(one) for one in records[:800]])).commands) <= 3
    failed = Outcome(status=Status.FAILED, ttl=60.0, exception_type="ValueError")
    outcomes = [Settlement(id=one.id, token=one.token or "", outcome=failed) for one in records[800:]]
    assert len(check(explained, lambda: broker.settle(outcomes)).commands) <= 4
    assert len(check(explained, lambda: broker.get([job.record.id for job in jobs])).commands) <= 4
