"""Native threads that still run when the worker's process ends do not change its exit code."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests import brokers
from tests.redis.servers import Server as RedisServer
from tests.support import Project, open_project, until
from tests.worker.conftest import TASKS

THREADS = """
import atexit
import socket
import sys

from gevent.monkey import get_original
from mrq_core import task
from tasks import note

sleep = get_original("time", "sleep")


class Slow:
    def __del__(self):
        sleep(0.1)


def connect():
    while True:
        try:
            socket.create_connection(("127.0.0.1", 1), timeout=1)
        except OSError:
            sleep(0.002)


@task
def starts_threads():
    sys.slow = Slow()  # ends when the interpreter is finalised
    for _ in range(8):
        get_original("_thread", "start_new_thread")(connect, ())


@task
def registers():
    atexit.register(note, "exit-handler")
    print("printed")
"""


@pytest.mark.parametrize("round", range(3))
def test_native_threads_with_greenlets_do_not_abort_the_process(project: Project, round: int) -> None:
    project.write("threads.py", THREADS)
    project.queue("threads.starts_threads")
    worker = project.start("worker", "--burst")
    assert worker.wait() == 0, worker.output
    assert "kept the process" not in worker.output


def test_exit_handlers_of_tasks_run_and_output_is_written(project: Project) -> None:
    project.write("threads.py", THREADS)
    del project.env["PYTHONUNBUFFERED"]
    project.queue("threads.registers")
    worker = project.work_off()
    assert project.ledger() == ["exit-handler"]
    assert "printed" in worker.output


EXITS = """
import atexit
import os
import sys
import threading

from gevent.monkey import get_original
from mrq_core import task
from tasks import note


def fork():
    if os.fork() == 0:
        os._exit(4)
    note(os.waitstatus_to_exitcode(os.wait()[1]))


def replace():
    os._exit = note


KINDS = {
    "exit": lambda: [  # the last one is called first
        atexit.register(os._exit, 9), atexit.register(sys.exit, 9), atexit.register(fork)
    ],
    "abort": lambda: [atexit.register(os.abort)],
    "thread": lambda: [threading._register_atexit(os._exit, 9)],
    "native": lambda: [atexit.register(get_original("_thread", "start_new_thread"), os._exit, (9,))],
    "replace": replace,
}


@task
def leaves(kind: str):
    KINDS[kind]()


@task(isolate=True)
def solo():
    atexit.register(os._exit, 9)
"""


def test_exit_handlers_of_tasks_do_not_change_the_exit_code(project: Project) -> None:
    project.write("exits.py", EXITS)
    kinds = ["exit", "abort", "thread", "native", "replace"]
    jobs = [project.queue("exits.leaves", {"kind": kind}, queue=kind) for kind in kinds]
    jobs.append(project.queue("exits.solo", queue="solo"))
    workers = [project.start("worker", queue, "--burst") for queue in (*kinds, "solo")]
    assert [worker.wait() for worker in workers] == [0] * len(workers), [each.output for each in workers]
    assert {project.ended(job).status for job in jobs} == {"success"}
    assert {project.ended(job).claims for job in jobs} == {1}
    assert project.ledger() == ["4"]


def test_threads_of_pymongo_beside_the_hub_do_not_keep_the_process(tmp_path: Path) -> None:
    with open_project(tmp_path, *brokers.address_of("mongo", tmp_path)) as project:
        project.write("tasks.py", TASKS)
        project.queue("tasks.noted", {"word": "job", "seconds": 0.25})
        worker = project.start("worker", "--max-jobs", "1", "--lease", "0.6")  # renewed every 0.2 s
        assert worker.wait() == 0, worker.output
    assert "worker.stopped" in worker.output
    assert "kept the process" not in worker.output


NATIVE = """
import gevent
from mrq_core import get_current_job, task


@task
def in_pool():
    job = get_current_job()
    return gevent.get_hub().threadpool.apply(lambda: job.fetch().status.value)
"""


@pytest.mark.parametrize(
    "name", ["mongo", *(pytest.param(each, marks=pytest.mark.campaign) for each in ("redis+mongo", "redis"))]
)
def test_the_client_of_a_native_thread_does_not_keep_the_process(tmp_path: Path, name: str) -> None:
    with open_project(tmp_path, *brokers.address_of(name, tmp_path)) as project:
        project.write("native.py", NATIVE)
        job = project.queue("native.in_pool")
        worker = project.work_off()
        assert project.ended(job).result == "started"
    assert "worker.stopped" in worker.output
    assert "kept the process" not in worker.output


@pytest.mark.campaign
def test_a_worker_without_its_broker_exits_with_0(tmp_path: Path) -> None:
    for number in range(10):
        server = RedisServer()
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            with open_project(folder, server.url) as project:
                project.write("tasks.py", TASKS)
                project.queue("tasks.noted", {"word": "job", "seconds": 1})
                workers = [project.worker("--stop-grace", "0.5", "--lease", "1") for _ in range(5)]
                until(project.ledger, what="the job to start")
                server.stop()
                for worker in workers:
                    worker.send(signal.SIGTERM)
                assert [worker.wait() for worker in workers] == [0] * len(workers)
        finally:
            server.stop()
