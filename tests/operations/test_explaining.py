"""Why a job or a queue is not running: a test for each reason, on each broker."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from mrq_broker_mongo.broker import MongoBroker
from mrq_broker_mongo.jobs import effects
from mrq_broker_mongo.store import MongoStore
from mrq_core import failpoints
from mrq_core.client.client import Client
from mrq_core.composed import ComposedBroker
from mrq_core.composed import broker as composed_broker
from mrq_core.config.settings import Config
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import (
    Cancel,
    ClaimRequest,
    Limit,
    NewJob,
    Outcome,
    RawItem,
    Settlement,
    Wanted,
)
from mrq_core.contract.queries import JobFilter, QueuePosition
from mrq_core.contract.record import JobRecord, Status
from mrq_core.contract.rules import PAUSED_QUEUES
from mrq_core.errors import InvalidValue, JobNotFound
from mrq_core.ids import new_id
from mrq_core.operations.explaining.explaining import explain, explain_job, explain_queue
from mrq_core.operations.explaining.reasons import ReasonKind
from mrq_core.operations.limits import set_limit
from mrq_core.operations.queries.filters import worker_queues_from
from mrq_core.operations.statistics import queue_statistics
from mrq_core.operations.views import iso
from mrq_core.operations.workers import WORKERS_NAMESPACE, RunningJob, WorkerReport, report_to_json
from tests import brokers
from tests.support import until

KEYS = ("api:x y",)
ONE = {"api": Limit(concurrency=1)}
ODD = ["a;b", "ü", "it's", "x" * 200, "-v", "$(id)", " lead ", "a,b", '"x"', "'"]


@pytest.fixture(params=brokers.PARAMS)
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Client]:
    address = brokers.address_of(request.param, tmp_path)
    made = Client(Config(broker=address.broker, store=address.store))
    made.broker.prepare()
    yield made
    made.close()


@pytest.fixture
def broker(client: Client) -> Broker:
    return client.broker


def put(broker: Broker, queue: str = "q", *, delay: float | None = None, **fields: Any) -> str:
    now = broker.now()
    values = {"path": "some.Task", "params": {}, "queued_at": now, "updated_at": now, **fields}
    record = JobRecord(id=new_id(), queue=queue, **values)
    [answer] = broker.enqueue([NewJob(record=record, delay=delay)])
    return answer.id


def take(broker: Broker, queue: str = "q", *, lease: float = 60.0, **more: Any) -> JobRecord:
    request = ClaimRequest(worker="w1", wanted=(Wanted(name=queue),), limit=1, lease=lease, **more)
    [record] = broker.claim(request).records
    return record


def take_none(broker: Broker, **more: Any) -> None:
    request = ClaimRequest(worker="w1", wanted=(Wanted(name="q"),), limit=5, lease=60.0, **more)
    assert broker.claim(request).records == ()


def settle(broker: Broker, record: JobRecord, status: Status, **outcome: Any) -> None:
    end = Outcome(status=status, **outcome)
    assert broker.settle([Settlement(id=record.id, token=record.token or "", outcome=end)]) == [True]


def listen(
    broker: Broker,
    *queues: str,
    name: str = "w1",
    status: str = "wait",
    running: int = 0,
    denied: tuple[str, ...] = (),
) -> None:
    now = datetime.now(UTC)
    report = WorkerReport(
        name=name,
        host="h",
        pid=1,
        status=status,
        queues=queues,
        denied_tasks=denied,
        greenlets=2,
        started_at=now,
        reported_at=now,
        jobs={},
        running=tuple(RunningJob(id=new_id(), path="p", started_at=now) for _ in range(running)),
        unsettled=0,
        memory=1,
        cpu_time=0.0,
        version="1",
    )
    broker.state.put(WORKERS_NAMESPACE, name, report_to_json(report))


def kinds(reasons: list[Any]) -> list[str]:
    return [str(reason.kind) for reason in reasons]


# --- jobs -------------------------------------------------------------------------------------------


def test_nothing_holds_a_due_job_back(broker: Broker) -> None:
    listen(broker, "a", "q")
    [reason] = explain_job(broker, put(broker))
    assert reason.kind is ReasonKind.NEXT
    assert reason.sentence.endswith("the next claim from the queue q takes it. w1 claims from this queue.")


def test_no_worker_claims_from_its_queue(broker: Broker) -> None:
    job_id = put(broker)
    [reason] = explain_job(broker, job_id)
    assert reason.kind is ReasonKind.NO_WORKER
    assert reason.sentence == "No worker claims from the queue q. No worker has reported lately."
    assert reason.command == "mrq worker q"
    listen(broker, "other", "more/")
    listen(broker, "q", name="w2", status="join")
    [reason] = explain_job(broker, job_id)
    assert reason.sentence == (
        "No worker claims from the queue q. 1 worker claims from more/, other. w2 is stopping."
    )


def test_stopped_and_dead_workers_claim_nothing(broker: Broker) -> None:
    job_id = put(broker)
    listen(broker, "q", status="stop")
    [reason] = explain_job(broker, job_id)
    assert (reason.kind, reason.sentence) == (
        ReasonKind.NO_WORKER, "No worker claims from the queue q. All workers have stopped."
    )  # fmt: skip
    listen(broker, "q", name="w2", status="dead")
    [reason] = explain_job(broker, job_id)
    assert reason.sentence == "No worker claims from the queue q. w2 is dead."
    assert queue_statistics(broker, ["q"])[0].workers == 0


def test_its_queue_or_a_tree_around_it_is_paused(broker: Broker) -> None:
    listen(broker, "t/")
    job_id = put(broker, "t/x/y")
    broker.pause(["t/x/", "t/x/y", "other"])
    since = broker.now() - timedelta(minutes=3)
    broker.state.put(PAUSED_QUEUES, "t/x/", {"since": round(since.timestamp() * 1000)})
    tree, queue = explain_job(broker, job_id)
    assert (tree.kind, queue.kind) == (ReasonKind.PAUSED, ReasonKind.PAUSED)
    assert tree.sentence.startswith("The queue t/x/y has been paused for 3 min (")
    assert tree.sentence.endswith("), as a part of the tree t/x/.")
    assert tree.command == "mrq queues resume t/x/"
    assert queue.sentence.startswith("The queue t/x/y has been paused for ")
    assert queue.command == "mrq queues resume t/x/y"
    broker.resume(["t/x/", "t/x/y"])
    assert kinds(explain_job(broker, job_id)) == ["next"]


def test_its_task_is_paused(broker: Broker) -> None:
    listen(broker, "q")
    first, second = put(broker, path="t.A"), put(broker, path="t.A")
    other = put(broker)
    broker.pause_tasks(["t.A"], broker.now() + timedelta(hours=1))
    end = broker.rules().tasks["t.A"].until
    waiting, *_ = explain_job(broker, first)
    assert waiting.kind is ReasonKind.TASK_PAUSED
    assert waiting.sentence.startswith("The task t.A has been paused for ")
    assert waiting.sentence.endswith(f"), until {iso(end)}.")
    assert waiting.command == "mrq tasks resume t.A"
    assert take(broker, paused_tasks=frozenset({"t.A"})).id == other
    [parked] = explain_job(broker, second)
    assert (parked.kind, parked.command) == (ReasonKind.TASK_PAUSED, "mrq tasks resume t.A")
    [reason] = explain_queue(broker, "q")[1:]
    assert reason.kind is ReasonKind.TASK_PAUSED
    assert reason.sentence.endswith(f". 2 jobs are parked, such as {first}.")
    broker.resume_tasks(["t.A"])
    [reason] = explain_job(broker, second)
    assert (reason.kind, reason.command) == (ReasonKind.TASK_PAUSED, None)
    assert reason.sentence == (
        "It is parked because its task t.A was paused. The pause has ended: "
        "one of the next claims lets it go."
    )


def test_a_stored_rule_lets_no_job_run(broker: Broker) -> None:
    listen(broker, "q")
    job_id = put(broker, limit_keys=KEYS)
    set_limit(broker, "api", concurrency=0)
    take_none(broker, limits=broker.rules().limits)
    [reason] = explain_job(broker, job_id)
    assert reason.kind is ReasonKind.LIMIT
    assert reason.sentence.endswith(". The rule api lets no job run.")
    assert reason.command == "mrq limits set api --concurrency 1"


def test_it_is_due_later(broker: Broker) -> None:
    listen(broker, "q")
    job_id = put(broker, delay=8000.0)
    [reason] = explain_job(broker, job_id)
    assert reason.kind is ReasonKind.DUE_LATER
    assert reason.sentence.startswith("It is due in 2 h (20")
    assert reason.command == f"mrq jobs edit {job_id} --in 0"


def test_it_waits_for_its_retry(broker: Broker) -> None:
    listen(broker, "q")
    put(broker)
    record = take(broker)
    settle(broker, record, Status.RETRY, delay=600.0, is_retry=True, exception_type="a.Broken")
    [reason] = explain_job(broker, record.id)
    assert reason.sentence.endswith(", for its retry 1 after a.Broken.")
    put(broker)
    record = take(broker)
    settle(broker, record, Status.INTERRUPT, delay=600.0)
    reason, behind = explain_job(broker, record.id)
    assert (reason.kind, behind.kind) == (ReasonKind.DUE_LATER, ReasonKind.BEHIND)
    assert reason.sentence.endswith(", after its attempt was interrupted.")


def test_it_is_behind_other_jobs(broker: Broker) -> None:
    listen(broker, "q")
    put(broker, priority=4)
    second, third = put(broker), put(broker, priority=4, delay=1e6)
    [reason] = explain_job(broker, second)
    assert reason.kind is ReasonKind.BEHIND
    assert reason.sentence == "It is behind 1 other job of the queue q."
    assert reason.command == f"mrq jobs edit {second} --priority 4"
    put(broker, priority=4)
    assert explain_job(broker, second)[0].sentence == "It is behind 2 other jobs of the queue q."
    assert kinds(explain_job(broker, third)) == ["due_later", "behind"]
    assert explain_job(broker, third)[1].command is None


def test_its_workers_have_no_free_greenlet(broker: Broker) -> None:
    listen(broker, "q", running=2)
    listen(broker, "t/", "q", name="w2", status="full")
    job_id = put(broker)
    [reason] = explain_job(broker, job_id)
    assert reason.kind is ReasonKind.WORKERS_FULL
    assert reason.sentence.startswith("All 2 workers of the queue q have no free greenlet: w1, w2, 4 ")
    listen(broker, "q", running=1)
    assert kinds(explain_job(broker, job_id)) == ["next"]


def test_all_workers_of_its_queue_leave_out_its_task(broker: Broker) -> None:
    job_id, other = put(broker), put(broker, path="other.Task", delay=60.0)
    listen(broker, "q", denied=("some.Task", "x.Y"))
    [reason] = explain_job(broker, job_id)
    assert reason.kind is ReasonKind.DENIED
    assert reason.sentence == (
        "The worker that claims from the queue q leaves out jobs of the task some.Task, by "
        "its ALLOW_TASKS or DENY_TASKS: w1."
    )
    assert reason.command == "mrq worker q"
    assert kinds(explain_job(broker, other)) == ["due_later", "behind"]
    listen(broker, "other", name="w0")
    listen(broker, "q", name="w2", denied=("some.Task",), running=2)
    [reason] = explain_job(broker, job_id)
    assert reason.sentence.startswith("Each of the 2 workers that claim from the queue q leaves out")
    assert kinds(explain_queue(broker, "q")) == ["denied"]
    listen(broker, "q", name="w3", running=2)
    [reason] = explain_job(broker, job_id)
    assert reason.kind is ReasonKind.WORKERS_FULL, "the free worker leaves out the task"
    assert "w3, 2 greenlets" in reason.sentence
    listen(broker, "q", name="w3")
    assert kinds(explain_job(broker, job_id)) == ["next"]
    assert kinds(explain_queue(broker, "q")) == ["next"]


def test_a_follow_up_that_a_crash_has_left_in_its_parent(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite and Redis enqueue follow-ups together with the outcome."""
    broker = client.broker
    parent = put(broker)
    record = take(broker)
    now = broker.now()
    child = JobRecord(id=new_id(), path="next.Task", params={}, queue="q", queued_at=now, updated_at=now)
    outcome = Outcome(status=Status.SUCCESS, ttl=1e6, followups=(NewJob(record=child),))

    class Crash(Exception):
        pass

    def crash(*arguments: object) -> None:
        raise Crash

    def crash_at(point: str) -> None:
        if point == "composed.followups":
            raise Crash

    with monkeypatch.context() as patch, contextlib.suppress(Crash):
        patch.setattr(effects, "finish", crash)
        patch.setattr(failpoints, "hook", crash_at)
        broker.settle([Settlement(id=parent, token=record.token or "", outcome=outcome)])
    left = broker._store if isinstance(broker, ComposedBroker) else broker
    if not isinstance(left, MongoBroker | MongoStore):
        [waiting] = broker.find(JobFilter(paths=("next.Task",))).records
        assert kinds(explain(broker, waiting.id)) == ["no_worker"]
        assert broker.parent_of(waiting.id) is None
        return
    [job_id] = _stored_followups(left)
    [reason] = explain(broker, job_id)
    assert reason.kind is ReasonKind.PARENT
    assert reason.sentence.startswith(f"It is a follow-up of the job {parent}, which has ended as success, ")
    assert reason.command == "mrq check --repair"
    assert broker.parent_of(parent) is None
    with pytest.raises(JobNotFound):
        explain(broker, new_id())
    monkeypatch.setattr(effects, "_UNFINISHED", timedelta(0))
    monkeypatch.setattr(composed_broker, "_UNFINISHED", timedelta(seconds=-1))
    broker.prune()
    assert kinds(explain(broker, job_id)) == ["no_worker"]


