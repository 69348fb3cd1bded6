"""Ctrl-C while a command works, and while its process ends."""

from __future__ import annotations

import signal
import time

import pytest

from tests.support import LOAD, Process, Project

AT_EXIT = """
import atexit
import threading


@atexit.register
def linger():
    print("at exit", flush=True)
    threading.Event().wait(1000)
"""
DROPPED = """
import os
import signal
import time


class Finalized:
    def __del__(self):
        print("interrupted", flush=True)
        os.kill(os.getpid(), signal.SIGINT)


Finalized()
time.sleep(1000)
"""
MOMENTS = 30
THREADS = """
import os
import signal
import threading

from gevent.monkey import get_original

from mrq_core import task


class native:
    get_ident = get_original("_thread", "get_ident")
    start_new_thread = get_original("_thread", "start_new_thread")


@task
def add(a: str, b: str) -> str:
    return a + b


def interrupted():
    print("interrupted", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    while True:
        pass


def interrupted_beside_the_loop():
    print("interrupted", flush=True)
    signal.pthread_kill(native.get_ident(), signal.SIGINT)


@task
def wait_in_loop():
    native.start_new_thread(interrupted_beside_the_loop, ())
    threading.Event().wait(1000)


@task
def wait():
    threading.Thread(target=interrupted, daemon=True).start()
    threading.Event().wait(1000)
"""


def ended(process: Process) -> int:
    """The exit code of a process that was interrupted: it ends soon, and prints no traceback."""
    since = time.monotonic()
    code = process.wait()
    assert time.monotonic() - since < 2 + LOAD
    for word in ("Traceback", "KeyboardInterrupt", "ignored"):
        assert word not in process.output
    return code


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["queues"], 0),
        (["run", "tasks.add", "a", "x", "b", "y"], 0),
        (["run", "tasks.add", "a", "x", "b", "y", "--async"], 0),
        (["jobs", "show", "unknown"], 2),
        (["demo", "--jobs", "1", "--no-dashboard"], 0),
    ],
    ids=["queues", "run", "run --async", "an error", "demo"],
)
def test_ctrl_c_after_the_work_keeps_its_exit_code(project: Project, arguments: list[str], code: int) -> None:
    project.write("tasks.py", THREADS)
    project.write("mrq-config.py", AT_EXIT)
    process = project.start(*arguments)
    process.until_output("at exit")
    process.send(signal.SIGINT)
    assert ended(process) == code


def test_a_second_ctrl_c_is_as_quiet_as_the_first(project: Project) -> None:
    project.write("tasks.py", THREADS)
    project.write("mrq-config.py", AT_EXIT)
    process = project.start("run", "tasks.wait")
    process.until_output("at exit")
    process.send(signal.SIGINT)
    assert ended(process) == 130


def test_ctrl_c_that_reaches_a_thread_of_a_run_ends_the_run(project: Project) -> None:
    project.write("tasks.py", THREADS)
    process = project.start("run", "tasks.wait")
    process.until_output("interrupted")
    assert ended(process) == 130


def test_ctrl_c_that_does_not_wake_the_loop_is_seen_soon(project: Project) -> None:
    project.write("tasks.py", THREADS)
    process = project.start("run", "tasks.wait_in_loop")
    process.until_output("interrupted")
    assert ended(process) == 130


def test_ctrl_c_that_python_drops_comes_again(project: Project) -> None:
    project.write("mrq-config.py", DROPPED)
    process = project.start("queues")
    process.until_output("interrupted")
    assert ended(process) == 130


@pytest.mark.campaign
@pytest.mark.parametrize("arguments", [["queues"], ["run", "tasks.add", "a", "x", "b", "y"], ["check"]])
def test_ctrl_c_at_any_moment_is_quiet(project: Project, arguments: list[str]) -> None:
    project.write("tasks.py", THREADS)
    project.write("mrq-config.py", "print('loading', flush=True)")
    process = project.start(*arguments)
    process.until_output("loading")
    loading = time.monotonic()
    assert process.wait() == 0
    whole = time.monotonic() - loading + 0.05
    for step in range(MOMENTS):
        process = project.start(*arguments)
        process.until_output("loading")
        time.sleep(whole * step / MOMENTS)
        process.send(signal.SIGINT)
        assert ended(process) in (0, 130, -signal.SIGINT)  # see bpo-1054041
