"""Faults of workers and of either server, with real processes, briefly; `tests/campaign` has the long ones.

What the tasks wrote to a ledger is put beside the records: nothing that was acknowledged is lost, and each
repeat follows a lost claim.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mrq_core.composed import ComposedBroker
from mrq_core.contract.record import JobRecord, Status
from mrq_core.errors import BrokerUnavailable
from tests.campaign import ledger
from tests.campaign.campaign import Campaign
from tests.campaign.ledger import Ledger
from tests.composed.recount import check_halves
from tests.mongo.servers import Server as MongoServer
from tests.redis.servers import Server as RedisServer
from tests.support import Process, Project, open_project, until

JOBS, FAULTS = 80, 3
REPAIR = "mrq_core.basetasks.cleaning.RequeueLostJobs"


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """One that keeps what it has acknowledged."""
    server = RedisServer("--appendonly", "yes", "--appendfsync", "always")
    yield server
    server.stop()


@pytest.fixture
def mongo_server() -> Iterator[MongoServer]:
    server = MongoServer()
    yield server
    server.stop()


@pytest.fixture
def project(redis_server: RedisServer, mongo_server: MongoServer, tmp_path: Path) -> Iterator[Project]:
    with open_project(tmp_path, redis_server.url, mongo_server.url) as project:
        project.write("tasks.py", ledger.TASKS)
        yield project


@pytest.fixture
def campaign(project: Project) -> Iterator[Campaign]:
    campaign = Campaign(project, jobs=JOBS, most_faults=FAULTS, seed=1, longest=0.3)
    for worker in campaign.workers:  # which do not start without a server
        worker.until_output("worker.started")
    yield campaign
    assert campaign.faults
    check(project)


def check(project: Project) -> None:
    """The two halves tell the same, once the claims after the last lease have met what a crash has left."""
    broker = project.client.broker
    assert isinstance(broker, ComposedBroker)
    while check_halves(broker):
        project.work_off()


def repair(project: Project) -> dict[str, int]:
    """Runs RequeueLostJobs, and says what it found."""
    found: dict[str, int] = json.loads(project.mrq("run", REPAIR))
    return found


def ended(project: Project, jobs: list[str]) -> list[JobRecord]:
    """The records, once all of them have ended."""
    return [project.ended(job) for job in jobs]


def started(project: Project) -> set[str]:
    """The jobs whose task has begun."""
    return (
        {mark.job for mark in Ledger(project.ledger_path).starts} if project.ledger_path.exists() else set()
    )


# --- workers and servers that are killed ------------------------------------------------------------


@pytest.mark.campaign
def test_no_job_is_lost_by_workers_that_are_killed(campaign: Campaign) -> None:
    def kill(worker: Process) -> None:
        until(campaign.project.ledger_path.exists, what="a job to start")
        time.sleep(0.5)  # the rhythm of the faults: nothing is waited for
        campaign.replace(worker, signal.SIGKILL)

    records = campaign.run(kill)
    ledger.check(records, Ledger(campaign.project.ledger_path), repeated_after=ledger.LOST)


def test_no_job_is_lost_by_servers_that_are_killed_by_turns(
    campaign: Campaign, redis_server: RedisServer, mongo_server: MongoServer
) -> None:
    def kill(_: Process) -> None:
        until(campaign.project.ledger_path.exists, what="a job to start")
        time.sleep(0.3)  # the rhythm of the faults: nothing is waited for
        server = redis_server if campaign.faults % 2 else mongo_server
        server.kill()
        server.start()

    records = campaign.run(kill)
    ledger.check(records, Ledger(campaign.project.ledger_path), repeated_after=ledger.LOST)
    output = "".join(campaign.outputs().values())
    assert "Traceback" not in output, output


@pytest.mark.campaign
@pytest.mark.parametrize("half", ["redis", "mongo"])
def test_a_half_that_is_away_is_named_and_the_worker_goes_on_when_it_is_back(
    project: Project, redis_server: RedisServer, mongo_server: MongoServer, half: str
) -> None:
    server = redis_server if half == "redis" else mongo_server
    worker = project.worker("--broker-timeout", "1", "--lease", "3")
    before = project.queue("tasks.work", {"seconds": 0.0})
    assert project.ended(before).status is Status.SUCCESS
    server.kill()
    worker.until_output(f"127.0.0.1:{server.port}")  # it says who is away
    with pytest.raises(BrokerUnavailable, match=str(server.port)):
        project.queue("tasks.work", {"seconds": 0.0})
    server.start()
    after = project.queue("tasks.work", {"seconds": 0.0})
    assert project.ended(after).status is Status.SUCCESS
    repair(project)  # the enqueue that failed may have stored its job, and then it runs, too
    until(lambda: not project.client.broker.counts(["default"])[0].waiting, what="the queue to be empty")
    worker.send(signal.SIGINT)
    assert worker.wait() == 0, worker.output
    assert "Traceback" not in worker.output
    check(project)


# --- a queue that was emptied -------------------------------------------------------------------------


def test_jobs_have_their_places_again_after_the_queue_was_emptied(
    project: Project, redis_server: RedisServer
) -> None:
    """Those that run are not started again: the renewal of their leases brings their entries back."""
    worker = project.worker("--lease", "3", "--greenlets", "2")
    running = [project.queue("tasks.work", {"seconds": 4.0}) for _ in range(2)]
    until(lambda: started(project) == set(running), what="two jobs to run")
    waiting = [project.queue("tasks.work", {"seconds": 0.0}) for _ in range(20)]
    later = project.queue("tasks.work", {"seconds": 0.0}, delay=3600.0)
    with redis_server.client() as client:
        client.flushall()
    repair(project)  # unless the worker, who mends too, was quicker
    records = ended(project, [*running, *waiting])
    ledger.check(records, Ledger(project.ledger_path), repeated_after=ledger.LOST)
    assert {record.claims for record in records} == {1}
    assert project.client.fetch(later).status is Status.QUEUED
    worker.send(signal.SIGINT)
    assert worker.wait() == 0, worker.output
    check(project)


@pytest.mark.parametrize("by_task", [True, False])
def test_repairs_say_how_many(project: Project, redis_server: RedisServer, by_task: bool) -> None:
    jobs = [project.queue("tasks.work", {"seconds": 0.0}) for _ in range(5)]
    with redis_server.client() as client:
        client.flushall()
    assert project.client.broker.counts(["default"])[0].waiting == 0
    if by_task:
        assert repair(project) == {"examined": 5, "requeued": 5}
    else:
        assert "Examined 5 unfinished jobs; put 5 back" in project.mrq("check", "--repair", errors=True)
    project.work_off()
    assert {project.client.fetch(job).status for job in jobs} == {Status.SUCCESS}
    check(project)


def test_repairs_beside_running_workers_repeat_nothing(project: Project) -> None:
    jobs = [project.queue("tasks.work", {"seconds": 0.02}) for _ in range(100)]
    workers = [project.worker("--greenlets", "3", "--lease", "30") for _ in range(2)]
    broker = project.client.broker
    while project.client.broker.counts(["default"])[0].waiting:
        broker.repair()
    records = ended(project, jobs)
    ledger.check(records, Ledger(project.ledger_path), repeated_after=ledger.LOST)
    assert {record.claims for record in records} == {1}
    for worker in workers:
        worker.send(signal.SIGINT)
        assert worker.wait() == 0, worker.output
    check(project)