def _stored_followups(broker: MongoBroker | MongoStore) -> list[str]:
    found = broker._connection.run("jobs", lambda jobs: list(jobs.find({"followups": {"$exists": True}})))
    return [str(one["_id"]) for doc in found for one in doc["followups"]]


def test_it_is_parked_under_a_limit(broker: Broker) -> None:
    listen(broker, "q")
    first, second, third = [put(broker, limit_keys=("free", *KEYS)) for _ in range(3)]
    set_limit(broker, "api", concurrency=1)
    running = take(broker, limits=ONE)
    take_none(broker, limits=ONE)
    assert running.id == first
    [reason] = explain_job(broker, third)
    assert reason.kind is ReasonKind.LIMIT
    assert reason.sentence.startswith("It is parked under the limit api:x y for ")
    assert reason.sentence.endswith(
        f", behind 1 other. The limit has no room beside 1 job that runs: {first}."
    )
    assert reason.command == f"mrq jobs cancel {first} --interrupt"
    [reason] = explain_job(broker, second)
    assert "behind" not in reason.sentence
    [reason] = explain_queue(broker, "q")[1:]
    assert reason.sentence == (
        f"2 jobs are parked under the limit api:x y, such as {second}. Jobs that run under it: {first}."
    )


def test_its_rate_lets_it_start_later(broker: Broker) -> None:
    listen(broker, "q")
    slow = {"api": Limit(rate=1, per=50.0), "other": Limit(concurrency=2)}
    set_limit(broker, "api", rate=1, per=50.0)
    set_limit(broker, "other", concurrency=2)
    put(broker, limit_keys=(*KEYS, "other"))
    second = put(broker, limit_keys=(*KEYS, "other"))
    take(broker, limits=slow)
    take_none(broker, limits=slow)
    [reason] = explain_job(broker, second)
    assert reason.kind is ReasonKind.RATE
    assert reason.sentence.startswith("The rate of its limit api:x y lets it start in 50 s (")
    assert reason.command is None
    set_limit(broker, "api", concurrency=3)
    [reason] = explain_job(broker, second)
    assert reason.kind is ReasonKind.RATE
    assert reason.sentence.startswith("It starts in 50 s (")
    assert reason.sentence.endswith(
        "): an earlier rule of its limit, which has changed since, gave it this time."
    )
    assert reason.command == f"mrq jobs edit {second} --in 0"


