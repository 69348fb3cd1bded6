"""What runs is not disturbed, and what waits is not lost, when a server is away or the queue is emptied.

Real workers on servers of their own; `test_faults` has the faults that kill, `tests/campaign` the long ones.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from mrq_core.composed import ComposedBroker
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import Status
from mrq_core.errors import BrokerUnavailable
from mrq_core.operations.actions import repair_all
from tests.campaign import ledger
from tests.campaign.campaign import Campaign
from tests.campaign.ledger import Ledger
from tests.composed.recount import check_halves
from tests.composed.servers import Pair, pair, project_on
from tests.support import Process, Project, until

JOBS, FAULTS = 80, 3
MEND = "mrq_core.basetasks.cleaning.RequeueLostJobs"
GATED = """
import os
import time

from mrq_core import task
from tasks import note


@task
def wait():
    note("start")
    while not os.path.exists("gate"):
        time.sleep(0.01)
    note("end")
"""
"""A task that runs until the test opens the gate."""


@pytest.fixture(scope="module")
def servers() -> Iterator[Pair]:
    with pair() as servers:
        yield servers


@pytest.fixture
def project(servers: Pair, tmp_path: Path) -> Iterator[Project]:
    with project_on(tmp_path, servers.redis.url, servers.mongo.url, f"project-{tmp_path.name}") as project:
        project.write("gated.py", GATED)
        yield project


@pytest.fixture
def campaign(project: Project) -> Iterator[Campaign]:
    campaign = Campaign(project, jobs=JOBS, most_faults=FAULTS, seed=1, workers=3, longest=0.8)
    for worker in campaign.workers:  # which do not start without their servers
        worker.until_output("worker.started")
    yield campaign
    assert campaign.faults
    check_halves(broker_of(project))
    assert not [output for output in campaign.outputs().values() if "Traceback" in output]


def broker_of(project: Project) -> ComposedBroker:
    broker = project.client.broker
    assert isinstance(broker, ComposedBroker)
    return broker


def claimed(broker: ComposedBroker, jobs: list[str]) -> list[datetime]:
    """The ends of the leases of these jobs; empty if one has no place that is claimed."""
    entries = [entry for entry in broker._queue.entries(jobs) if entry is not None and entry.token]
    times = [entry.due_at for entry in entries if entry.due_at is not None]
    return times if len(times) == len(jobs) else []


@pytest.mark.campaign
@pytest.mark.parametrize("half", ["redis", "mongo"])
def test_outcomes_are_kept_while_a_server_is_away_and_the_worker_goes_on_when_it_is_back(
    project: Project, servers: Pair, half: str
) -> None:
    server, name = {"redis": (servers.redis, "Redis"), "mongo": (servers.mongo, "MongoDB")}[half]
    running = project.queue("gated.wait")
    waiting = project.queue("tasks.work", {"seconds": 0}, queue="other")
    lease = {"redis": "60", "mongo": "9"}[half]
    worker = project.worker("default", "other", "--lease", lease, "--broker-timeout", "0.5")
    until(lambda: project.ledger_path.exists(), what="the job to start")
    server.kill()
    try:
        broker = broker_of(project)
        if half == "mongo":  # leases are renewed without it
            before = claimed(broker, [running])
            until(lambda: claimed(broker, [running]) > before, what="the lease to be renewed")
            assert broker.counts(["other"])[0].waiting == 1
        else:  # what is known of jobs is told without it
            assert broker.totals().by_status() == {Status.QUEUED: 1, Status.STARTED: 1}
            [found] = broker.find(JobFilter(statuses=(Status.QUEUED,))).records
            assert found.id == waiting
            assert broker.paused() == frozenset()
        with pytest.raises(BrokerUnavailable, match=rf"^{name} at \S*:{server.port}\b"):
            project.queue("tasks.work", {"seconds": 0})
        project.write("gate", "")
        worker.until_output("broker.away")
        assert f"{name} at " in worker.output
    finally:
        server.start()
    assert [project.ended(job).status for job in (running, waiting)] == [Status.SUCCESS] * 2
    assert project.client.fetch(running).claims == 1
    worker.send(signal.SIGINT)
    assert worker.wait() == 0, worker.output
    assert "Traceback" not in worker.output
    for _ in repair_all(project.client.broker):  # the enqueue that was refused may have reached the store
        pass
    check_halves(broker_of(project))


def test_an_emptied_queue_gets_all_its_jobs_back_and_starts_none_twice(
    project: Project, servers: Pair
) -> None:
    broker = broker_of(project)
    running = [project.queue("gated.wait") for _ in range(2)]
    workers = [project.worker("--lease", "9", "--greenlets", "2") for _ in range(2)]
    until(lambda: len(project.ledger()) == 8, what="both jobs to start")  # four words each
    waiting = [project.queue("tasks.work", {"seconds": 0}, queue="other") for _ in range(10)]
    delayed = project.queue("tasks.work", {"seconds": 0}, queue="other", delay=3600.0)
    due_at = project.client.fetch(delayed).due_at
    servers.empty_redis()
    given_back = until(lambda: claimed(broker, running), what="the renewals to give the entries back")
    answer = json.loads(project.mrq("run", MEND))
    assert answer["examined"] == 13
    assert answer["requeued"] <= 11  # fewer if the workers were quicker, which mend a step once a minute
    project.work_off("other")
    assert {project.client.fetch(job).status for job in waiting} == {Status.SUCCESS}
    assert project.client.fetch(delayed).due_at == due_at
    until(lambda: claimed(broker, running) > given_back, what="the leases to be renewed")
    project.write("gate", "")
    ended = [project.ended(job) for job in running]
    assert [(record.status, record.claims) for record in ended] == [(Status.SUCCESS, 1)] * 2
    assert max(Ledger(project.ledger_path).starts.values()) == 1
    for worker in workers:
        worker.send(signal.SIGINT)
        assert worker.wait() == 0, worker.output
        assert "Traceback" not in worker.output
    assert check_halves(broker) == set()


@pytest.mark.campaign
def test_lost_places_are_given_back_again_and_again_while_workers_work(
    campaign: Campaign, servers: Pair
) -> None:
    """The second time nothing was lost, and nothing is to be changed. The last time a worker does it."""
    project, mended = campaign.project, []

    def empty_and_mend(_: Process) -> None:
        until(lambda: project.ledger_path.exists(), what="a job to start")
        time.sleep(0.2)  # the rhythm of the faults: nothing is waited for
        if campaign.faults != 1:
            servers.empty_redis()
        if campaign.faults < FAULTS - 1:
            mended.append(sum(len(step.repaired) for step in repair_all(project.client.broker)))
            return
        job = project.queue(MEND, queue="mending")
        project.work_off("mending")
        assert project.ended(job).status is Status.SUCCESS
        project.client.broker.remove([job])

    records = campaign.run(empty_and_mend)
    counted = ledger.check(records, Ledger(project.ledger_path), repeated_after=ledger.LOST)
    campaign.tell(counted)
    print(f"mended: {mended}")
    assert mended[0]
