"""A job that recurses too deep within a call of the client, at whatever depth of the call."""

from __future__ import annotations

import pytest

from mrq_core.contract.record import Status
from tests.support import Project

RECURSING = """
from mrq_core import Job, queue_job, task
from mrq_core.errors import BrokerUnavailable

@task
def none():
    pass

def run_at_each_depth(call):
    def depth(number=0):
        try:
            return depth(number + 1)
        except RecursionError:
            return number

    def down(number):
        return call() if number <= 0 else down(number - 1)

    failed, deepest = 0, depth()
    for left in range(1, 260):
        try:
            down(deepest - left)
        except (RecursionError, BrokerUnavailable):
            failed += 1
    return failed

@task
def enqueues():
    return run_at_each_depth(lambda: queue_job("recursing.none", {}, "other"))

@task
def reads():
    job = Job(queue_job("recursing.none", {}, "other"))
    return run_at_each_depth(job.fetch)
"""


@pytest.mark.parametrize("call", ["enqueues", "reads"])
def test_the_worker_and_other_jobs_go_on(project: Project, call: str) -> None:
    project.write("recursing.py", RECURSING)
    job = project.queue(f"recursing.{call}")
    project.worker("--greenlets", "3")
    record = project.ended(job)
    assert record.status == Status.SUCCESS
    assert isinstance(record.result, int)
    assert 0 < record.result < 259, "some calls were too deep"
    for number in range(3):
        assert project.ended(project.queue("tasks.Add", {"a": number, "b": 1})).result == number + 1