def test_its_rate_parks_it_behind_others(broker: Broker) -> None:
    listen(broker, "q")
    slow = {"api": Limit(rate=1, per=600.0)}
    set_limit(broker, "api", rate=1, per=600.0)
    first, second, third, fourth = (put(broker, limit_keys=KEYS) for _ in range(4))
    take(broker, limits=slow)
    take_none(broker, limits=slow)
    for job_id, before, start in (
        (second, "It is the next parked job to start", "10 min"),
        (third, "1 parked job starts before it", "20 min"),
        (fourth, "2 parked jobs start before it", "30 min"),
    ):
        [reason] = explain_job(broker, job_id)
        assert reason.kind is ReasonKind.RATE
        assert reason.sentence.startswith("It is parked under the limit api:x y for ")
        assert f". The rate of the limit is 1 job per 10 min. {before}, and the rate" in reason.sentence
        assert f" lets it start about in {start} (" in reason.sentence
        assert reason.command == "mrq limits set api --rate 2 --per 600s"
    [reason] = explain_queue(broker, "q")[1:]
    assert reason.sentence == (
        f"3 jobs are parked under the limit api:x y, such as {second}. Jobs that run under it: {first}. "
        "Its rate is 1 job per 10 min."
    )
    set_limit(broker, "api", concurrency=1, rate=1, per=600.0)
    [reason] = explain_job(broker, second)
    assert reason.kind is ReasonKind.LIMIT
    assert reason.sentence.endswith(f"The limit has no room beside 1 job that runs: {first}.")
    set_limit(broker, "api", concurrency=5, rate=0.5, per=600.0)
    [reason] = explain_job(broker, second)
    assert "The rate of the limit is 0.5 jobs per 10 min." in reason.sentence
    assert reason.command == "mrq limits set api --rate 1 --per 600s --concurrency 5"
    set_limit(broker, "api", concurrency=5)
    [reason] = explain_job(broker, second)
    assert (reason.kind, reason.command) == (ReasonKind.LIMIT, None)
    assert "no room" not in reason.sentence
    assert reason.sentence.endswith(". The limit has room now: the next claims let parked jobs go.")


