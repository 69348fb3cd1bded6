"""Bulk actions: each job is changed once, whatever dies between two steps, and counts say what they know."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
from msgspec.structs import replace

from mrq_core.clock import after
from mrq_core.contract.broker import Broker
from mrq_core.contract.codec import JsonObject
from mrq_core.contract.messages import Applied, Cancel, ChangeResult, Move, Remove, Requeue
from mrq_core.contract.queries import JobFilter, Order
from mrq_core.contract.record import JobRecord, Status
from mrq_core.errors import BrokerUnavailable, InvalidValue
from mrq_core.operations.actions import Change, SetPriority
from mrq_core.operations.bulk import bulk_actions as module
from mrq_core.operations.bulk import bulk_changes, bulk_runner, bulk_steps
from mrq_core.operations.bulk.bulk_actions import (
    Bulk,
    BulkStatus,
    Held,
    StoredChange,
    begin_bulk,
    bulk_words,
    list_bulks,
    read_bulk,
    stop_bulk,
)
from mrq_core.operations.bulk.bulk_changes import bounded, change_if_few
from mrq_core.operations.bulk.bulk_runner import BulkRunner
from mrq_core.operations.bulk.bulk_steps import Lost, advance, release, take_over
from mrq_core.operations.queries.query import parse_query
from mrq_core.operations.task_descriptions import publish_task
from mrq_core.tasks.describing import TaskDescription
from mrq_core.testing import MemoryBroker
from tests.dashboard import scenes
from tests.support import until

STEP = 10
"""The size of a step in these tests."""


@pytest.fixture(autouse=True, params=[100, 4], ids=["whole", "halves"])
def small_steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small steps, in one call and in two at once."""
    monkeypatch.setattr(bulk_steps, "CHUNK", STEP)
    monkeypatch.setattr(bulk_changes, "CHUNK", STEP)
    monkeypatch.setattr(bulk_changes, "_SMALL", request.param)


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


def put_failed(broker: Broker, number: int, queue: str = "mail") -> list[str]:
    ids = [scenes.put(broker, queue) for _ in range(number)]
    records: list[JobRecord] = []
    while taken := scenes.take(broker, queue, number):
        records += taken
    scenes.fail(broker, records)
    return ids


def begin(broker: Broker, text: str = "status:failed", change: Change | None = None) -> Bulk:
    query = bounded(broker, parse_query(broker, text))
    number = sum(broker.count(query.filter).numbers.values())
    return begin_bulk(broker, query, change or Requeue(), "anna", expected=number, is_counted=True)


def to_end(broker: Broker, held: Held) -> Bulk:
    while held.bulk.is_running:
        held = advance(broker, held)
    return held.bulk


def statuses(broker: Broker) -> dict[str, int]:
    return broker.count(JobFilter(), "status").numbers


def forget_lease(broker: Broker, bulk_id: str) -> None:
    """What the clock does after LEASE seconds."""
    [stored] = [item for item in broker.state.list(module.BULK_NAMESPACE) if item.name == bulk_id]
    assert isinstance(stored.value, dict)
    value = {**stored.value, "lease_until": after(broker.now(), -1.0).isoformat()}
    broker.state.put(module.BULK_NAMESPACE, bulk_id, value)


CHANGES = [
    (Requeue(), "status:failed", {"queued": 35}),
    (Requeue(queue="again"), "status:failed", {"queued": 35}),
    (Cancel(), "queue:mail", {"cancel": 35}),
    (Remove(), "status:failed", {}),
]


@pytest.mark.parametrize(("change", "text", "after_it"), CHANGES, ids=str)
def test_all_jobs_of_a_query_are_changed_in_steps(
    broker: MemoryBroker, change: Change, text: str, after_it: dict[str, int]
) -> None:
    put_failed(broker, 35)
    begun = begin(broker, text, change)
    assert (begun.expected, begun.handled, begun.share) == (35, 0, 0.0)
    [held] = take_over(broker, "me")
    ended = to_end(broker, held)
    assert (ended.status, ended.share) == (BulkStatus.DONE, 1.0)
    assert ended.counts == Counter({ChangeResult.DONE: 35})
    assert ended.unsure == 0
    assert statuses(broker) == after_it
    assert read_bulk(broker, begun.id) == ended


