"""Whatever befalls the servers of a pair, no acknowledged job is lost and each repeat follows a lost claim.

Workers that are killed, told to leave or frozen are in `test_faults`, on every broker. Here it is a server of
the pair of Redis and MongoDB that is killed, replaced, or emptied. What the queue has lost then, the store
gives back: how many places that were is printed. What a failover by sentinels loses is in `test_failovers`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mrq_core.composed import ComposedBroker
from mrq_core.contract.record import JobRecord
from mrq_core.operations.actions import repair_all
from tests.campaign import ledger
from tests.campaign.campaign import Campaign
from tests.campaign.ledger import Ledger
from tests.composed.recount import check_halves
from tests.composed.servers import Pair, pair, project_on
from tests.mongo.services import replica_set
from tests.redis.services import SAFE_NODES, cluster, cluster_url, prefix_on, until_in_step
from tests.support import Process, Project

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(1200)]

JOBS = int(os.environ.get("MRQ_TEST_JOBS", "1000"))
SEED = int(os.environ.get("MRQ_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1_000_000)
MOST_FAULTS = 30
PAUSES = (0.0, 0.5, 2.0, 5.0)
"""How long a server is away, in seconds: some workers have then backed off as far as they do."""
MEND = "mrq_core.basetasks.cleaning.RequeueLostJobs"


@pytest.fixture
def servers() -> Iterator[Pair]:
    with pair() as servers:
        yield servers


@pytest.fixture
def campaign(servers: Pair, tmp_path: Path) -> Iterator[Campaign]:
    with project_on(tmp_path, servers.redis.url, servers.mongo.url) as project:
        yield begin(project)


def begin(project: Project) -> Campaign:
    """Workers that are at work: they do not start without their servers."""
    campaign = Campaign(project, jobs=JOBS, most_faults=MOST_FAULTS, seed=SEED)
    for worker in campaign.workers:
        worker.until_output("worker.started")
    return campaign


def check(campaign: Campaign, records: list[JobRecord], **figures: int) -> None:
    """Ledger, records, queue and store say the same, with no mending after the last fault."""
    project = campaign.project
    counted = ledger.check(records, Ledger(project.ledger_path), repeated_after=ledger.LOST)
    left = check_halves(broker_of(project))
    campaign.tell(counted)
    told = {**figures, "entries left that start nothing": len(left)}
    print(", ".join(f"{name}: {number}" for name, number in told.items()))
    outputs = campaign.outputs().values()
    assert not [output for output in outputs if "Traceback" in output]


def broker_of(project: Project) -> ComposedBroker:
    broker = project.client.broker
    assert isinstance(broker, ComposedBroker)
    return broker


# --- servers that are killed ------------------------------------------------------------------------


def test_no_job_is_lost_by_servers_that_are_killed_by_turns_and_come_back(
    campaign: Campaign, servers: Pair
) -> None:
    def kill(_: Process) -> None:
        time.sleep(1.0)  # the rhythm of the faults: nothing is waited for
        server = (servers.redis, servers.mongo)[campaign.faults % 2]
        server.kill()
        time.sleep(campaign.random.choice(PAUSES))  # how long the fault lasts
        server.start()

    check(campaign, campaign.run(kill))


def test_workers_and_both_servers_killed_by_turns_lose_nothing(campaign: Campaign, servers: Pair) -> None:
    def kill(worker: Process) -> None:
        time.sleep(1.0)  # the rhythm of the faults: nothing is waited for
        campaign.replace(worker, signal.SIGKILL)
        if campaign.faults % 3 == 0:
            for one in campaign.workers:  # which do not start without their servers
                one.until_output("worker.started")
            server = (servers.redis, servers.mongo)[campaign.faults % 2]
            server.kill()
            server.start()

    check(campaign, campaign.run(kill))


def test_a_cluster_and_a_replica_set_by_turns_lose_nothing(tmp_path: Path) -> None:
    """The node that holds the prefix is killed and comes back; the primary of the replica set steps down."""
    with cluster(*SAFE_NODES) as nodes, replica_set() as replicas:
        prefix = prefix_on(nodes, nodes[0])
        with project_on(tmp_path, cluster_url(nodes), replicas.url, prefix) as project:
            campaign = begin(project)

            def fault(_: Process) -> None:
                time.sleep(1.0)  # the rhythm of the faults: nothing is waited for
                if campaign.faults % 2:
                    replicas.until_whole()
                    replicas.next_primary(replicas.step_down())
                else:
                    nodes[0].kill()
                    time.sleep(campaign.random.choice(PAUSES))  # how long the fault lasts
                    nodes[0].start()
                    until_in_step(nodes)

            check(campaign, campaign.run(fault))


# --- a queue that loses what it held ----------------------------------------------------------------


def test_a_queue_that_is_emptied_again_and_again_gets_its_jobs_back(
    campaign: Campaign, servers: Pair
) -> None:
    """By the task, in a process of its own, and by the operation that it and the command use."""
    project = campaign.project
    given_back: list[int] = []

    def empty(_: Process) -> None:
        time.sleep(campaign.random.uniform(0.1, 1.0))  # the rhythm of the faults: nothing is waited for
        if campaign.faults % 3:  # otherwise nothing is lost, and nothing is to be changed
            servers.empty_redis()
        if campaign.faults % 5 == 4:
            given_back.append(json.loads(project.mrq("run", MEND))["requeued"])
        else:
            given_back.append(sum(len(step.repaired) for step in repair_all(project.client.broker)))

    records = campaign.run(empty)
    print(f"places given back: {given_back}")
    check(campaign, records, given_back=sum(given_back))
    # All workers live: a job starts again only if its worker got no processor for a lease, and noticed.
    assert set(ledger.lost_attempts(records)) <= ledger.noticed_losses(campaign.outputs())
    assert sum(given_back)