def test_its_worker_has_not_reported_lately(broker: Broker) -> None:
    job_id = put(broker)
    take(broker)
    listen(broker, "q", status="dead")
    [reason] = explain_job(broker, job_id)
    assert reason.kind is ReasonKind.RUNNING
    assert reason.sentence.startswith("Worker w1 started it ")
    assert "If that worker has died, the job starts again after its lease has ended in " in reason.sentence


def test_it_is_running(broker: Broker) -> None:
    job_id = put(broker)
    take(broker)
    [reason] = explain_job(broker, job_id)
    assert reason.kind is ReasonKind.RUNNING
    assert reason.sentence.startswith("It is running: worker w1 started it ")
    assert reason.command == f"mrq jobs cancel {job_id} --interrupt"
    broker.cancel([job_id], Cancel())
    assert "A cancel is requested" in explain_job(broker, job_id)[0].sentence


@pytest.mark.parametrize("at_most_once", [False, True])
def test_its_lease_has_ended(broker: Broker, at_most_once: bool) -> None:
    job_id = put(broker, at_most_once=at_most_once)
    lease_until = take(broker, lease=0.01).lease_until
    assert lease_until is not None
    until(lambda: broker.now() > lease_until)
    lease, worker = explain_job(broker, job_id)
    assert (lease.kind, worker.kind) == (ReasonKind.LEASE_ENDED, ReasonKind.NO_WORKER)
    assert "worker w1 has not reported since, and may be dead." in lease.sentence
    what = "fails it, because it must not run twice" if at_most_once else "starts it again"
    assert lease.sentence.endswith(f"The next claim from its queue {what}, once nothing else keeps it back.")
    listen(broker, "q")
    [lease] = explain_job(broker, job_id)
    assert "worker w1 reports, but does not renew its leases." in lease.sentence
    assert lease.sentence.endswith(f"The next claim from its queue {what}.")
    broker.pause_tasks([broker.get([job_id])[0].path])  # type: ignore[union-attr]
    lease, paused = explain_job(broker, job_id)
    assert lease.sentence.endswith(", once nothing else keeps it back.")
    assert paused.kind is ReasonKind.TASK_PAUSED
    if not at_most_once:
        take_none(broker, paused_tasks=frozenset(broker.rules().tasks))
        assert kinds(explain_job(broker, job_id)) == ["lease_ended", "task_paused"]


