"""A worker profiles the next run of a task on request."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from mrq_core.errors import RequestFailed
from mrq_core.operations.requests import ANSWERS, request_worker
from mrq_core.operations.workers import find_workers
from tests.support import Process, Project, until

PROFILED = """
import time
from mrq_core import task
from tasks import note


def spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def wait(seconds):
    time.sleep(seconds)


@task
def both(seconds: float = 0.6):
    note("both")
    spin(seconds)
    wait(2 * seconds)


@task
def neighbour():
    note("neighbour")
    while True:
        spin(0.01)
        wait(0.01)


@task(isolate=True)
def apart():
    wait(0.5)
"""
QUICK = (
    "--greenlets",
    "3",
    "--paused-queues-refresh-interval",
    "0.1",
    "--name",
    "seen",
    "--stop-grace",
    "0.5",
)
LINE = re.compile(r"^ *([\d.]+)s +([\d.]+)s  ( *)\S*profiled\.py:\d+ (\w+)$", re.MULTILINE)


def start(project: Project) -> Process:
    project.write("profiled.py", PROFILED)
    worker = project.worker(*QUICK)
    until(lambda: find_workers(project.client.broker, "seen"), what="a report of the worker")
    return worker


def asked(project: Project, path: str, ttl: float = 30.0) -> Future[str]:
    """Asks for a profile, in another thread. Returns once the worker has accepted the request."""
    [report] = find_workers(project.client.broker, "seen")
    broker = project.client.broker
    pool = ThreadPoolExecutor(1)
    answer = pool.submit(request_worker, broker, report.name, "profile", {"task": path}, ttl)
    pool.shutdown(wait=False)
    until(lambda: broker.state.list(ANSWERS), what="the worker to accept the request")
    return answer


def test_the_next_run_of_a_task_is_profiled_apart_from_its_neighbours(project: Project) -> None:
    start(project)
    project.queue("profiled.neighbour")
    until(lambda: project.ledger(), what="the neighbour to start")
    answer = asked(project, "profiled.both")
    job = project.queue("profiled.both")
    text = answer.result(30)
    assert text.startswith(f"{job} profiled.both has ended: profile of ")
    found = {name: (float(total), float(running)) for total, running, _, name in LINE.findall(text)}
    assert found.keys() == {"both", "spin", "wait"}
    assert found["spin"][0] > 0.5
    assert found["spin"][1] > 0.4
    assert found["wait"][0] > 1.1
    assert found["wait"][1] < 0.3 * found["wait"][0]
    assert found["both"][0] > 1.7
    # Once only.
    later = project.queue("profiled.both", {"seconds": 0.01})
    project.ended(later)
    assert later not in text


def test_a_run_that_goes_on_is_profiled_until_the_request_expires(project: Project) -> None:
    start(project)
    answer = asked(project, "profiled.neighbour", ttl=4.0)
    project.queue("profiled.neighbour")
    text = answer.result(20)
    assert " profiled.neighbour still runs: profile of " in text
    assert "profiled.py:7 spin" in text


def test_a_task_that_does_not_run_meanwhile_has_no_profile(project: Project) -> None:
    start(project)
    answer = asked(project, "profiled.both", ttl=2.0)
    with pytest.raises(RequestFailed, match=r"the task has not run in the worker .* within 2 s"):
        answer.result(20)


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (lambda worker: worker.send(signal.SIGINT), "the worker stops, and profiled.both has not run"),
        (lambda worker: worker.send(signal.SIGKILL), "has accepted the request profile, and ended before"),
    ],
    ids=["stopped", "killed"],
)
def test_a_worker_that_is_gone_ends_the_request(
    project: Project, end: Callable[[Process], None], said: str
) -> None:
    worker = start(project)
    answer = asked(project, "profiled.both", ttl=8.0)
    end(worker)
    worker.wait()
    with pytest.raises(RequestFailed, match=said):
        answer.result(20)


def test_an_isolated_task_is_refused(project: Project) -> None:
    start(project)
    answer = asked(project, "profiled.apart")
    project.queue("profiled.apart")
    with pytest.raises(RequestFailed, match="runs in a separate process"):
        answer.result(20)


def test_the_command_prints_the_profile(project: Project) -> None:
    worker = start(project)
    command = [
        sys.executable, "-m", "mrq_core.cli", "workers", "profile", "seen", "--task", "profiled.both",
        "--patience", "20",
    ]  # fmt: skip
    asking = subprocess.Popen(command, cwd=project.path, env=project.env, stdout=subprocess.PIPE, text=True)
    stopped = threading.Event()

    def feed() -> None:
        while not stopped.wait(0.5):
            project.queue("profiled.both", {"seconds": 0.1})

    feeding = threading.Thread(target=feed)
    feeding.start()
    try:
        said, _ = asking.communicate(timeout=40)
    finally:
        stopped.set()
        feeding.join()
    assert asking.returncode == 0
    assert "profiled.py:13 wait" in said
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0


@pytest.mark.parametrize("project", ["sqlite"], indirect=True)
def test_a_request_without_a_task_is_refused(project: Project) -> None:
    start(project)
    [report] = find_workers(project.client.broker, "seen")
    for args in ({}, {"task": 1}, {"task": "no path"}):
        with pytest.raises(RequestFailed, match="the request names no task"):
            request_worker(project.client.broker, report.name, "profile", args)