def test_a_broker_whose_time_ends_within_a_step_leaves_no_job_out(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply = MemoryBroker.apply

    def slow(self: MemoryBroker, wanted: JobFilter, action: Any, **options: Any) -> Applied:
        return apply(self, wanted, action, **{**options, "limit": 3})

    monkeypatch.setattr(MemoryBroker, "apply", slow)
    for _ in range(25):
        scenes.put(broker, "slow")
    query = bounded(broker, parse_query(broker, "queue:slow"))
    begin_bulk(broker, query, Remove(), "anna", expected=25, is_counted=True)
    [held] = take_over(broker, "me")
    while held.bulk.is_running:
        held = advance(broker, held)
    assert held.bulk.changes == {"done": 25}
    assert broker.counts(["slow"])[0].waiting == 0


def test_a_move_and_a_priority_are_changes_of_waiting_jobs(broker: MemoryBroker) -> None:
    for _ in range(25):
        scenes.put(broker, "mail")
    put_failed(broker, 3, "other")
    for change in (Move(queue="fast"), SetPriority(priority=3)):
        text = "queue:mail,other" if isinstance(change, Move) else "queue:fast,other"
        begin(broker, text, change)
        [held] = take_over(broker, "me")
        assert to_end(broker, held).counts == Counter({ChangeResult.DONE: 25, ChangeResult.REFUSED: 3})
    records = broker.find(JobFilter(queues=("fast",)), limit=100).records
    assert [record.priority for record in records] == [3] * 25


def test_jobs_that_were_queued_later_are_left_alone(broker: MemoryBroker) -> None:
    for _ in range(25):
        scenes.put(broker, "mail")
    begin(broker, "queue:mail", Cancel())
    for _ in range(25):
        scenes.put(broker, "mail")
    [held] = take_over(broker, "me")
    assert to_end(broker, held).counts == Counter({ChangeResult.DONE: 25})
    assert statuses(broker) == {"cancel": 25, "queued": 25}


def test_jobs_that_the_first_run_of_a_step_may_have_moved_are_not_counted_as_there(
    broker: MemoryBroker,
) -> None:
    for _ in range(25):
        scenes.put(broker, "mail")
    scenes.put(broker, "fast")
    begun = begin(broker, "queue:mail,fast", Move(queue="fast"))
    [held] = take_over(broker, "dead")
    held = advance(broker, held)
    advance(broker, held)  # its answer is lost with the process
    forget_lease(broker, begun.id)
    [again] = take_over(broker, "me")
    ended = to_end(broker, again)
    assert ended.counts == Counter({ChangeResult.DONE: 15, ChangeResult.UNCHANGED: 1})
    assert ended.unsure == 10


def test_a_job_that_fails_again_is_not_requeued_again(broker: MemoryBroker) -> None:
    """The process dies after a step and before it is counted; the jobs run and fail; the step is repeated."""
    ids = put_failed(broker, 25)
    begun = begin(broker)
    [held] = take_over(broker, "dead")
    held = advance(broker, held)
    advance(broker, held)  # its answer is lost with the process
    scenes.fail(broker, scenes.take(broker, "mail", 100))
    assert statuses(broker) == {"failed": 25}
    forget_lease(broker, begun.id)
    [again] = take_over(broker, "me")
    ended = to_end(broker, again)
    claims = Counter(record.claims for record in broker.get(ids) if record is not None)
    assert claims == Counter({2: 20, 1: 5}) - Counter()
    queued = [record for record in broker.get(ids) if record is not None and record.status is Status.QUEUED]
    assert len(queued) == 5
    assert ended.counts == Counter({ChangeResult.DONE: 15})
    assert ended.unsure == 10
    assert bulk_words(ended).startswith("at least 15 jobs requeued; ")
    assert "up to 10 more" in bulk_words(ended)


def test_a_step_that_died_halfway_is_completed_and_counted_as_far_as_is_known(broker: MemoryBroker) -> None:
    put_failed(broker, 30)
    begun = begin(broker)
    [held] = take_over(broker, "dead")
    held = advance(broker, held)

    class Dies(Exception):
        pass

    class Half:
        """Changes four jobs of the step, and dies."""

        def __getattr__(self, name: str) -> Any:
            return getattr(broker, name)

        def apply(self, wanted: JobFilter, action: Requeue, *, limit: int, cursor: str | None) -> Applied:
            broker.apply(replace(wanted, ids=wanted.ids[:4]), action, limit=4)
            raise Dies

    with pytest.raises(Dies):
        advance(Half(), held)  # type: ignore[arg-type]
    assert statuses(broker) == {"queued": 14, "failed": 16}
    forget_lease(broker, begun.id)
    [again] = take_over(broker, "me")
    ended = to_end(broker, again)
    assert statuses(broker) == {"queued": 30}
    assert (ended.counts[ChangeResult.DONE], ended.unsure) == (26, 4)
    assert ended.handled == ended.expected


def test_a_repeated_step_does_not_count_its_own_changes_as_refusals(broker: MemoryBroker) -> None:
    put_failed(broker, 12)
    begun = begin(broker, "queue:mail", Cancel())
    [held] = take_over(broker, "dead")
    advance(broker, held)
    forget_lease(broker, begun.id)
    [again] = take_over(broker, "me")
    ended = to_end(broker, again)
    assert (ended.counts, ended.unsure) == (Counter({ChangeResult.DONE: 2}), STEP)


@pytest.mark.parametrize("at_call", range(1, 30, 2))
def test_an_outage_at_any_call_changes_nothing_twice(
    broker: MemoryBroker, at_call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call may fail after it was done."""
    ids = put_failed(broker, 35)
    begin(broker)
    calls = iter(range(1, 10_000))
    requeued: Counter[str] = Counter()

    class Away:
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            found = getattr(self._inner, name)
            if name == "state":
                return Away(found)

            def call(*args: Any, **more: Any) -> Any:
                answer = found(*args, **more)
                if name == "apply":
                    requeued.update(args[0].ids)
                if next(calls) == at_call:
                    raise BrokerUnavailable("away")
                return answer

            return call

    monkeypatch.setattr(bulk_runner, "_WAIT_FIRST", 0.01)
    away: Any = Away(broker)
    runner = BulkRunner(lambda: away)
    runner.wake()
    until(lambda: not list_bulks(broker)[0].is_running)
    runner.stop()
    [ended] = list_bulks(broker)
    assert ended.status is BulkStatus.DONE
    assert statuses(broker) == {"queued": 35}
    assert ended.counts[ChangeResult.DONE] + ended.unsure == 35
    assert {record.claims for record in broker.get(ids) if record is not None} == {1}


# --- owners -------------------------------------------------------------------------------------------


def test_one_process_owns_a_bulk_until_its_lease_is_over(broker: MemoryBroker) -> None:
    put_failed(broker, 25)
    begun = begin(broker)
    [first] = take_over(broker, "first")
    assert take_over(broker, "second") == []
    forget_lease(broker, begun.id)
    [second] = take_over(broker, "second")
    with pytest.raises(Lost):
        advance(broker, first)
    assert statuses(broker) == {"failed": 25}
    assert to_end(broker, second).counts == Counter({ChangeResult.DONE: 25})
    with pytest.raises(Lost):
        advance(broker, first)


def test_an_owner_that_stops_gives_its_bulk_back_with_exact_counts(broker: MemoryBroker) -> None:
    put_failed(broker, 25)
    begin(broker)
    [first] = take_over(broker, "first")
    release(broker, advance(broker, first))
    [second] = take_over(broker, "second")
    ended = to_end(broker, second)
    assert (ended.counts, ended.unsure) == (Counter({ChangeResult.DONE: 25}), 0)


def test_two_runners_share_several_bulks(broker: MemoryBroker) -> None:
    queues = [f"q{number}" for number in range(6)]
    for queue in queues:
        put_failed(broker, 45, queue)
        begin(broker, f"queue:{queue} status:failed")
    ended: list[str] = []
    runners = [BulkRunner(lambda: broker, lambda bulk: ended.append(bulk.id)) for _ in range(2)]
    for runner in runners:
        runner.wake()
    until(lambda: all(not bulk.is_running for bulk in list_bulks(broker)))
    for runner in runners:
        runner.stop()
    assert statuses(broker) == {"queued": 45 * len(queues)}
    assert {(bulk.handled, bulk.unsure) for bulk in list_bulks(broker)} == {(45, 0)}
    assert sorted(ended) == sorted(bulk.id for bulk in list_bulks(broker))


# --- stopping and failing -----------------------------------------------------------------------------


def test_a_stop_ends_it_after_the_step(broker: MemoryBroker) -> None:
    put_failed(broker, 35)
    begun = begin(broker)
    [held] = take_over(broker, "me")
    held = advance(broker, held)
    stopping = stop_bulk(broker, begun.id, "ben")
    assert stopping is not None
    assert stopping.stop_by == "ben"
    ended = advance(broker, held).bulk
    assert (ended.status, ended.handled, ended.stop_by) == (BulkStatus.STOPPED, 10, "ben")
    assert statuses(broker) == {"queued": 10, "failed": 25}
    assert stop_bulk(broker, begun.id, "carl") == ended
    assert stop_bulk(broker, "0" * 24, "ben") is None


def test_a_bulk_that_no_process_owns_is_stopped_when_one_takes_it(broker: MemoryBroker) -> None:
    put_failed(broker, 15)
    begun = begin(broker)
    stop_bulk(broker, begun.id, "ben")
    [held] = take_over(broker, "me")
    assert advance(broker, held).bulk.status is BulkStatus.STOPPED
    assert statuses(broker) == {"failed": 15}


def test_an_error_that_would_come_again_ends_it(broker: MemoryBroker) -> None:
    put_failed(broker, 15)
    begun = begin(broker)
    stored = broker.state.get(module.BULK_NAMESPACE, begun.id)
    assert stored is not None
    newer = replace(begun, change=StoredChange(verb="shred"))
    broker.state.put(module.BULK_NAMESPACE, begun.id, module._stored(newer))
    runner = BulkRunner(lambda: broker)
    runner.wake()
    until(lambda: not list_bulks(broker)[0].is_running)
    runner.stop()
    [ended] = list_bulks(broker)
    assert ended.status is BulkStatus.FAILED
    assert "shred" in (ended.error or "")


# --- few jobs, queries with conditions, bounds --------------------------------------------------------


def test_few_jobs_are_changed_at_once(broker: MemoryBroker) -> None:
    put_failed(broker, STEP)
    query = bounded(broker, parse_query(broker, "status:failed"))
    assert change_if_few(broker, query, Requeue()) == Counter({ChangeResult.DONE: STEP})
    put_failed(broker, STEP + 1, "other")
    query = bounded(broker, parse_query(broker, "status:failed"))
    assert change_if_few(broker, query, Requeue()) is None
    assert statuses(broker)["failed"] == STEP + 1


def test_conditions_that_no_index_serves_are_obeyed(broker: MemoryBroker) -> None:
    wanted = [scenes.put(broker, "mail", params={"order": {"id": number % 2}}) for number in range(50)]
    begin(broker, "params.order.id:1", Cancel())
    [held] = take_over(broker, "me")
    assert to_end(broker, held).counts == Counter({ChangeResult.DONE: 25})
    cancelled = broker.find(JobFilter(statuses=(Status.CANCEL,)), order=Order.OLDEST_FIRST, limit=50).records
    assert [record.id for record in cancelled] == wanted[1::2]


def test_too_many_and_too_large_ones_are_refused(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_RUNNING", 1)
    begin(broker)
    with pytest.raises(InvalidValue, match="are running"):
        begin(broker)
    query = parse_query(broker, "status:failed")
    large = replace(query, filter=JobFilter(paths=tuple(f"a.b{number}" for number in range(5000))))
    with pytest.raises(InvalidValue, match="name fewer"):
        begin_bulk(broker, large, Requeue(), "anna", expected=0, is_counted=True)


def test_the_oldest_ended_ones_are_forgotten(broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ENDED", 2)
    begun = []
    for _ in range(4):
        begun.append(begin(broker).id)
        to_end(broker, take_over(broker, "me")[0])
    assert [bulk.id for bulk in list_bulks(broker)] == begun[:1:-1]


def test_a_runner_starts_its_thread_when_it_is_needed(broker: MemoryBroker) -> None:
    before = threading.active_count()
    runner = BulkRunner(lambda: broker)
    assert threading.active_count() == before
    runner.wake()
    assert threading.active_count() == before + 1
    runner.stop()
    runner.wake()
    assert threading.active_count() == before


def test_a_bulk_cancel_keeps_each_job_as_long_as_its_task_says(broker: MemoryBroker) -> None:
    options: JsonObject = {"cancel_ttl": 5.0}
    publish_task(broker, TaskDescription(path="a.Short", file="x", options=options, version="1"))
    ids = [scenes.put(broker, "mail", path) for _ in range(STEP) for path in ("a.Short", "a.Long")]
    begin(broker, "queue:mail", Cancel(ttl=60.0))
    [held] = take_over(broker, "one")
    assert to_end(broker, held).counts == {ChangeResult.DONE: 2 * STEP}
    kept = {
        (one.path, (one.expires_at - one.ended_at).total_seconds())
        for one in broker.get(ids)
        if one is not None and one.expires_at is not None and one.ended_at is not None
    }
    assert kept == {("a.Short", 5.0), ("a.Long", 60.0)}
