"""A worker that is killed beside others, which hold jobs that take long."""

from __future__ import annotations

import signal

from mrq_core.contract.record import Status
from tests.support import Project, until

FLEET = """
import time
from pathlib import Path
from mrq_core import get_current_job, task
from tasks import note


@task
def hold(word: str):
    note(word)
    while not Path("released").exists():
        time.sleep(0.02)


@task
def stay_the_first_time(word: str):
    note(word)
    if get_current_job().record.claims == 1:
        time.sleep(1000)
"""


def test_a_killed_worker_slows_no_other_and_its_jobs_do_not_wait(project: Project) -> None:
    project.write("fleet.py", FLEET)
    lost = [project.queue("fleet.stay_the_first_time", {"word": f"lost{n}"}) for n in range(6)]
    doomed = project.worker("--greenlets", "6", "--lease", "1")
    until(lambda: len(project.ledger()) == 6, what="the jobs of the doomed worker to start")
    held = []
    for number in range(3):
        held.append(project.queue("fleet.hold", {"word": f"held{number}"}, queue=f"held{number}"))
        project.worker(f"held{number}", "default", "--greenlets", "6", "--lease", "1")
    until(lambda: len(project.ledger()) == 9, what="each other worker to hold a job")
    doomed.send(signal.SIGKILL)
    doomed.wait()
    others = project.client.queue_jobs("tasks.Add", [{"a": n, "b": 1} for n in range(300)])
    # The three jobs are held until the end: nothing below may wait for them.
    again = [project.ended(job) for job in lost]
    assert [record.status for record in again] == [Status.SUCCESS] * 6
    assert [record.claims for record in again] == [2] * 6
    assert [project.ended(job).status for job in others] == [Status.SUCCESS] * 300
    late = project.queue("tasks.Add", {"a": 1, "b": 1})
    assert project.ended(late).status is Status.SUCCESS
    assert [project.client.fetch(job).status for job in held] == [Status.STARTED] * 3
    project.write("released", "")
    assert [project.ended(job).claims for job in held] == [1] * 3
