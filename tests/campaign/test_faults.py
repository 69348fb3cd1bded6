"""Whatever befalls the workers, no acknowledged job is lost and each repeat is explained by the records.

Four workers run jobs that a client enqueues all the while, and one of them, chosen at random, is
killed, told to leave, or frozen, again and again. The seed is printed; MRQ_TEST_SEED repeats it, as far
as the choices go.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mrq_core.contract.record import Status
from tests import brokers
from tests.campaign import ledger
from tests.campaign.campaign import LEASE, Campaign
from tests.campaign.ledger import Ledger
from tests.support import Process, open_project

pytestmark = pytest.mark.campaign

JOBS = int(os.environ.get("MRQ_TEST_JOBS", "1000"))
SEED = int(os.environ.get("MRQ_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1_000_000)
MOST_FAULTS = 30


@pytest.fixture(params=brokers.NAMES)
def campaign(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Campaign]:
    print(f"seed: {SEED}")
    with open_project(tmp_path, *brokers.address_of(request.param, tmp_path)) as project:
        project.write("tasks.py", ledger.TASKS)
        yield Campaign(project, jobs=JOBS, most_faults=MOST_FAULTS, seed=SEED)
        brokers.check_counters(request.param, project.client.broker, tmp_path)


def test_no_job_is_lost_by_workers_that_are_killed(campaign: Campaign) -> None:
    killed: set[int] = set()

    def kill(worker: Process) -> None:
        time.sleep(1.0)  # the rhythm of the faults: nothing is waited for
        killed.add(worker.pid)
        campaign.replace(worker, signal.SIGKILL)

    records = campaign.run(kill)
    counted = ledger.check(records, Ledger(campaign.project.ledger_path), repeated_after=ledger.LOST)
    # A survivor loses a claim if it gets no processor for a lease; then it has to have noticed.
    lost = ledger.lost_attempts(records)
    noticed = ledger.noticed_losses(campaign.outputs())
    assert {(job, pid) for job, pid in lost if pid not in killed} <= noticed
    counted["lost by survivors"] = sum(n for (_, pid), n in lost.items() if pid not in killed)
    campaign.tell(counted)
    assert counted[ledger.LOST] > 0


def test_no_claim_is_lost_by_workers_that_are_told_to_leave(campaign: Campaign) -> None:
    left: list[Process] = []

    def tell_to_leave(worker: Process) -> None:
        time.sleep(1.0)  # the rhythm of the faults: nothing is waited for
        left.append(worker)
        campaign.replace(worker, signal.SIGTERM)

    records = campaign.run(tell_to_leave)
    for worker in left:
        code = worker.wait()
        # One that had not yet begun to work when it was told dies of the signal.
        assert code == 0 or ("worker.started" not in worker.output and code == -signal.SIGTERM), worker.output
    interrupt = Status.INTERRUPT.value
    counted = ledger.check(records, Ledger(campaign.project.ledger_path), repeated_after=interrupt)
    campaign.tell(counted)
    assert counted[interrupt] > 0
    assert not ledger.noticed_losses(campaign.outputs())


def test_outcomes_of_workers_that_were_frozen_come_too_late(campaign: Campaign) -> None:
    def freeze(worker: Process) -> None:
        time.sleep(1.0)  # the rhythm of the faults: nothing is waited for
        worker.send(signal.SIGSTOP)
        time.sleep(3 * LEASE)  # how long the fault lasts
        worker.send(signal.SIGCONT)

    records = campaign.run(freeze)
    counted = ledger.check(records, Ledger(campaign.project.ledger_path), repeated_after=ledger.LOST)
    refused = ledger.refused_settles(campaign.outputs())
    counted["settles refused"] = refused.total()
    campaign.tell(counted)
    assert refused == ledger.lost_attempts(records)
    assert counted[ledger.LOST] > 0
