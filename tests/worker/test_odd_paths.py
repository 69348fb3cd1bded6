"""A task that spoils `sys.path` costs no other job its outcome."""

from __future__ import annotations

from mrq_core.contract.record import Status
from tests.support import Project

SPOILS = """
import os
import sys
import time
from mrq_core import task
from tasks import note


@task
def spoils():
    sys.path.insert(0, os.environ.get("NOT_SET"))


@task(at_most_once=True)
def runs_once(n: int):
    note(str(n))
    time.sleep(0.02)
    sys.path.insert(0, None)
"""


def test_what_a_task_puts_on_the_path_costs_no_job_its_outcome(project: Project) -> None:
    project.write("spoils.py", SPOILS)
    jobs = []
    for n in range(60):
        if n % 10 == 5:
            project.queue("spoils.spoils")
        jobs.append(project.queue("spoils.runs_once", {"n": n}))
    worker = project.work_off("--greenlets", "20", "--lease", "2")
    assert {project.ended(job).status for job in jobs} == {Status.SUCCESS}
    assert sorted(project.ledger(), key=int) == [str(n) for n in range(60)]
    assert "failed" not in worker.output
