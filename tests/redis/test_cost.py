"""What calls cost: commands on the server, which do not grow with the queue, and round trips."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from mrq_broker_redis.broker import RedisBroker
from mrq_broker_redis.jobs import searching
from mrq_broker_redis.server.connection import Connection
from mrq_broker_redis.shared.metrics import READ, RECORDED
from mrq_core.clock import after
from mrq_core.contract.codec import JsonObject
from mrq_core.contract.messages import (
    Cancel,
    ClaimRequest,
    NewJob,
    Outcome,
    RawItem,
    Remove,
    Settlement,
    Wanted,
)
from mrq_core.contract.metrics import Metric, measured
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import JobRecord, Status
from mrq_core.contract.shared_state import Versions
from mrq_core.testing import ManualClock
from tests.redis.kit import Place
from tests.redis.servers import Server
from tests.redis.test_connection import claim, new_job, success
from tests.redis.test_full_server import Filled


def calls(server: Server, work: Callable[[], object]) -> dict[str, int]:
    """How often each command ran while the work was done, those inside of scripts included."""
    with server.client() as client:
        client.config_resetstat()
        work()
        return {name[8:]: int(stats["calls"]) for name, stats in dict(client.info("commandstats")).items()}


def in_all(server: Server, work: Callable[[], object]) -> int:
    """How many commands ran."""
    counted = calls(server, work)
    return sum(
        number for name, number in counted.items() if name not in ("info", "config|resetstat", "config")
    )


def _claim_and_settle(broker: RedisBroker) -> None:
    records = claim(broker, limit=20).records
    assert len(records) == 20
    assert all(broker.settle([success(record) for record in records]))


def test_a_claim_and_a_settle_cost_the_same_however_long_the_queue_is(place: Place, server: Server) -> None:
    broker = place.open()
    numbers = []
    for queued in (100, 10_000):
        broker.enqueue([new_job() for _ in range(queued)])
        broker.enqueue([NewJob(record=new_job().record, delay=1000.0) for _ in range(queued)])
        _claim_and_settle(broker)  # the scripts are there by now
        numbers.append(in_all(server, lambda: _claim_and_settle(broker)))
    assert numbers[0] == numbers[1]
    broker.close()


def test_other_ends_and_other_queues_cost_the_same_too(place: Place, server: Server) -> None:
    broker = place.open()
    raw = broker.raw("urls_timed_set")
    failed = Outcome(status=Status.FAILED, ttl=60.0, exception_type="ValueError")
    wanted = (Wanted(name="tree/"),)

    def some_of_each() -> None:
        records = broker.claim(ClaimRequest(worker="w", wanted=wanted, limit=5, lease=60.0)).records
        assert len(records) == 5
        outcomes = [Settlement(id=one.id, token=one.token or "", outcome=failed) for one in records]
        assert all(broker.settle(outcomes))
        claims = raw.claim(5, 60.0, "w")
        assert raw.settle(claims, [None] * 5) == [True] * 5
        broker.counts(["tree/s", "urls_timed_set"])
        broker.cancel([broker.find(JobFilter(statuses=(Status.QUEUED,)), limit=1).records[0].id], Cancel())

    numbers = []
    for queued in (100, 5000):
        broker.enqueue([new_job("tree/s") for _ in range(queued)])
        raw.push([RawItem(param=f"{queued}-{number}", score=1.0) for number in range(queued)])
        some_of_each()
        numbers.append(in_all(server, some_of_each))
    assert numbers[0] == numbers[1]
    broker.close()


def test_batches_take_a_bounded_number_of_round_trips(place: Place, server: Server) -> None:
    broker = place.open()
    jobs = [new_job() for _ in range(1000)]
    broker.enqueue([new_job("other")])
    assert calls(server, lambda: broker.enqueue(jobs))["evalsha"] == 5
    records: list[JobRecord] = []
    counted = calls(server, lambda: records.extend(claim(broker, limit=1000).records))
    assert (len(records), counted["evalsha"]) == (1000, 1)
    assert calls(server, lambda: broker.settle([success(one) for one in records[:800]]))["evalsha"] == 4
    failed = Outcome(status=Status.FAILED, ttl=60.0, exception_type="ValueError")
    outcomes = [Settlement(id=one.id, token=one.token or "", outcome=failed) for one in records[800:]]
    assert calls(server, lambda: broker.settle(outcomes))["evalsha"] == 4
    assert calls(server, lambda: broker.get([job.record.id for job in jobs]))["evalsha"] == 10
    broker.close()


def test_metrics_are_added_and_read_in_bounded_scripts(place: Place, server: Server) -> None:
    """A hash of more series than one script reads is read in parts, and no series of it twice."""
    broker = place.open()
    now = broker.now()
    series = [(("task", f"t{number}"),) for number in range(2 * READ)]
    metrics = [measured("a", now, tags, [1.0]) for tags in series]
    counted = [calls(server, lambda: broker.record_metrics(metrics[:1000])) for _ in range(2)]
    assert [one["evalsha"] for one in counted] == [2000 // RECORDED] * 2
    for start in range(0, len(metrics), 1000):
        broker.record_metrics(metrics[start : start + 1000])
    read: list[Metric] = []
    span = after(now, -60), after(now, 1)
    counted = [calls(server, lambda: read.extend(broker.read_metrics(["a", "b"], *span)))]
    assert sorted(metric.tags for metric in read) == sorted(series)
    assert 2 <= counted[0]["evalsha"] <= 4
    for number in range(50):
        broker.record_metrics([Metric(name="b", at=after(now, -60.0 * number))])
    span = after(now, -60.0 * 51), after(now, 1)
    counted = [calls(server, lambda: broker.read_metrics(["b"], *span))]
    assert (counted[0]["evalsha"], counted[0]["hscan"]) == (1, 50)
    broker.close()


@pytest.mark.parametrize("search_keys", [{}, {"k": 1}])
def test_a_claim_reads_no_more_suspects_than_it_may_claim(
    place: Place, server: Server, search_keys: JsonObject
) -> None:
    clock = ManualClock()
    broker = place.open(clock)
    records = [replace(new_job().record, search_keys=search_keys) for _ in range(40)]
    broker.enqueue([NewJob(record=record) for record in records])
    assert len(claim(broker, limit=40).records) == 40
    clock.advance(61.0)
    for limit, lost_limit, number in ((3, 5, 3), (5, 3, 3), (5, 0, 0)):
        request = ClaimRequest(
            worker="w", wanted=(Wanted(name="q"),), limit=limit, lease=60.0, lost_limit=lost_limit
        )
        taken: list[JobRecord] = []
        counted = calls(server, lambda: taken.extend(broker.claim(request).records))  # noqa: B023
        assert len(taken) == number
        assert counted.get("get", 0) <= 2 * number  # to read and to write
    broker.close()


def test_no_call_looks_through_all_keys(place: Place, server: Server) -> None:
    broker = place.open()

    def everything() -> None:
        for change in Filled(broker).calls.values():
            change()
        broker.wait([Wanted(name="q"), Wanted(name="tree/"), Wanted(name="urls_timed_set")], 0.01)
        [record, *_] = broker.find(JobFilter()).records
        broker.count(JobFilter(paths=("t.Task",), params={"a": 1}), "status")
        broker.apply(JobFilter(statuses=(Status.FAILED,)), Remove())
        broker.get([record.id])
        broker.totals()
        broker.counts(["q", "urls_timed_set"])
        broker.queue_names("q")
        broker.poll("w", Versions())
        broker.resume(["q"])
        broker.paused()
        broker.read_logs(record.id)
        broker.record_metrics([Metric(name="jobs", at=record.queued_at)])
        broker.read_metrics(["jobs"], record.queued_at, after(record.queued_at, 60.0))
        broker.prune()
        broker.check()
        broker.state.compare_and_set("n", "a", 2, version=0)
        broker.state.list("n")
        broker.state.delete("n", ["a"])
        for name in ("a_raw", "b_set", "c_sorted_set", "d_timed_set"):
            raw = broker.raw(name)
            raw.push([RawItem(param=param, score=1.0 if "sorted" in name else None) for param in "xyz"])
            raw.peek(2)
            raw.size()
            raw.histogram(0.0, 10.0, 5)
            raw.renew(raw.claim(1, 60.0, "w"), 60.0)
            raw.remove(["z"])

    counted = calls(server, everything)
    assert counted["evalsha"] > 40
    assert not {"keys", "scan", "sort", "flushdb", "randomkey"} & counted.keys()
    broker.close()


def test_a_tree_that_does_not_exist_is_answered_from_the_names_of_queues(
    place: Place, server: Server
) -> None:
    broker = place.open()
    for start in range(0, 3000, 1000):
        broker.enqueue([new_job(f"t/{number % 80}") for number in range(start, start + 1000)])
    missing = JobFilter(queues=("none/",), statuses=(Status.QUEUED,), params={"a": 1})
    broker.find(missing)  # the scripts are there by now
    assert in_all(server, lambda: broker.find(missing)) <= 4
    assert in_all(server, lambda: broker.count(missing, "path")) <= 4
    assert broker.find(missing).cursor is None
    assert broker.count(missing).is_complete
    broker.close()


def test_a_search_whose_round_trips_take_long_reads_fewer_jobs_in_each(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The params of 500 jobs may be large: a search stops between two round trips only."""
    broker = place.open()
    broker.enqueue([new_job() for _ in range(200)])
    times = itertools.count(step=2 * searching.SLOW)
    monkeypatch.setattr(searching, "MAX_SECONDS", 1e9)
    sizes: list[int] = []
    run = type(broker._connection).run

    def measured_run(self: Connection, name: str, arguments: Any = (), **more: Any) -> Any:
        if name == "columns":
            sizes.append(len(arguments[0]))
        return run(self, name, arguments, **more)

    monkeypatch.setattr(type(broker._connection), "run", measured_run)
    wanted = JobFilter(params={"no": "match"})
    assert broker.count(wanted).number == 0
    assert sizes == [50, 100, 50], "a fast server"
    sizes.clear()
    monkeypatch.setattr(searching, "monotonic", lambda: next(times))
    assert broker.count(wanted).number == 0
    assert sizes[:4] == [50, 25, 12, 10]
    assert sum(sizes) == 200
    broker.close()
