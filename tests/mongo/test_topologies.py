"""A replica set: everything goes through, and its failovers lose nothing that was acknowledged."""

from __future__ import annotations

import itertools
import re
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from mrq_broker_mongo.broker import MongoBroker
from mrq_core.contract.messages import Cancel, ChangeResult, NewJob, RawItem, Wanted
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import JobRecord, Status
from mrq_core.errors import BrokerUnavailable
from mrq_core.testing.conformance import BrokerFactory, EnqueueContract, PollContract, SettleContract
from tests.campaign import ledger
from tests.campaign.campaign import Campaign
from tests.campaign.ledger import Ledger
from tests.mongo.kit import Place, claim, new_job, open_broker, success
from tests.mongo.recount import check_collections
from tests.mongo.services import Replicas, replica_set
from tests.support import Process, Project, open_project, until

JOBS, FAULTS = 60, 2
_RETRIES = re.compile(r"claim\.failed retry_in=([\d.]+)s")
_numbers = itertools.count()


@pytest.fixture(scope="module")
def members() -> Iterator[Replicas]:
    """Three, with a primary that tests tell to leave, or kill, and bring back."""
    with replica_set() as replicas:
        yield replicas


@pytest.fixture
def replicas(members: Replicas) -> Replicas:
    members.until_whole()
    return members


@pytest.fixture
def place(replicas: Replicas) -> Place:
    return Place(replicas.url, f"test-{next(_numbers)}")


def test_a_little_of_everything_goes_through(place: Place) -> None:
    broker = place.open()
    broker.prepare()
    jobs = [new_job() for _ in range(5)]
    assert all(answer.created for answer in broker.enqueue(jobs))
    assert broker.wait([Wanted(name="q")], 5.0)
    records = claim(broker, limit=3).records
    assert broker.settle([success(record) for record in records]) == [True] * 3
    assert broker.totals().by_status() == {Status.SUCCESS: 3, Status.QUEUED: 2}
    found = broker.find(JobFilter(statuses=(Status.QUEUED,))).records
    assert broker.cancel([record.id for record in found], Cancel()) == [ChangeResult.DONE] * 2
    assert broker.count(JobFilter(), "status").numbers == {"success": 3, "cancel": 2}
    broker.pause(["q"])
    assert broker.paused() == {"q"}
    assert broker.state.add("n", "counter", 3) == 3
    raw = broker.raw("urls_timed_set")
    assert raw.push([RawItem(param="a", score=1.0)]) == [True]
    assert [one.param for one in raw.claim(5, 60.0, "w")] == ["a"]
    assert not broker.wait([Wanted(name="other")], 0.05)
    assert {finding.level for finding in broker.check()} == {"ok"}
    check_collections(broker)
    broker.close()


@pytest.mark.campaign
class TestMongoReplicaSet(EnqueueContract, SettleContract, PollContract):
    """The parts of the contract that write in all ways, on a replica set."""

    @pytest.fixture
    def broker_factory(self, members: Replicas) -> Iterator[BrokerFactory]:
        place = Place(members.url, "contract")
        yield partial(open_broker, place)
        place.clear()


def test_a_secondary_that_is_named_directly_is_said_to_be_one(replicas: Replicas) -> None:
    secondary = next(server for server in replicas.servers if server is not replicas.primary())
    broker = open_broker(Place(f"{secondary.url}?directConnection=true", "mrq"), timeout=1.0)
    with pytest.raises(BrokerUnavailable, match="no primary"):
        broker.enqueue([new_job()])
    found = {finding.subject: finding for finding in broker.check()}
    assert found["deployment"].level == "error"
    assert "directConnection" in found["deployment"].advice
    broker.close()


# --- failovers of a client --------------------------------------------------------------------------


def _step_down(replicas: Replicas) -> None:
    replicas.next_primary(replicas.step_down())


def _kill(replicas: Replicas) -> None:
    old = replicas.primary()
    old.kill()
    replicas.next_primary(old)
    old.start()


