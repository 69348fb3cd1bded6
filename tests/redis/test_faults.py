"""Faults on a real server with real workers, briefly; `tests/campaign` has the long ones.

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
from tests.redis.recount import check_keys
from tests.redis.servers import Server
from tests.support import Process, Project, open_project, until

JOBS, FAULTS = 80, 4


@pytest.fixture
def safe_server() -> Iterator[Server]:
    """One that keeps what it has acknowledged."""
    server = Server("--appendonly", "yes", "--appendfsync", "always")
    yield server
    server.stop()


@pytest.fixture
def project(safe_server: Server, tmp_path: Path) -> Iterator[Project]:
    with open_project(tmp_path, safe_server.url) as project:
        project.write("tasks.py", ledger.TASKS)
        yield project


@pytest.fixture
def campaign(project: Project) -> Iterator[Campaign]:
    campaign = Campaign(project, jobs=JOBS, most_faults=FAULTS, seed=1, longest=0.3)
    for worker in campaign.workers:  # which do not start without a server
        worker.until_output("worker.started")
    yield campaign
    assert campaign.faults
    check_keys(project.client.broker)  # type: ignore[arg-type]


@pytest.mark.campaign
def test_no_job_is_lost_by_workers_that_are_killed(campaign: Campaign) -> None:
    def kill(worker: Process) -> None:
        until(lambda: campaign.project.ledger_path.exists(), what="a job to start")
        time.sleep(0.5)  # the rhythm of the faults: nothing is waited for
        campaign.replace(worker, signal.SIGKILL)

    records = campaign.run(kill)
    ledger.check(records, Ledger(campaign.project.ledger_path), repeated_after=ledger.LOST)


def test_no_job_is_lost_by_a_server_that_is_killed_and_comes_back(
    campaign: Campaign, safe_server: Server
) -> None:
    def kill(_: Process) -> None:
        until(lambda: campaign.project.ledger_path.exists(), what="a job to start")
        time.sleep(0.5)  # the rhythm of the faults: nothing is waited for
        safe_server.kill()
        safe_server.start()

    records = campaign.run(kill)
    ledger.check(records, Ledger(campaign.project.ledger_path), repeated_after=ledger.LOST)


def test_scripts_may_be_flushed_at_any_time(campaign: Campaign, safe_server: Server) -> None:
    def flush(_: Process) -> None:
        until(lambda: campaign.project.ledger_path.exists(), what="a job to start")
        with safe_server.client() as client:
            client.script_flush()

    records = campaign.run(flush)
    counted = ledger.check(records, Ledger(campaign.project.ledger_path), repeated_after=ledger.LOST)
    assert counted[ledger.LOST] == 0


def test_a_worker_goes_on_when_the_server_is_back(project: Project, safe_server: Server) -> None:
    first = project.queue("tasks.work", {"seconds": 0})
    worker = project.worker()
    assert project.ended(first).status is Status.SUCCESS
    safe_server.kill()
    with pytest.raises(BrokerUnavailable):
        project.queue("tasks.work", {"seconds": 0})
    worker.until_output("broker.away")
    safe_server.start()
    second = project.queue("tasks.work", {"seconds": 0})
    assert project.ended(second).status is Status.SUCCESS
    worker.send(signal.SIGINT)
    assert worker.wait() == 0


def test_outcomes_are_kept_while_the_server_is_away(project: Project, safe_server: Server) -> None:
    job = project.queue("tasks.work", {"seconds": 0.5})
    worker = project.worker("--lease", "60")
    until(lambda: project.ledger_path.exists(), what="the job to start")
    safe_server.kill()
    worker.until_output("broker.away")
    safe_server.start()
    record = project.ended(job)
    assert (record.status, record.claims) == (Status.SUCCESS, 1)
