"""A worker's process is gone in time, whatever its tasks have left in it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mrq_core.contract.record import Status
from mrq_core.worker.guards.process_end import LEAVE_WITHIN
from tests.mongo.servers import Server as MongoServer
from tests.redis.servers import Server as RedisServer
from tests.support import LOAD, PATIENCE, Project, open_project, until
from tests.worker.conftest import TASKS

GRACE = 1.0

LEAVES = """
import atexit
import ctypes
import hashlib
import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from mrq_core import task
from tasks import note

_pool = ThreadPoolExecutor(2)
_hold_gil = ctypes.PyDLL(None).sleep


def _in_c_code():
    # Without the GIL, and without looking for signals.
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)


@task
def thread_pool():
    _pool.submit(time.sleep, 1000)


@task
def spinning_greenlet():
    def spin():
        note("spins")
        while True:
            pass

    threading.Timer(0.2, spin).start()  # the outcome of this job is stored before


@task
def child_process():
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,)).start()


@task
def exit_handler():
    atexit.register(time.sleep, 1000)


@task
def exit_handler_in_c_code():
    atexit.register(_in_c_code)


@task
def exit_handler_that_holds_the_gil():
    atexit.register(_hold_gil, 1000)


@task(timeout=1000)
def deaf():
    note("runs")
    while True:
        try:
            time.sleep(0.05)
        except BaseException:
            pass


@task(timeout=1000)
def deaf_and_busy():
    note("runs")
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass


@task(timeout=1000)
def in_c_code():
    note("runs")
    _in_c_code()


@task(timeout=1000)
def prints_much():
    note("runs")
    while True:
        print("x" * 1000)
"""
LEFT = ["thread_pool", "child_process", "exit_handler",
        "exit_handler_in_c_code", "exit_handler_that_holds_the_gil"]  # fmt: skip
ENDLESS = ["deaf", "deaf_and_busy", "in_c_code"]


@pytest.fixture
def project(project: Project) -> Project:
    project.write("leaves.py", LEAVES)
    return project


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("name", LEFT)
def test_what_a_job_left_behind_does_not_keep_the_process(
    project: Project, name: str, signum: signal.Signals
) -> None:
    job = project.queue(f"leaves.{name}")
    worker = project.worker("--stop-grace", str(GRACE))
    assert project.ended(job).status == Status.SUCCESS
    since = time.monotonic()
    worker.send(signum)
    assert worker.wait() == 0
    assert time.monotonic() - since < (GRACE if signum == signal.SIGTERM else 0) + LEAVE_WITHIN + LOAD


def test_what_keeps_the_hub_does_not_keep_the_process(project: Project) -> None:
    job = project.queue("leaves.spinning_greenlet")
    worker = project.worker("--stop-grace", str(GRACE))
    until(project.ledger, what="the greenlet to spin")
    since = time.monotonic()
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert time.monotonic() - since < GRACE + LEAVE_WITHIN + LOAD
    assert project.client.fetch(job).status == Status.SUCCESS


def test_what_a_job_left_behind_does_not_keep_the_process_after_a_burst(project: Project) -> None:
    jobs = [project.queue("leaves.thread_pool"), project.queue("leaves.child_process")]
    worker = project.worker("--burst")
    worker.until_output("worker.stopped")
    since = time.monotonic()
    assert worker.wait() == 0
    assert time.monotonic() - since < LEAVE_WITHIN + LOAD
    assert [project.client.fetch(job).status for job in jobs] == [Status.SUCCESS] * 2
    assert "something kept the process" in worker.output


@pytest.mark.parametrize("name", ENDLESS)
def test_a_job_that_cannot_be_ended_is_stored_as_interrupted(project: Project, name: str) -> None:
    job = project.queue(f"leaves.{name}")
    beside = project.queue("tasks.noted", {"word": "beside", "seconds": 1000})
    worker = project.worker("--stop-grace", str(GRACE), "--greenlets", "2")
    until(lambda: "runs" in project.ledger(), what="the job to start")
    since = time.monotonic()
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert GRACE < time.monotonic() - since < GRACE + LEAVE_WITHIN + LOAD
    for one in (job, beside):
        record = project.client.fetch(one)
        assert record.lost_claims == 0
        assert record.status == Status.INTERRUPT or (one == beside and record.status == Status.QUEUED)


def test_a_pipe_that_is_not_read_does_not_keep_the_process(project: Project) -> None:
    job = project.queue("leaves.prints_much")
    worker = subprocess.Popen(
        [sys.executable, "-m", "mrq_core.cli", "worker", "--stop-grace", str(GRACE)],
        cwd=project.path, env=project.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        until(lambda: "runs" in project.ledger(), what="the job to start")
        since = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(PATIENCE) == 0
        assert time.monotonic() - since < GRACE + LEAVE_WITHIN + LOAD
    finally:
        worker.kill()
        worker.communicate()
    record = project.client.fetch(job)
    assert (record.status, record.lost_claims) == (Status.INTERRUPT, 0)


@pytest.mark.parametrize("server_class", [RedisServer, pytest.param(MongoServer, marks=pytest.mark.campaign)])
def test_a_server_that_stops_answering_does_not_keep_the_process(
    tmp_path: Path, server_class: type[RedisServer | MongoServer]
) -> None:
    server = server_class()
    try:
        with open_project(tmp_path, server.url) as project:
            project.write("tasks.py", TASKS)
            project.queue("tasks.noted", {"word": "job", "seconds": 1000})
            worker = project.worker("--stop-grace", str(GRACE))
            until(project.ledger, what="the job to start")
            server.signal(signal.SIGSTOP)
            since = time.monotonic()
            worker.send(signal.SIGTERM)
            assert worker.wait() == 0
            assert time.monotonic() - since < GRACE + LEAVE_WITHIN + LOAD
            assert "outcomes that are not stored: 1; their jobs run again, or fail if" in worker.output
            server.signal(signal.SIGCONT)
    finally:
        server.signal(signal.SIGCONT)
        server.stop()


def test_without_a_timer_of_the_kernel_another_native_thread_ends_the_process(tmp_path: Path) -> None:
    code = """
import ctypes
from mrq_core.worker.guards import process_end

process_end._start_kernel_timer = lambda seconds, code: False
process_end.end_process_within(0.5, 0, "it was a test")
ctypes.PyDLL(None).sleep(1000)
"""
    since = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=PATIENCE, check=False)
    assert done.returncode == 1
    assert 0.5 <= time.monotonic() - since < 0.5 + LEAVE_WITHIN


@pytest.mark.parametrize(("first", "second", "code"), [(0.4, 1000, 3), (1000, 0.4, 4)])
def test_the_earlier_end_counts(tmp_path: Path, first: float, second: float, code: int) -> None:
    program = (
        "import time\n"
        "from mrq_core.worker.guards.process_end import end_process_within\n"
        f"end_process_within({first}, 3, 'first')\n"
        f"end_process_within({second}, 4, 'second')\n"
        "time.sleep(1000)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, timeout=PATIENCE, check=False)
    assert done.returncode == code
