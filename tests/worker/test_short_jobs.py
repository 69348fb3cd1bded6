"""What a job of less than a millisecond changes for its whole process: the next job has it as it was."""

from __future__ import annotations

import pytest

from tests.support import Project

SHORT = """
import os
import pickle
import resource
import signal

from mrq_core import task

HERE = os.getcwd()


@task
def leaves_in():
    os.mkdir("gone")
    os.chdir("gone")
    os.rmdir("../gone")


@task
def lowers_limits():
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


@task
def ignores_signals():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)


@task
def blocks_signals():
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))


@task
def sets_alarms():
    signal.setitimer(signal.ITIMER_REAL, 1000)


@task
def changes_nothing():
    pass


@task
def state():
    try:
        folder = os.getcwd() == HERE
    except OSError:
        folder = "gone"
    return [
        folder,
        resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 64,
        signal.SIG_IGN in (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)),
        sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        signal.getitimer(signal.ITIMER_REAL)[0],
    ]


@task
def same_functions():
    functions = [os.chdir, signal.signal, resource.setrlimit]
    return [pickle.loads(pickle.dumps(functions)) == functions, os.chdir in os.supports_fd, os.chdir.__name__]
"""


@pytest.fixture(autouse=True)
def short(project: Project) -> None:
    project.write("short.py", SHORT)


@pytest.mark.parametrize(
    "change", ["leaves_in", "lowers_limits", "ignores_signals", "blocks_signals", "sets_alarms"]
)
def test_the_next_job_has_the_process_as_it_was(project: Project, change: str) -> None:
    project.queue("short.changes_nothing")  # imports
    before = project.queue("short.state")
    later = []
    for _ in range(4):  # one of them at least is short enough
        project.queue(f"short.{change}")
        later.append(project.queue("short.state"))
    project.work_off()
    expected = project.ended(before).result
    assert [project.ended(job).result for job in later] == [expected] * len(later)


def test_the_functions_that_the_worker_notes_are_those_of_their_modules(project: Project) -> None:
    job = project.queue("short.same_functions")
    project.work_off()
    assert project.ended(job).result == [True, True, "chdir"]


def test_nothing_is_said_to_be_restored_after_jobs_that_change_nothing(project: Project) -> None:
    project.queue("short.changes_nothing")  # imports, which takes longer than a millisecond
    project.queue("short.same_functions")
    worker = project.work_off()
    assert "restored" not in worker.output
