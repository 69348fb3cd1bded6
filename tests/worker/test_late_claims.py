"""The answer of a claim that a worker reads late, because a job has kept the hub meanwhile."""

from __future__ import annotations

import pytest

from mrq_core.contract.record import Status
from tests.support import Project

LATE = """
import time
from msgspec.structs import replace
from mrq_core import hookimpl, task
from mrq_core.worker.claiming import Claiming
from tasks import note

OTHER = {other}
claim = Claiming._claim

class Late:
    def __init__(self, broker):
        self.broker = broker
        self.renew, self.settle, self.wait = broker.renew, broker.settle, broker.wait

    def claim(self, request):
        answer = self.broker.claim(request)
        if answer.records:
            ends = time.monotonic() + 1.0
            while time.monotonic() < ends:  # as a job that computes
                pass
            if OTHER:
                assert self.broker.claim(replace(request, worker="other", lost_limit=10, lease=600)).records
        return answer

def late_claim(self, *arguments):
    if not isinstance(self._broker, Late):
        self._broker = Late(self._broker)
        answer = claim(self, *arguments)
        self._broker = self._broker.broker
        return answer
    return claim(self, *arguments)

Claiming._claim = late_claim

@task
def runs():
    note("runs")
    time.sleep(0.3)

@task(at_most_once=True)
def runs_once():
    note("runs")
    time.sleep(0.3)
"""


@pytest.mark.parametrize("path", ["late.runs", "late.runs_once"])
def test_its_jobs_run_once(project: Project, path: str) -> None:
    project.write("late.py", LATE.format(other=False))
    job = project.queue(path)
    worker = project.work_off("--lease", "0.5", "--greenlets", "4", "--plugins", "late")
    record = project.ended(job)
    assert (record.status, record.claims) == (Status.SUCCESS, 1), worker.output
    assert project.ledger() == ["runs"]


def test_jobs_that_another_worker_has_claimed_since_do_not_run(project: Project) -> None:
    project.write("late.py", LATE.format(other=True))
    job = project.queue("late.runs")
    worker = project.work_off("--lease", "0.5", "--greenlets", "4", "--plugins", "late")
    assert f"claim.lost id={job}: another worker has claimed the job before its code started" in worker.output
    record = project.client.fetch(job)
    assert (record.status, record.claims, record.worker) == (Status.STARTED, 2, "other")
    assert project.ledger() == []
