"""Stops at odd moments: in the start and the first claim, while the broker is away or frozen, and without a
terminal."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest

from mrq_core.contract.record import Status
from mrq_core.worker.guards.process_end import LEAVE_WITHIN
from tests.redis.servers import Server as RedisServer
from tests.servers import ServerProcess
from tests.support import LOAD, Project, open_project, until
from tests.worker.conftest import TASKS
from tests.worker.test_terminals import in_terminal

SLOW_IMPORT = """
import time
from mrq_core import task
from tasks import note

note("importing")
time.sleep(1000)


@task
def never():
    pass
"""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_at_any_moment_of_the_start_leaves_no_job_started(
    project: Project, signum: signal.Signals
) -> None:
    # After a first SIGINT, a job that runs ends; the others interrupt it, and it may not end before they do.
    seconds = 0.2 if signum == signal.SIGINT else 60
    for number in range(6):
        job = project.queue("tasks.noted", {"word": f"w{number}", "seconds": seconds}, queue=f"q{number}")
        worker = project.start("worker", f"q{number}", "--stop-grace", "0")
        time.sleep(0.15 * number)  # the moment of the signal
        worker.send(signum)
        code = worker.wait()
        allowed = (0, 130) if signum == signal.SIGINT else (0,)
        # Until gevent is imported, a signal has its default effect; Python prints a KeyboardInterrupt.
        is_too_early = code == -signum or "KeyboardInterrupt" in worker.output
        assert (is_too_early and "worker.starting" not in worker.output) or (
            code in allowed and "Traceback" not in worker.output
        ), worker.output
        record = project.client.fetch(job)
        expected = {Status.QUEUED, Status.SUCCESS if signum == signal.SIGINT else Status.INTERRUPT}
        assert record.status in expected
        assert record.lost_claims == 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_a_stop_while_a_task_is_imported_interrupts_its_job(project: Project, signum: signal.Signals) -> None:
    project.write("slow_import.py", SLOW_IMPORT)
    job = project.queue("slow_import.never")
    worker = project.worker()
    until(project.ledger, what="the import")
    since = time.monotonic()
    worker.send(signum)
    assert worker.wait() == 0
    assert time.monotonic() - since < LEAVE_WITHIN + LOAD
    record = project.client.fetch(job)
    assert (record.status, record.claims, record.lost_claims) == (Status.INTERRUPT, 1, 0)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_idle_worker_stops_though_its_server_is_frozen(tmp_path: Path, signum: signal.Signals) -> None:
    server = RedisServer()
    try:
        with open_project(tmp_path, server.url) as project:
            project.write("tasks.py", TASKS)
            worker = project.worker("--broker-timeout", "30")
            server.signal(signal.SIGSTOP)
            frozen = time.monotonic()
            until(lambda: time.monotonic() > frozen + 0.5, what="a claim that has no answer")
            since = time.monotonic()
            worker.send(signum)
            assert worker.wait() == 0
            assert time.monotonic() - since < LEAVE_WITHIN + LOAD
    finally:
        server.signal(signal.SIGCONT)
        server.stop()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_worker_that_stops_stores_its_outcomes_as_soon_as_the_server_is_back(
    own_server: ServerProcess, tmp_path: Path, signum: signal.Signals
) -> None:
    with open_project(tmp_path, own_server.url) as project:
        project.write("tasks.py", TASKS)
        job = project.queue("tasks.noted", {"word": "x", "seconds": 1.0})
        worker = project.worker("--stop-grace", "30", "--broker-timeout", "1", "--lease", "60")
        until(project.ledger, what="the job to start")
        own_server.kill()
        until(lambda: "end-x" in project.ledger(), what="the job to end")
        worker.until_output("broker.away")
        worker.send(signum)
        worker.until_output("worker.stopping")
        own_server.start()
        back = time.monotonic()
        assert worker.wait() == 0
        assert time.monotonic() - back < LEAVE_WITHIN + LOAD
        record = project.client.fetch(job)
        assert (record.status, record.claims) == (Status.SUCCESS, 1)


def has_pending_signal(pid: int) -> bool:
    """Whether a signal to the process waits. Of two that wait, the later may arrive first."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():  # another system than Linux
        return False
    return any(int(mask, 16) for mask in re.findall(r"(?:SigPnd|ShdPnd):\s*(\w+)", status.read_text()))


@pytest.mark.parametrize("controlled", [True, False])
def test_a_terminal_that_closes_while_the_worker_starts(project: Project, controlled: bool) -> None:
    project.write("mrq-config.py", "import time\nopen('loading', 'w').close()\ntime.sleep(1000)\n")
    with in_terminal(project, controlled=controlled) as worker:
        until((project.path / "loading").exists, what="the config file to be loaded")
        worker.close_terminal()
        if not controlled:  # no signal tells of it
            worker.popen.send_signal(signal.SIGTERM)
        since = time.monotonic()
        assert worker.popen.wait(20) == 0
        assert time.monotonic() - since < LEAVE_WITHIN + LOAD


def test_a_terminal_that_closes_while_the_worker_stops(project: Project) -> None:
    job = project.queue("tasks.noted", {"word": "x", "seconds": 0.6})
    with in_terminal(project, grace=20) as worker:
        until(project.ledger, what="the job to start")
        worker.popen.send_signal(signal.SIGINT)
        until(lambda: not has_pending_signal(worker.popen.pid), what="the signal to arrive")
        worker.close_terminal()
        assert worker.popen.wait(20) == 0
    assert project.client.fetch(job).status is Status.SUCCESS
