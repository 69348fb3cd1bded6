"""Whatever befalls a MongoDB deployment, no acknowledged job is lost and each repeat follows a lost claim.

Workers that are killed, told to leave or frozen are in `test_faults`, on every broker. Here it is the server
that is killed and started again, or the primary of a replica set that steps down or is killed.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mrq_core.contract.record import JobRecord
from tests.campaign import ledger
from tests.campaign.campaign import Campaign
from tests.campaign.ledger import Ledger
from tests.mongo.recount import check_collections
from tests.mongo.servers import Server
from tests.mongo.services import Replicas, replica_set
from tests.support import Process, open_project

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(1200)]

JOBS = int(os.environ.get("MRQ_TEST_JOBS", "1000"))
SEED = int(os.environ.get("MRQ_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1_000_000)
MOST_FAULTS = 30
PAUSES = (0.0, 0.5, 2.0, 5.0)
"""How long the server is away, in seconds: some workers have then backed off as far as they do."""
GOES_ON_WITHIN = 5.0
"""Seconds after the server's return, or after an election."""


@pytest.fixture
def safe_server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def replicas() -> Iterator[Replicas]:
    with replica_set() as replicas:
        yield replicas


@pytest.fixture
def campaign(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Campaign]:
    deployment: Server | Replicas = request.getfixturevalue(request.param)
    with open_project(tmp_path, deployment.url) as project:
        project.write("tasks.py", ledger.TASKS)
        campaign = Campaign(project, jobs=JOBS, most_faults=MOST_FAULTS, seed=SEED)
        for worker in campaign.workers:  # which do not start without a server
            worker.until_output("worker.started")
        yield campaign
        check_collections(project.client.broker)  # type: ignore[arg-type]


on_one_server = pytest.mark.parametrize("campaign", ["safe_server"], indirect=True)
on_a_replica_set = pytest.mark.parametrize("campaign", ["replicas"], indirect=True)


@on_one_server
def test_no_job_is_lost_by_a_server_that_is_killed_and_comes_back(
    campaign: Campaign, safe_server: Server
) -> None:
    returns: list[tuple[float, float]] = []

    def kill(_: Process) -> None:
        time.sleep(1.0)  # the rhythm of the faults: nothing is waited for
        safe_server.kill()
        time.sleep(campaign.random.choice(PAUSES))  # how long the fault lasts
        launched = time.time()
        safe_server.start()
        returns.append((launched, time.time()))

    records = campaign.run(kill)
    counted = ledger.check(records, Ledger(campaign.project.ledger_path), repeated_after=ledger.LOST)
    campaign.tell(counted)
    check_gaps(records, returns, "the server's return")


@on_one_server
def test_workers_and_server_killed_by_turns_lose_nothing(campaign: Campaign, safe_server: Server) -> None:
    def kill(worker: Process) -> None:
        time.sleep(1.0)  # the rhythm of the faults: nothing is waited for
        campaign.replace(worker, signal.SIGKILL)
        if campaign.faults % 3 == 0:
            for one in campaign.workers:  # which do not start without a server
                one.until_output("worker.started")
            safe_server.kill()
            safe_server.start()

    records = campaign.run(kill)
    counted = ledger.check(records, Ledger(campaign.project.ledger_path), repeated_after=ledger.LOST)
    campaign.tell(counted)
    assert counted[ledger.LOST] > 0


def _step_down(replicas: Replicas) -> tuple[float, float]:
    old = replicas.step_down()
    left = time.time()
    replicas.next_primary(old)
    return left, time.time()


def _kill(replicas: Replicas) -> tuple[float, float]:
    old = replicas.primary()
    old.kill()
    left = time.time()
    replicas.next_primary(old)
    elected = time.time()
    old.start()
    return left, elected


@on_a_replica_set
@pytest.mark.parametrize("leave", [_step_down, _kill])
def test_no_job_is_lost_by_a_primary_that_leaves(
    campaign: Campaign, replicas: Replicas, leave: Callable[[Replicas], tuple[float, float]]
) -> None:
    elections: list[tuple[float, float]] = []

    def fault(_: Process) -> None:
        time.sleep(2.0)  # the rhythm of the faults: nothing is waited for
        replicas.until_whole()
        elections.append(leave(replicas))

    records = campaign.run(fault)
    counted = ledger.check(records, Ledger(campaign.project.ledger_path), repeated_after=ledger.LOST)
    campaign.tell(counted)
    check_gaps(records, elections, "the election")


def check_gaps(records: list[JobRecord], returns: list[tuple[float, float]], what: str) -> None:
    """Prints how long after each return the next claim came. A return is two moments: when nothing
    could be claimed any more, or yet, and when the test saw that it could be again."""
    starts = sorted(a.started_at.timestamp() for record in records for a in record.attempts)
    gaps = [
        min(start for start in starts if start > gone) - back for gone, back in returns if starts[-1] > back
    ]
    print(f"seconds from {what} to the next claim: {', '.join(f'{gap:.2f}' for gap in gaps)}")
    assert max(gaps) < GOES_ON_WITHIN
