"""Faults on a real server with real workers, briefly. `tests/campaign` has the long ones,
and `test_topologies` has those of a replica set.

What the tasks wrote to a ledger is put beside the records: nothing that was acknowledged is lost, and each
repeat follows a lost claim.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mrq_core.contract.record import Status
from mrq_core.errors import BrokerUnavailable
from tests.campaign import ledger
from tests.campaign.campaign import Campaign
from tests.campaign.ledger import Ledger
from tests.mongo.recount import check_collections
from tests.mongo.servers import Server
from tests.servers import free_port
from tests.support import Process, Project, open_project, until

JOBS, FAULTS = 60, 3


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """One that tests kill and start again."""
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def project(own_server: Server, tmp_path: Path) -> Iterator[Project]:
    prefix = f"project-{tmp_path.name}"[-40:]
    with open_project(tmp_path, f"{own_server.url}?prefix={prefix}") as project:
        project.write("tasks.py", ledger.TASKS)
        yield project


@pytest.fixture
def campaign(project: Project) -> Iterator[Campaign]:
    campaign = Campaign(project, jobs=JOBS, most_faults=FAULTS, seed=1, workers=3, longest=0.2)
    for worker in campaign.workers:  # which do not start without a server
        worker.until_output("worker.started")
    yield campaign
    assert campaign.faults
    check_collections(project.client.broker)  # type: ignore[arg-type]


@pytest.mark.campaign
def test_no_job_is_lost_by_workers_that_are_killed(campaign: Campaign) -> None:
    def kill(worker: Process) -> None:
        until(lambda: campaign.project.ledger_path.exists(), what="a job to start")
        time.sleep(0.3)  # the rhythm of the faults: nothing is waited for
        campaign.replace(worker, signal.SIGKILL)

    records = campaign.run(kill)
    ledger.check(records, Ledger(campaign.project.ledger_path), repeated_after=ledger.LOST)


def test_no_job_is_lost_by_a_server_that_is_killed_and_comes_back(
    campaign: Campaign, own_server: Server
) -> None:
    def kill(_: Process) -> None:
        until(lambda: campaign.project.ledger_path.exists(), what="a job to start")
        time.sleep(0.3)  # the rhythm of the faults: nothing is waited for
        own_server.kill()
        own_server.start()

    records = campaign.run(kill)
    ledger.check(records, Ledger(campaign.project.ledger_path), repeated_after=ledger.LOST)


@pytest.mark.campaign
def test_outcomes_are_kept_while_the_server_is_away_and_the_worker_goes_on_when_it_is_back(
    project: Project, own_server: Server
) -> None:
    job = project.queue("tasks.work", {"seconds": 0.5})
    waiting = project.queue("tasks.work", {"seconds": 0}, delay=1.0)
    worker = project.worker("--lease", "60", "--broker-timeout", "0.5")
    until(lambda: project.ledger_path.exists(), what="the job to start")
    own_server.kill()
    with pytest.raises(BrokerUnavailable):
        project.client.broker.totals()
    worker.until_output("broker.away")
    away = time.monotonic()
    until(lambda: time.monotonic() > away + 5.0, what="some trials of the worker")
    own_server.start()
    record = project.ended(job)
    assert (record.status, record.claims) == (Status.SUCCESS, 1)
    assert project.ended(waiting).status is Status.SUCCESS
    worker.until_output("broker.back")
    assert worker.output.count("broker.away") == worker.output.count("broker.back") == 1
    worker.send(signal.SIGINT)
    assert worker.wait() == 0, worker.output


@pytest.mark.campaign
def test_a_server_that_hangs_for_a_while_costs_leases_and_no_job(
    project: Project, own_server: Server
) -> None:
    jobs = [project.queue("tasks.work", {"seconds": 0.1}) for _ in range(20)]
    worker = project.worker("--broker-timeout", "0.5", "--lease", "1", "--greenlets", "3")
    until(project.ledger_path.exists, what="a job to start")
    own_server.signal(signal.SIGSTOP)
    worker.until_output("broker.away")
    own_server.signal(signal.SIGCONT)
    records = [project.ended(job) for job in jobs]
    ledger.check(records, Ledger(project.ledger_path), repeated_after=ledger.LOST)
    check_collections(project.client.broker)  # type: ignore[arg-type]


def test_a_worker_does_not_start_without_a_server(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with open_project(tmp_path, f"mongodb://user:geheim@{address}/mrq") as project:
        worker = project.start("worker", "--broker-timeout", "0.5")
        assert worker.wait() == 1
        assert address in worker.output
        assert "geheim" not in worker.output
        assert "Traceback" not in worker.output
