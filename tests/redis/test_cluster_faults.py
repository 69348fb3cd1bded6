"""Three nodes that share the slots, workers on prefixes that two of them hold, and one node that dies."""

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
from tests.redis.services import SAFE_NODES, cluster, cluster_url, prefix_on, until_in_step
from tests.support import Process, Project, open_project, until

JOBS, FAULTS = 60, 2


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[Server]]:
    with cluster(*SAFE_NODES) as servers:
        yield servers


@pytest.fixture
def projects(nodes: list[Server], tmp_path: Path) -> Iterator[tuple[Project, Project]]:
    """One whose keys are on the first node, and one whose keys are on the second."""
    for node in nodes[:2]:
        with node.client() as client:
            client.flushall()
    paths = tmp_path / "first", tmp_path / "second"
    urls = [f"{cluster_url(nodes)}?prefix={prefix_on(nodes, node)}" for node in nodes[:2]]
    for path in paths:
        path.mkdir()
    with open_project(paths[0], urls[0]) as first, open_project(paths[1], urls[1]) as second:
        for project in (first, second):
            project.write("tasks.py", ledger.TASKS)
        yield first, second
        for project in (first, second):
            check_keys(project.client.broker)  # type: ignore[arg-type]


def errors_of(project: Project) -> list[str]:
    """What `mrq check` complains of."""
    return [finding.message for finding in project.client.broker.check() if finding.level == "error"]


def test_a_node_that_is_away_stops_its_own_prefix_alone_until_it_is_back(
    projects: tuple[Project, Project], nodes: list[Server]
) -> None:
    first, second = projects
    workers = [project.worker("--lease", "60", "--broker-timeout", "1") for project in projects]
    running = first.queue("tasks.work", {"seconds": 1.0})
    until(first.ledger_path.exists, what="the job to start")
    nodes[0].kill()
    try:
        with pytest.raises(BrokerUnavailable, match="Redis at redis"):
            first.queue("tasks.work", {"seconds": 0})
        assert errors_of(first)
        workers[0].until_output("broker.away")
        jobs = [second.queue("tasks.work", {"seconds": 0}) for _ in range(5)]
        assert {second.ended(job).status for job in jobs} == {Status.SUCCESS}
        assert not errors_of(second)
        assert "failed" not in workers[1].output
    finally:
        nodes[0].start()
        until_in_step(nodes)
    again = first.queue("tasks.work", {"seconds": 0})
    records = [first.ended(job) for job in (running, again)]
    assert [(record.status, record.claims) for record in records] == [(Status.SUCCESS, 1)] * 2
    assert "0 errors" in first.mrq("check")
    for worker in workers:
        worker.send(signal.SIGINT)
        assert worker.wait() == 0, worker.output
        assert "Traceback" not in worker.output


@pytest.mark.campaign
def test_no_job_is_lost_by_a_node_that_is_killed_and_comes_back(
    projects: tuple[Project, Project], nodes: list[Server]
) -> None:
    project, _ = projects
    campaign = Campaign(project, jobs=JOBS, most_faults=FAULTS, seed=1, workers=3, longest=0.8)
    for worker in campaign.workers:
        worker.until_output("worker.started")

    def kill(_: Process) -> None:
        until(lambda: project.ledger_path.exists(), what="a job to start")
        time.sleep(0.3)  # the rhythm of the faults: nothing is waited for
        nodes[0].kill()
        nodes[0].start()
        until_in_step(nodes)

    records = campaign.run(kill)
    assert campaign.faults
    ledger.check(records, Ledger(project.ledger_path), repeated_after=ledger.LOST)
