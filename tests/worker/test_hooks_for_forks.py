"""Code that Python runs amid a fork of a task: hooks for forks, and what the garbage collector calls.

Such code may wait. In a child that still had the hub of its worker, a wait would run the jobs beside it.
"""

from __future__ import annotations

import pytest

from mrq_core.contract.record import Status
from tests.support import Project

FORKS = """
import gc
import os
import time

from mrq_core import log, queue_job, task

FORKER = os.getpid()


def fork(child=int):
    pid = os.fork()
    if pid == 0:
        child()
        os._exit(4)
    ends = time.monotonic() + 20
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > ends:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            return "hangs"
        time.sleep(0.005)


@task
def forks():
    return [fork() for _ in range(4)]


class Cyclic:
    def __init__(self):
        self.me = self

    def __del__(self):
        if os.getpid() != FORKER:
            time.sleep(0.001)


@task
def collects(kind: str):
    def on_collection(phase, info):
        if os.getpid() != FORKER:
            log.info("collected") if kind == "logs" else time.sleep(0.001)

    if kind != "finalizes":
        gc.callbacks.append(on_collection)
    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        cycles = [Cyclic() for _ in range(100)]
        del cycles
        return [fork() for _ in range(4)]
    finally:
        gc.set_threshold(*before)
        gc.callbacks[:] = [one for one in gc.callbacks if one is not on_collection]


@task
def is_collecting():
    pid = os.fork()
    if pid == 0:
        os._exit(7 if gc.isenabled() else 8)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), gc.isenabled()]


@task
def nothing():
    pass


@task
def queues():
    return fork(lambda: queue_job("forks.nothing"))


@task(at_most_once=True)
def once(number: int):
    with open(os.environ["LEDGER"], "a") as file:
        file.write(f"{number}\\n")
"""
HOOKS = """
import os
import threading
import time


def sleep():
    time.sleep(0.01)


def start():
    threading.Thread(target=sleep, daemon=True).start()


def join():
    thread = threading.Thread(target=sleep)
    thread.start()
    thread.join()


os.register_at_fork(before=HOOK, after_in_parent=HOOK, after_in_child=HOOK)
"""
WAIT_BEFORE = """
import os
import time

os.register_at_fork(before=lambda: time.sleep(0.01))
"""


@pytest.fixture
def project(project: Project) -> Project:
    project.write("forks.py", FORKS)
    return project


def _check(project: Project, path: str, **params: object) -> None:
    """The jobs fork as they should, and each of the others beside them runs once."""
    forks: list[str] = []
    others: list[str] = []
    for _ in range(3):
        others.append(project.queue("forks.once", {"number": len(others)}))
        forks.append(project.queue(path, params))
        others.append(project.queue("forks.once", {"number": len(others)}))
    project.work_off("--greenlets", "3")
    assert [project.ended(job_id).result for job_id in forks] == [[4] * 4] * 3
    assert {project.ended(job_id).status for job_id in others} == {Status.SUCCESS}
    assert sorted(project.ledger()) == [str(number) for number in range(len(others))]


@pytest.mark.parametrize("kind", ["sleeps", "logs", "finalizes"])
def test_what_the_garbage_collector_calls_amid_a_fork_runs_no_other_job(project: Project, kind: str) -> None:
    _check(project, "forks.collects", kind=kind)


@pytest.mark.parametrize("hook", ["sleep", "start", "join"])
def test_hooks_of_code_that_was_imported_before_mrq_run_no_other_job(project: Project, hook: str) -> None:
    """As those of a tracer that is started with Python."""
    project.write("sitecustomize.py", HOOKS.replace("HOOK", hook))
    project.env["PYTHONPATH"] = str(project.path)
    _check(project, "forks.forks")


def test_a_hook_that_waits_before_a_fork_lets_no_transaction_begin_before_it(project: Project) -> None:
    project.write("sitecustomize.py", WAIT_BEFORE)
    project.env["PYTHONPATH"] = str(project.path)
    jobs = [project.queue("forks.queues") for _ in range(100)]
    project.work_off("--greenlets", "10")
    assert {project.ended(job_id).result for job_id in jobs} == {4}


def test_the_garbage_collector_goes_on_after_a_fork(project: Project) -> None:
    job_id = project.queue("forks.is_collecting")
    project.work_off()
    assert project.ended(job_id).result == [7, True]
