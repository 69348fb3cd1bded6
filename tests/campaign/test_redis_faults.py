"""Whatever befalls a Redis server, no acknowledged job is lost and each repeat follows a lost claim.

Workers that are killed, told to leave or frozen are in `test_faults`, on every broker. Here it is the server
that is killed and started again, or that forgets its scripts, and a node of a cluster. `test_failovers` has
the replica that takes over.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.campaign import ledger
from tests.campaign.campaign import Campaign
from tests.campaign.ledger import Ledger
from tests.redis.recount import check_keys
from tests.redis.servers import Server
from tests.redis.services import SAFE_NODES, cluster, cluster_url, prefix_on, until_in_step
from tests.support import Process, open_project

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(1200)]

JOBS = int(os.environ.get("MRQ_TEST_JOBS", "1000"))
SEED = int(os.environ.get("MRQ_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1_000_000)
MOST_FAULTS = 30
PAUSES = (0.0, 0.5, 2.0, 5.0)
"""How long the server is away, in seconds: some workers have then backed off as far as they do."""
GOES_ON_WITHIN = 5.0
"""Seconds after the server's return. A worker that has backed off as far as it does waits for two of them."""


@pytest.fixture
def safe_server() -> Iterator[Server]:
    """One that keeps what it has acknowledged."""
    server = Server("--appendonly", "yes", "--appendfsync", "always")
    yield server
    server.stop()


@pytest.fixture
def campaign(safe_server: Server, tmp_path: Path) -> Iterator[Campaign]:
    with open_project(tmp_path, safe_server.url) as project:
        project.write("tasks.py", ledger.TASKS)
        campaign = Campaign(project, jobs=JOBS, most_faults=MOST_FAULTS, seed=SEED)
        for worker in campaign.workers:  # which do not start without a server
            worker.until_output("worker.started")
        yield campaign
        check_keys(project.client.broker)  # type: ignore[arg-type]


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
    starts = sorted(a.started_at.timestamp() for record in records for a in record.attempts)
    # The first workers may be back before the test has noticed that the server is.
    gaps = [
        min(start for start in starts if start > launched) - ready
        for launched, ready in returns
        if starts[-1] > launched
    ]
    print(f"seconds from the server's return to the next claim: {', '.join(f'{gap:.2f}' for gap in gaps)}")
    campaign.tell(counted)
    assert max(gaps) < GOES_ON_WITHIN


def test_scripts_may_be_forgotten_at_any_time(campaign: Campaign, safe_server: Server) -> None:
    def flush(_: Process) -> None:
        time.sleep(0.3)  # the rhythm of the faults: nothing is waited for
        with safe_server.client() as client:
            client.script_flush()

    records = campaign.run(flush)
    counted = ledger.check(records, Ledger(campaign.project.ledger_path), repeated_after=ledger.LOST)
    campaign.tell(counted)
    noticed = ledger.noticed_losses(campaign.outputs())
    assert set(ledger.lost_attempts(records)) <= noticed  # for want of a processor, if at all


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


def test_no_job_is_lost_by_a_node_of_a_cluster_that_is_killed_and_comes_back(tmp_path: Path) -> None:
    """The one of three that holds the prefix."""
    with cluster(*SAFE_NODES) as nodes:
        url = f"{cluster_url(nodes)}?prefix={prefix_on(nodes, nodes[0])}"
        with open_project(tmp_path, url) as project:
            project.write("tasks.py", ledger.TASKS)
            campaign = Campaign(project, jobs=JOBS, most_faults=MOST_FAULTS, seed=SEED)
            for worker in campaign.workers:
                worker.until_output("worker.started")

            def kill(_: Process) -> None:
                time.sleep(1.0)  # the rhythm of the faults: nothing is waited for
                nodes[0].kill()
                time.sleep(campaign.random.choice(PAUSES))  # how long the fault lasts
                nodes[0].start()
                until_in_step(nodes)

            records = campaign.run(kill)
            counted = ledger.check(records, Ledger(project.ledger_path), repeated_after=ledger.LOST)
            campaign.tell(counted)
            check_keys(project.client.broker)  # type: ignore[arg-type]
