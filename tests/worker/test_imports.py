"""Tasks whose modules import each other, or take long to import."""

from __future__ import annotations

import pytest

from mrq_core.contract.record import Status
from tests.support import Project, until

FIRST = """
import time
time.sleep(0.1)
import {other}
from mrq_core import task

NAME = "{name}"

@task
def run():
    return [NAME, {other}.NAME]
"""

HANGS = """
import tasks, time
tasks.note("importing")
while True:
    time.sleep(0.01)
"""

SPINS = """
import tasks
tasks.note("importing")
while True:
    pass
"""

FORKS = """
import os, sys
from mrq_core import task
CHILD = os.fork()
if CHILD == 0:
    sys.exit(3)

@task
def run():
    return os.waitstatus_to_exitcode(os.waitpid(CHILD, 0)[1])
"""

CHILDREN = """
import os, time
from mrq_core import task

@task
def imports_in_a_child():
    pid = os.fork()
    if pid == 0:
        import slow
        raise SystemExit(slow.NAME == "slow")
    for _ in range(1000):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, 9)
    return "it did not end"
"""

FIRST_JOB = """
import os
from mrq_core import task

@task
def run():
    os.environ["PARENT"] = str(os.getpid())
"""

SLOW = """
import os, time, tasks
tasks.note("slow")
while "go" not in os.listdir("."):
    time.sleep(0.01)
    if PARENT != os.getpid():
        break
NAME = "slow"
from mrq_core import task

@task
def run():
    return NAME
"""


def test_modules_that_import_each_other_load_in_two_jobs_at_once(project: Project) -> None:
    project.write("left.py", FIRST.format(name="left", other="right"))
    project.write("right.py", FIRST.format(name="right", other="left"))
    jobs = [project.queue(f"{name}.run") for name in ("left", "right")]
    project.work_off("--greenlets", "2")
    assert [project.ended(job).result for job in jobs] == [["left", "right"], ["right", "left"]]


@pytest.mark.parametrize("code", [HANGS, SPINS])
@pytest.mark.parametrize("isolate", [False, True])
def test_an_import_that_hangs_ends_with_the_timeout_of_its_job(
    project: Project, code: str, isolate: bool
) -> None:
    project.write("hangs.py", code)
    project.write("mrq-config.py", f"TASKS = {{'hangs.run': {{'timeout': 1, 'isolate': {isolate}}}}}\n")
    job = project.queue("hangs.run")
    beside = project.queue("tasks.Add", {"a": 1, "b": 1})
    project.work_off("--greenlets", "2")
    record = project.ended(job)
    assert record.status == Status.TIMEOUT
    assert "the import of the task took longer" in (record.traceback or "")
    assert project.ended(beside).result == 2
    assert project.ended(beside).claims == 1


def test_an_import_that_hangs_does_not_keep_other_tasks_from_running(project: Project) -> None:
    project.write("hangs.py", HANGS)
    project.queue("hangs.run")
    project.worker("--greenlets", "2")
    until(project.ledger, what="the import")
    assert project.ended(project.queue("tasks.Add", {"a": 1, "b": 1})).result == 2


def test_a_child_that_a_module_forks_ends_where_the_import_ends(project: Project) -> None:
    project.write("forks.py", FORKS)
    job = project.queue("forks.run")
    project.work_off()
    assert project.ended(job).result == 3


def test_a_child_imports_a_module_that_another_job_imports_at_the_fork(project: Project) -> None:
    project.write("slow.py", SLOW.replace("PARENT", "int(os.environ['PARENT'])"))
    project.write("children.py", CHILDREN)
    project.write("first.py", FIRST_JOB)
    project.worker("--greenlets", "3")
    project.ended(project.queue("first.run"))
    slow = project.queue("slow.run")
    until(lambda: "slow" in project.ledger(), what="the import")
    assert project.ended(project.queue("children.imports_in_a_child")).result == 1
    project.write("go", "")
    assert project.ended(slow).result == "slow"


HALF = """
import os, time
from mrq_core import task
from tasks import note

note("half")
if not os.path.exists("quick"):
    time.sleep(30)
WHOLE = 1


@task
def works():
    return WHOLE
"""
BETWEEN = "import half\nfrom half import *\n\ndef whole():\n    return half.WHOLE\n"
BUILT = """
{imports}
from mrq_core import task


@task
def works():
    return {value}
"""


def test_no_import_begins_beside_another_before_that_takes_long(project: Project) -> None:
    """Together these take longer than the patience with one."""
    project.write("half.py", HALF)
    project.write("built.py", BUILT.format(imports="import half", value="half.WHOLE"))
    project.write(
        "mrq-config.py", "TASKS = {f'{name}.works': {'timeout': 1} for name in ('half', 'built')}\n"
    )
    jobs = [project.queue("half.works"), *[project.queue("built.works") for _ in range(4)]]
    project.worker("--greenlets", "6")
    assert {project.ended(job).status for job in jobs} == {Status.TIMEOUT}
    assert project.ledger() == ["half"] * len(jobs)
    project.write("quick", "")
    assert project.ended(project.queue("built.works")).result == 1


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("imports", "value"), [("import half", "half.WHOLE"), ("from between import whole", "whole()")]
)
def test_what_is_built_on_a_module_whose_import_was_interrupted_is_imported_anew(
    project: Project, imports: str, value: str
) -> None:
    project.write("half.py", HALF)
    project.write("between.py", BETWEEN)
    project.write("built.py", BUILT.format(imports=imports, value=value))
    project.write("mrq-config.py", "TASKS = {'half.works': {'timeout': 5}}\n")
    half, built = project.queue("half.works"), project.queue("built.works")
    project.worker("--greenlets", "6")
    until(project.ledger, what="the first import")
    project.write("quick", "")
    assert project.ended(half).status == Status.TIMEOUT
    assert project.ended(built).result == 1
    assert project.ended(project.queue("half.works")).result == 1
    assert project.ledger() == ["half", "half"]