@pytest.mark.parametrize("status", [Status.SUCCESS, Status.FAILED, Status.INTERRUPT])
def test_it_has_ended(broker: Broker, status: Status) -> None:
    job_id = put(broker, at_most_once=status is Status.INTERRUPT)
    error = "a.Broken" if status is Status.FAILED else None
    settle(broker, take(broker), status, ttl=100.0, exception_type=error)
    [reason] = explain_job(broker, job_id)
    assert reason.kind is ReasonKind.ENDED
    why = " with a.Broken" if error else ""
    assert reason.sentence.startswith(f"It has ended as {status}{why}, ")
    assert reason.command == f"mrq jobs requeue {job_id}"


def test_an_unknown_job_raises(broker: Broker) -> None:
    for call in (explain, explain_job):
        with pytest.raises(JobNotFound):
            call(broker, "0" * 24)


# --- races ------------------------------------------------------------------------------------------


def change_at_position(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, *changes: Callable[[], object]
) -> None:
    """Makes one change before each of the next reads of a queue position."""
    read, left = broker.queue_position, list(changes)

    def position(job_id: str) -> QueuePosition | None:
        if left:
            left.pop(0)()
        return read(job_id)

    monkeypatch.setattr(broker, "queue_position", position)


def test_a_job_that_starts_between_two_reads_is_read_again(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = put(broker)
    change_at_position(broker, monkeypatch, lambda: take(broker))
    assert kinds(explain_job(broker, job_id)) == ["running"]


def test_a_job_that_ends_between_two_reads_is_read_again(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = put(broker)
    change_at_position(broker, monkeypatch, lambda: settle(broker, take(broker), Status.SUCCESS, ttl=100.0))
    assert kinds(explain_job(broker, job_id)) == ["ended"]


def test_a_job_that_is_removed_between_two_reads_is_not_found(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = put(broker)
    change_at_position(broker, monkeypatch, lambda: broker.remove([job_id]))
    with pytest.raises(JobNotFound):
        explain_job(broker, job_id)


def test_a_job_without_an_entry_is_to_be_repaired(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    listen(broker, "q")
    job_id = put(broker)
    monkeypatch.setattr(broker, "queue_position", lambda job_id: None)
    [reason] = explain_job(broker, job_id)
    assert (reason.kind, reason.command) == (ReasonKind.NO_ENTRY, "mrq check --repair")


# --- queues -----------------------------------------------------------------------------------------


def test_an_unknown_queue_is_unknown(broker: Broker) -> None:
    assert kinds(explain_queue(broker, "no-such-queue")) == ["unknown", "no_worker"]
    put(broker, "q2")
    assert explain(broker, "q")[0].sentence == "No queue q holds jobs."
    with pytest.raises(InvalidValue):
        explain(broker, "")


def test_an_empty_queue_says_how_many_jobs_run(broker: Broker) -> None:
    listen(broker, "q")
    put(broker)
    take(broker)
    [reason] = explain(broker, "q")
    assert (reason.kind, reason.sentence) == (
        ReasonKind.EMPTY,
        "No job waits in the queue q. 1 job of it runs now.",
    )


def test_a_queue_without_due_jobs_names_the_next(broker: Broker) -> None:
    listen(broker, "q")
    put(broker, delay=1e6)
    soon = put(broker, delay=8000.0)
    [reason] = explain(broker, "q")
    assert reason.kind is ReasonKind.DUE_LATER
    assert reason.sentence.startswith(
        f"2 jobs wait in the queue q, and none is due. The next is {soon}, due in 2 h ("
    )
    assert reason.command == f"mrq jobs edit {soon} --in 0"


def test_a_queue_that_is_served_says_so(broker: Broker) -> None:
    listen(broker, "q")
    put(broker)
    [reason] = explain(broker, "q")
    assert reason.kind is ReasonKind.NEXT
    assert reason.sentence.startswith("Nothing holds the queue q back: 1 job is due, the oldest for ")
    assert reason.sentence.endswith("and w1 claims from it.")


def test_a_tree_is_explained_with_its_subqueues(broker: Broker) -> None:
    listen(broker, "t/x")
    put(broker, "t/x")
    put(broker, "t/y")
    broker.pause(["t/y"])
    reasons = explain(broker, "t/")
    assert kinds(reasons) == ["paused"]
    assert reasons[0].sentence.startswith("Its subqueue t/y has been paused for ")
    broker.resume(["t/y"])
    [reason] = explain(broker, "t/")
    assert reason.sentence.startswith("Nothing holds the tree t/ back: 2 jobs are due")
    broker.pause(["t/"])
    assert explain(broker, "t/")[0].sentence.startswith("The tree t/ has been paused for ")


def test_a_raw_queue_tells_its_parameters(broker: Broker) -> None:
    broker.raw("urls_set").push([RawItem(param=param) for param in "ab"])
    worker, raw = explain(broker, "urls_set")
    assert worker.kind is ReasonKind.NO_WORKER
    assert raw.sentence.startswith("2 parameters wait in the raw queue urls_set.")
    assert raw.kind is ReasonKind.NEXT
    for queue in ("urls_set/a", "urls_set/b"):
        broker.raw(queue).push([RawItem(param="c")])
    assert explain(broker, "urls_set/")[1].sentence.startswith(
        "2 parameters wait in the raw queues of the tree urls_set/."
    )
    assert explain(broker, "none_set")[1].kind is ReasonKind.EMPTY


@pytest.mark.parametrize("name", ODD)
def test_odd_names_are_quoted_in_commands(broker: Broker, name: str) -> None:
    job_id = put(broker, name)
    broker.pause([name])
    paused, worker = explain_job(broker, job_id)
    for reason in (paused, worker):
        assert worker_queues_from(shlex.split(reason.command or "")[-1:]) == (name,)
    assert kinds(explain(broker, name)) == ["paused", "no_worker"]


def test_a_queue_named_like_an_id_is_explained(broker: Broker) -> None:
    name = new_id()
    put(broker, name)
    assert kinds(explain(broker, name)) == ["no_worker"]


def test_a_long_queue_is_explained_without_reading_all_jobs(broker: Broker) -> None:
    listen(broker, "q")
    now = broker.now()
    template = JobRecord(id="", queue="q", path="p", params={}, queued_at=now, updated_at=now)
    for _ in range(12):
        broker.enqueue([NewJob(record=replace(template, id=new_id())) for _ in range(1000)])
    last = put(broker)
    [reason] = explain_job(broker, last)
    assert reason.sentence in (
        "It is behind 12,000 other jobs of the queue q.",
        "It is behind at least 10,000 other jobs of the queue q.",
    )
    assert kinds(explain_queue(broker, "q")) == ["next"]
