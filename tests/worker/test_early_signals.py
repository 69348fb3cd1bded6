"""Signals while a worker starts, and while it stops."""

from __future__ import annotations

import re
import signal
import socket
import time
from pathlib import Path

import pytest

from mrq_core.contract.record import Status
from mrq_core.worker.guards.process_end import LEAVE_WITHIN
from tests.support import LOAD, Process, Project, open_project, until

CONFIGS = {
    "waits": "import time; time.sleep(1000)",
    "waits_in_c_code": "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 2_000_000_000)",
    "swallows_everything": "import time\nwhile True:\n    try:\n        time.sleep(0.01)\n"
    "    except BaseException:\n        pass",
}


def told_early(worker: Process, signum: signal.Signals) -> int:
    """The exit code of a worker that is told to stop while it starts."""
    since = time.monotonic()
    worker.send(signum)
    code = worker.wait()
    assert time.monotonic() - since < LEAVE_WITHIN + LOAD
    assert "worker.started" not in worker.output
    assert "Traceback" not in worker.output
    return code


@pytest.fixture
def bare(tmp_path: Path) -> Project:
    """A project whose broker is not reached."""
    return Project(tmp_path, "sqlite")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("name", list(CONFIGS))
@pytest.mark.parametrize(("flags", "who"), [([], "the worker"), (["-p", "2"], "no worker")])
def test_a_worker_leaves_while_its_config_file_is_loaded(
    bare: Project, name: str, signum: signal.Signals, flags: list[str], who: str
) -> None:
    bare.write("mrq-config.py", f"open('loading', 'w').close()\n{CONFIGS[name]}\n")
    worker = bare.start("worker", *flags)
    try:
        until((bare.path / "loading").exists, what="the config file to be loaded")
        assert told_early(worker, signum) == 0
        assert re.search(rf"{who} had (not )?started when {signum.name} came", worker.output)
    finally:
        bare.close()


def test_ctrl_c_while_the_config_file_is_loaded_ends_the_worker_quietly(bare: Project) -> None:
    bare.write("mrq-config.py", f"open('loading', 'w').close()\n{CONFIGS['waits']}\n")
    worker = bare.start("worker")
    try:
        until((bare.path / "loading").exists, what="the config file to be loaded")
        assert told_early(worker, signal.SIGINT) == 130
    finally:
        bare.close()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_a_worker_leaves_while_it_waits_for_its_server(tmp_path: Path, signum: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        port = silent.getsockname()[1]
        with open_project(tmp_path, f"redis://127.0.0.1:{port}") as project:
            worker = project.start("worker", "--broker-timeout", "1000")
            connection, _ = silent.accept()
            with connection:
                assert told_early(worker, signum) == 0


def test_sigterm_at_any_moment_of_the_start_leaves_no_job_started(project: Project) -> None:
    for n in range(6):
        job = project.queue("tasks.noted", {"word": f"w{n}", "seconds": 1000}, queue=f"q{n}")
        worker = project.start("worker", f"q{n}", "--stop-grace", "0")
        time.sleep(0.15 * n)  # the moment of the signal
        worker.send(signal.SIGTERM)
        code = worker.wait()
        # Until gevent is imported, a signal has its default effect.
        assert code == 0 or (code == -signal.SIGTERM and not worker.output), worker.output
        record = project.client.fetch(job)
        assert record.status in (Status.QUEUED, Status.INTERRUPT)
        assert record.lost_claims == 0


def test_more_signals_while_a_worker_stops_change_nothing(project: Project) -> None:
    project.write(
        "slow_end.py",
        """
        import time
        from mrq_core import task
        from tasks import note

        @task
        def slow_end():
            note("runs")
            try:
                time.sleep(1000)
            finally:
                time.sleep(0.5)
                note("ended")
        """,
    )
    job = project.queue("slow_end.slow_end")
    worker = project.worker()
    until(project.ledger, what="the job to start")
    since = time.monotonic()
    worker.send(signal.SIGTERM)
    while worker.popen.poll() is None and time.monotonic() - since < LEAVE_WITHIN + LOAD:
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            worker.send(signum)
        time.sleep(0.02)  # the rhythm of the signals
    assert worker.wait() == 0
    assert "Traceback" not in worker.output
    assert project.client.fetch(job).status == Status.INTERRUPT
    assert "ended" in project.ledger()


def test_a_task_that_takes_over_the_wakeup_pipe_leaves_signals_to_the_worker(project: Project) -> None:
    project.write(
        "wakeup.py",
        """
        import signal, socket
        from mrq_core import task

        _pair = socket.socketpair()

        @task
        def takes_over():
            _pair[1].setblocking(False)
            signal.set_wakeup_fd(_pair[1].fileno())
        """,
    )
    worker = project.worker()
    assert project.ended(project.queue("wakeup.takes_over")).status == Status.SUCCESS
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert "worker.stopping on SIGTERM" in worker.output


def test_a_signal_to_a_child_of_a_task_does_not_reach_the_worker(project: Project) -> None:
    project.write(
        "child.py",
        """
        import os, signal
        from mrq_core import task

        @task
        def forks():
            child = os.fork()
            if not child:
                for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                    signal.signal(signum, lambda *arguments: None)
                    os.kill(os.getpid(), signum)
                os._exit(7)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        """,
    )
    worker = project.worker()
    assert project.ended(project.queue("child.forks")).result == 7
    assert project.ended(project.queue("tasks.Add", {"a": 1, "b": 1})).result == 2
    assert "worker.stopping" not in worker.output
