"""Whatever befalls a Redis server, no acknowledged job is lost and each repeat follows a lost claim.

Workers that are killed, told to leave or frozen are in `test_faults`, on every broker. Here it is the server
that is killed and started again, that forgets its scripts, or that is replaced by its replica.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from mrq_core.errors import BrokerUnavailable
from mrq_core.job import ENDED, Status
from mrq_core.messages import JobFilter
from tests.campaign import ledger
from tests.campaign.campaign import LEASE, Campaign
from tests.campaign.ledger import Ledger
from tests.redis.recount import check_keys
from tests.redis.servers import Server
from tests.redis.services import sentinels
from tests.support import Process, Project, open_project, until

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


def test_workers_go_on_with_the_replica_and_what_is_lost_is_told(tmp_path: Path) -> None:
    """A failover keeps no promise about what the replica did not have yet: that is counted and printed."""
    with sentinels(tmp_path) as service, open_project(tmp_path, service.url) as project:
        project.write("tasks.py", ledger.TASKS)
        workers = [project.start("worker", "--lease", f"{LEASE:g}", "--greenlets", "5") for _ in range(2)]
        for worker in workers:
            worker.until_output("worker.started")
        acknowledged: list[str] = []
        failed = 0
        killed_at = promoted_at = 0.0
        while len(acknowledged) < JOBS:
            try:
                acknowledged.append(project.queue("tasks.work", {"seconds": 0.01}))
            except BrokerUnavailable:
                failed += 1
            if killed_at and not promoted_at and service.is_promoted():
                promoted_at = time.time()
            if not killed_at and len(acknowledged) >= JOBS // 2:
                service.primary.kill()
                killed_at = time.time()
        until(lambda: _have_ended(project), what="all jobs that are left to end")
        records = ledger.all_records(project.client.broker)
        assert {record.status for record in records} == {Status.SUCCESS}
        later = [a.started_at.timestamp() for record in records for a in record.attempts]
        first = min(moment for moment in later if moment > promoted_at)
        there = {record.id for record in records}
        done = Counter(mark.job for mark in Ledger(project.ledger_path).ends)
        missing = [job for job in acknowledged if job not in there]
        print(
            f"acknowledged: {len(acknowledged)}, lost: {len(missing)} "
            f"(of these run: {sum(job in done for job in missing)}), run more than once: "
            f"{sum(number > 1 for number in done.values())}, enqueues refused: {failed}, promoted after "
            f"{promoted_at - killed_at:.2f} s, first claim {first - promoted_at:.2f} s later"
        )
        check_keys(project.client.broker)  # type: ignore[arg-type]
        for worker in workers:
            worker.send(signal.SIGINT)
            assert worker.wait() == 0, worker.output


def _have_ended(project: Project) -> bool:
    try:
        counts = project.client.broker.count(JobFilter(), "status")
    except BrokerUnavailable:
        return False
    return bool(counts) and set(counts) <= {status.value for status in ENDED}
