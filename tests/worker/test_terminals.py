"""A worker in a terminal that is closed, and one under nohup."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from mrq_core.contract.record import Status
from mrq_core.worker.guards.process_end import LEAVE_WITHIN
from tests.support import LOAD, PATIENCE, Project, until

GRACE = 1.0
_MRQ = [sys.executable, "-m", "mrq_core.cli"]
_IN_A_SESSION = """
import fcntl, os, sys, termios
if sys.argv[1] == "controlled":
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""Makes the terminal on standard input that of the session, so that its end is announced by SIGHUP."""


FAILS_LATER = """
import time
from mrq_core import task
from tasks import note

@task
def fails_later():
    print("half a line, which stays in the buffer", end="")
    note("start")
    time.sleep(0.5)
    raise ValueError("it does not work")
"""


@pytest.fixture(autouse=True)
def ends_badly(project: Project) -> None:
    del project.env["PYTHONUNBUFFERED"]
    project.write("ends_badly.py", FAILS_LATER)


class InTerminal:
    """A worker whose standard streams are a terminal."""

    def __init__(self, project: Project, *before: str, controlled: bool = True, grace: float = GRACE) -> None:
        self._master, slave = pty.openpty()
        self._is_open = True
        words = [*before, *_MRQ, "worker", "--stop-grace", str(grace), "--max-latency", "0.05"]
        kind = "controlled" if controlled else "free"
        self.popen = subprocess.Popen(
            [sys.executable, "-c", _IN_A_SESSION, kind, *words],
            cwd=project.path, env=project.env, start_new_session=True,
            stdin=slave, stdout=slave, stderr=slave,
        )  # fmt: skip
        os.close(slave)

    def close_terminal(self) -> None:
        os.close(self._master)
        self._is_open = False

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()
        if self._is_open:
            self.close_terminal()


@contextlib.contextmanager
def in_terminal(
    project: Project, *before: str, controlled: bool = True, grace: float = GRACE
) -> Iterator[InTerminal]:
    worker = InTerminal(project, *before, controlled=controlled, grace=grace)
    try:
        yield worker
    finally:
        worker.end()


def test_the_end_of_the_terminal_interrupts_jobs_after_the_grace(project: Project) -> None:
    job = project.queue("tasks.noted", {"word": "job", "seconds": 1000})
    with in_terminal(project) as worker:
        until(project.ledger, what="the job to start")
        since = time.monotonic()
        worker.close_terminal()
        assert worker.popen.wait(PATIENCE) == 0
        assert GRACE - 0.1 < time.monotonic() - since < GRACE + LEAVE_WITHIN + LOAD
    record = project.client.fetch(job)
    assert (record.status, record.claims, record.lost_claims) == (Status.INTERRUPT, 1, 0)


def test_a_job_may_finish_in_the_grace_after_the_end_of_the_terminal(project: Project) -> None:
    job = project.queue("tasks.noted", {"word": "job", "seconds": 0.5})
    with in_terminal(project, grace=PATIENCE) as worker:
        until(project.ledger, what="the job to start")
        worker.close_terminal()
        assert worker.popen.wait(PATIENCE) == 0
    assert project.client.fetch(job).status == Status.SUCCESS


def test_under_nohup_a_worker_outlives_its_terminal(project: Project) -> None:
    job = project.queue("tasks.noted", {"word": "job", "seconds": 0.5})
    with in_terminal(project, "nohup") as worker:
        until(project.ledger, what="the job to start")
        worker.close_terminal()
        assert project.ended(job).status == Status.SUCCESS
        later = project.queue("tasks.noted", {"word": "later", "seconds": 1000})
        until(lambda: "start-later" in project.ledger(), what="a later job to start")
        worker.popen.send_signal(signal.SIGHUP)
        worker.popen.send_signal(signal.SIGTERM)
        assert worker.popen.wait(PATIENCE) == 0
    assert project.client.fetch(later).status == Status.INTERRUPT
    assert "worker.stopping on SIGTERM" in (project.path / "nohup.out").read_text()
    assert "SIGHUP" not in (project.path / "nohup.out").read_text()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_whose_output_is_gone_stops_properly(project: Project, signum: signal.Signals) -> None:
    running = project.queue("ends_badly.fails_later")
    with in_terminal(project, controlled=False, grace=PATIENCE) as worker:
        until(project.ledger, what="the job to start")
        worker.close_terminal()  # writes fail from now on, and no signal tells of it
        worker.popen.send_signal(signum)
        assert worker.popen.wait(PATIENCE) == 0
    assert project.client.fetch(running).exception_type == "ValueError"


def test_a_worker_whose_output_is_gone_goes_on(project: Project) -> None:
    first = project.queue("ends_badly.fails_later")
    with in_terminal(project, controlled=False) as worker:
        until(project.ledger, what="the job to start")
        worker.close_terminal()
        assert project.ended(first).exception_type == "ValueError"
        assert project.ended(project.queue("tasks.Add", {"a": 1, "b": 1})).result == 2
        assert worker.popen.poll() is None