@pytest.mark.parametrize("leave", [_step_down, _kill])
def test_a_client_goes_on_with_the_next_primary_and_finds_all_that_was_acknowledged(
    place: Place, replicas: Replicas, leave: Callable[[Replicas], None]
) -> None:
    broker = place.open()
    jobs = [answer.id for answer in broker.enqueue([new_job() for _ in range(20)])]
    records = claim(broker, limit=5).records
    assert broker.settle([success(record) for record in records[:3]]) == [True] * 3
    leave(replicas)
    jobs.append(until(lambda: _enqueued(broker), what="a primary that takes a job"))
    assert until(lambda: _settled(broker, records[3:]), what="the claims to be settled") == [True] * 2
    found = [record for record in broker.get(jobs) if record is not None]
    assert sorted(record.status for record in found) == [*["queued"] * 16, *["success"] * 5]
    check_collections(broker)
    broker.close()


def _enqueued(broker: MongoBroker) -> str:
    try:
        return broker.enqueue([new_job()])[0].id
    except BrokerUnavailable:
        return ""


def _settled(broker: MongoBroker, records: tuple[JobRecord, ...]) -> list[bool]:
    try:
        return broker.settle([success(record) for record in records])
    except BrokerUnavailable:
        return []


def test_what_no_majority_has_is_not_acknowledged(place: Place, replicas: Replicas) -> None:
    broker = open_broker(place, timeout=1.0)
    broker.enqueue([new_job()])
    primary = replicas.primary()
    others = [server for server in replicas.servers if server is not primary]
    for server in others:
        server.signal(signal.SIGSTOP)
    job = new_job()
    try:
        with pytest.raises(BrokerUnavailable, match=r"majority|primary|cannot be reached"):
            broker.enqueue([job])
    finally:
        for server in others:
            server.signal(signal.SIGCONT)
    replicas.until_whole()
    until(lambda: _is_taken(broker, job), what="a primary that takes the job, for the first or second time")
    assert broker.get([job.record.id]) != [None]
    assert broker.count(JobFilter()).numbers == {"": 2}
    broker.close()


def _is_taken(broker: MongoBroker, job: NewJob) -> bool:
    try:
        return broker.enqueue([job])[0].id == job.record.id
    except BrokerUnavailable:
        return False


# --- failovers under workers ------------------------------------------------------------------------


@pytest.fixture
def project(place: Place, tmp_path: Path) -> Iterator[Project]:
    with open_project(tmp_path, f"{place.url}&prefix={place.prefix}") as project:
        project.write("tasks.py", ledger.TASKS)
        yield project


@pytest.mark.campaign
@pytest.mark.parametrize("leave", [_step_down, _kill])
def test_failovers_during_load_lose_nothing_and_each_repeat_follows_a_lost_claim(
    project: Project, replicas: Replicas, leave: Callable[[Replicas], None]
) -> None:
    campaign = Campaign(project, jobs=JOBS, most_faults=FAULTS, seed=1, workers=2, longest=0.3)
    for worker in campaign.workers:  # which do not start without a primary
        worker.until_output("worker.started")

    def fault(_: Process) -> None:
        until(lambda: project.ledger_path.exists(), what="a job to start")
        time.sleep(0.3)  # the rhythm of the faults: nothing is waited for
        replicas.until_whole()
        leave(replicas)

    records = campaign.run(fault)
    assert campaign.faults
    ledger.check(records, Ledger(project.ledger_path), repeated_after=ledger.LOST)
    check_collections(project.client.broker)  # type: ignore[arg-type]


@pytest.mark.campaign
def test_a_worker_goes_on_as_soon_as_there_is_another_primary(project: Project, replicas: Replicas) -> None:
    first = project.queue("tasks.work", {"seconds": 0})
    worker = project.worker()
    assert project.ended(first).status is Status.SUCCESS
    waiting = project.queue("tasks.work", {"seconds": 0}, delay=1.5)
    old = replicas.primary()
    old.kill()
    replicas.next_primary(old)
    elected = time.time()
    tried = len(_RETRIES.findall(worker.output))
    record = until(lambda: _ended(project, waiting), what="the job to end")
    assert record is not None
    assert record.status is Status.SUCCESS
    # However slow this machine is: one try may have been under way, and the next one succeeds.
    retries = [float(seconds) for seconds in _RETRIES.findall(worker.output)]
    assert len(retries) <= tried + 1
    assert max(retries, default=0.0) <= 2.0
    assert record.started_at is not None
    print(f"the worker's next claim came {record.started_at.timestamp() - elected:.2f} s after the election")
    worker.send(signal.SIGINT)
    assert worker.wait() == 0, worker.output
    old.start()


def _ended(project: Project, job: str) -> JobRecord | None:
    try:
        record = project.client.fetch(job)
    except BrokerUnavailable:
        return None
    return record if record.is_ended else None
