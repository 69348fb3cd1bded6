"""`mrq stack`: the stacks of a worker, of its jobs, and of the processes of isolated jobs."""

from __future__ import annotations

import subprocess
import sys
from types import FrameType

import pytest

from mrq_core.ids import new_id
from mrq_core.worker.reporting.stacks import full_stack
from tests.support import PATIENCE, Project, until

TASKS = """
import time

import gevent
from mrq_core import task
from tasks import note


def deepest(seconds):
    note("deep")
    time.sleep(seconds)


@task
def waits():
    gevent.spawn(helper)
    deepest(1000)


def helper():
    note("helps")
    gevent.sleep(1000)


@task(isolate=True)
def alone():
    deepest(1000)


@task(isolate=True)
def alone_and_busy():
    note("deep")
    while True:
        pass


@task
def blocks():
    note("blocks")
    while True:
        pass
"""


@pytest.fixture(autouse=True)
def stacked(project: Project) -> None:
    project.write("stacked.py", TASKS)


def until_noted(project: Project, *words: str) -> None:
    until(lambda: set(words) <= set(project.ledger()), what=f"{words} in the ledger")


def refused(project: Project, *arguments: str) -> str:
    """What a command that fails says."""
    done = subprocess.run(
        [sys.executable, "-m", "mrq_core.cli", *arguments],
        cwd=project.path, env=project.env, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout
    return done.stderr


def test_the_stacks_of_all_greenlets_or_of_one_job(project: Project) -> None:
    jobs = [project.queue("stacked.waits"), project.queue("tasks.noted", {"word": "x", "seconds": 1000})]
    worker = project.worker("--name", "web", "-g", "2")
    until_noted(project, "deep", "helps", "start-x")
    of_worker = project.mrq("stack", "web")
    assert all(f"{job} " in of_worker for job in jobs)
    assert "in deepest" in of_worker
    assert "in helper" in of_worker
    of_job = project.mrq("stack", jobs[0])
    assert "in deepest" in of_job
    assert jobs[1] not in of_job
    assert "in helper" not in of_job
    assert worker.popen.poll() is None


@pytest.mark.parametrize("task", ["alone", "alone_and_busy"])
def test_the_stack_of_an_isolated_job_comes_while_another_job_blocks_the_hub(
    project: Project, task: str
) -> None:
    alone = project.queue(f"stacked.{task}")
    project.worker("--name", "web", "-g", "2")
    until_noted(project, "deep")
    name = "deepest" if task == "alone" else task
    assert f"in {name}\n" in project.mrq("stack", alone)
    blocking = project.queue("stacked.blocks")
    until_noted(project, "blocks")
    assert f"in {name}\n" in project.mrq("stack", alone)
    of_worker = project.mrq("stack", "web")
    assert "in blocks\n" in of_worker
    assert f"in {name}\n" in of_worker
    assert "in blocks\n" in project.mrq("stack", blocking)


def test_only_a_running_job_has_a_stack(project: Project) -> None:
    job = project.queue("tasks.fail")
    assert f"the job {job} is queued: only a running job has a stack" in refused(project, "stack", job)
    project.work_off()
    assert "is failed: only a running job" in refused(project, "stack", job)
    assert "has stopped; " in refused(project, "stack", project.client.fetch(job).worker or "")
    unknown = new_id()
    assert unknown in refused(project, "stack", unknown)
    assert "no worker named 'gone'" in refused(project, "stack", "gone")


def test_the_stacks_of_a_worker_leave_out_its_own_greenlets(project: Project) -> None:
    project.worker("--name", "idle", "--max-latency", "60")
    for _ in range(3):  # it waits for a hint of the broker
        assert "claiming.py" not in project.mrq("stack", "idle")


def test_a_source_file_whose_name_cannot_be_encoded_has_a_stack() -> None:
    found: list[FrameType] = []
    code = compile("import sys; found.append(sys._getframe())", "odd\ud800.py", "exec")
    exec(code, {"found": found})
    stack = full_stack(found[0])
    assert "odd\\ud800.py" in stack
    assert "<module>" in stack
    assert stack.isascii()
