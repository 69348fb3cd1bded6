"""The parent of `--processes` with odd streams, in terminals and in containers."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mrq_core.contract.record import Status
from mrq_core.worker.guards.process_end import LEAVE_WITHIN
from tests.support import LOAD, PATIENCE, Process, Project, tree_of, until
from tests.worker.parents import (
    SETTINGS,
    TASKS,
    command_of,
    in_shell,
    is_running,
    start_parent,
    until_started,
    workers_of,
)


@pytest.fixture(autouse=True)
def _tasks(project: Project) -> None:
    project.write("owned.py", TASKS)


def test_no_log_line_is_lost(project: Project) -> None:
    for word in ("one", "two"):
        project.queue("owned.logs", {"word": word, "lines": 2000})
    done = in_shell(project, 'exec "$@"', "worker", "-p", "2", "--burst")
    assert done.returncode == 0
    lines = re.findall(r" (one|two)-(\d+)-end$", done.stderr, re.MULTILINE)
    assert len(lines) == len(set(lines)) == 4000


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "2> >(exec true)"])
def test_closed_streams_do_no_harm(project: Project, closed: str) -> None:
    job = project.queue("owned.pid")
    done = in_shell(project, f'exec "$@" {closed}', "worker", "-p", "2", "--burst")
    assert done.returncode == 0
    assert project.client.fetch(job).status == Status.SUCCESS


def test_a_pipe_that_is_not_read_does_not_keep_the_parent(project: Project) -> None:
    project.queue("owned.pid", {"seconds": 1000})
    project.queue("owned.logs", {"word": "x" * 4000, "lines": 10_000})
    read, write = os.pipe()
    parent = subprocess.Popen(
        [sys.executable, "-m", "mrq_core.cli", "worker", "-p", "2", *SETTINGS],
        cwd=project.path, env=project.env, stdout=write, stderr=write,
    )  # fmt: skip
    os.close(write)
    try:
        until(lambda: _size(read) > 60_000, what="the pipe to be full")
        pids = tree_of(parent.pid)
        since = time.monotonic()
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(PATIENCE) == 0
        assert time.monotonic() - since < LEAVE_WITHIN + 1.5 + LOAD
        assert not any(map(is_running, pids))
    finally:
        parent.kill()
        parent.wait()
        os.close(read)


def _size(pipe: int) -> int:
    """The number of bytes in the pipe."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_a_parent_that_was_started_with_sigchld_ignored_sees_its_workers_end(project: Project) -> None:
    project.queue("owned.pid")
    done = in_shell(project, "trap '' CHLD; exec \"$@\"", "worker", "-p", "2", "--burst")
    assert done.returncode == 0
    assert done.stderr.count("its burst is over") == 2


def test_a_parent_under_nohup_ignores_sighup(project: Project) -> None:
    parent = Process(
        ["nohup", sys.executable, "-m", "mrq_core.cli", "worker", "-p", "1", *SETTINGS],
        cwd=project.path, env=project.env, output=project.path / "nohup-output",
    )  # fmt: skip
    try:
        until_started(parent, 1)
        for pid in (parent.pid, *workers_of(parent.pid)):
            os.kill(pid, signal.SIGHUP)
        assert project.ended(project.queue("owned.pid")).result in workers_of(parent.pid)
        parent.send(signal.SIGTERM)
        assert parent.wait() == 0
        assert "on SIGHUP" not in parent.output
    finally:
        parent.end()


def test_ctrl_c_in_a_terminal_reaches_the_parent_only(project: Project) -> None:
    job = project.queue("owned.pid", {"seconds": 1})
    with terminal(project, "worker", "-p", "1", *SETTINGS) as (parent, keyboard):
        until(project.ledger, what="the job to start")
        os.write(keyboard, b"\x03")
        assert parent.wait(PATIENCE) == 0
    assert project.client.fetch(job).status == Status.SUCCESS


def test_the_end_of_a_terminal_stops_the_parent_and_its_workers(project: Project) -> None:
    job = project.queue("owned.pid", {"seconds": 1000})
    with terminal(project, "worker", "-p", "1", *SETTINGS) as (parent, keyboard):
        until(project.ledger, what="the job to start")
        pids = tree_of(parent.pid)
        os.close(keyboard)
        assert parent.wait(PATIENCE) == 0
    assert project.client.fetch(job).status == Status.INTERRUPT
    assert not any(map(is_running, pids))


_WITH_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, sys.argv[1:])
"""


@contextlib.contextmanager
def terminal(project: Project, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The mrq program in the foreground of a terminal of its session, and the other side of the terminal."""
    keyboard, screen = pty.openpty()
    mrq = [sys.executable, "-m", "mrq_core.cli", *arguments]
    parent = subprocess.Popen([sys.executable, "-c", _WITH_TERMINAL, *mrq], cwd=project.path, env=project.env,
                              stdin=screen, stdout=screen, stderr=screen, start_new_session=True)  # fmt: skip
    os.close(screen)
    try:
        yield parent, keyboard
    finally:
        parent.kill()
        parent.wait()
        with contextlib.suppress(OSError):
            os.close(keyboard)


@pytest.mark.campaign
def test_a_parent_that_was_suspended_kills_no_worker_when_it_goes_on(project: Project) -> None:
    project.write("mrq-config.py", "DEFAULT_JOB_TIMEOUT = 1")
    parent = start_parent(project, number=1)
    os.kill(parent.pid, signal.SIGSTOP)
    since = time.monotonic()
    while time.monotonic() < since + 80:  # longer than an idle worker may be silent
        project.ended(project.queue("owned.pid", {"seconds": 0.5}))
    os.kill(parent.pid, signal.SIGCONT)
    before = workers_of(parent.pid)
    project.ended(project.queue("owned.pid", {"seconds": 0.9}))
    parent.send(signal.SIGINT)
    assert parent.wait() == 0
    assert set(project.ledger()) == set(map(str, before))
    assert "process.killed" not in parent.output


ORPHANS = """
import os, time
from mrq_core import task

@task
def leaves_orphan():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(0.2)
        os._exit(0)
    os.wait()
"""


def test_as_process_1_of_a_container_it_reaps_orphans_and_stops(project: Project) -> None:
    unshare = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system has no namespaces for users")
    project.write("orphans.py", ORPHANS)
    for _ in range(3):
        project.queue("orphans.leaves_orphan")
    container = Process(
        [*unshare, sys.executable, "-m", "mrq_core.cli", "worker", "-p", "1", *SETTINGS],
        cwd=project.path, env=project.env, output=project.path / "container-output",
    )  # fmt: skip
    try:
        until_started(container, 1)
        (init,) = children_with_command(container.pid, b"mrq_core.cli")
        project.ended(project.queue("owned.pid"))
        until(lambda: len(all_children(init)) == 1, what="the orphans to be reaped")
        os.kill(init, signal.SIGTERM)
        assert container.wait() == 0
        assert "processes.stopped pid=1 code=0" in container.output
    finally:
        container.end()


def children_with_command(pid: int, word: bytes) -> list[int]:
    return [child for child in all_children(pid) if word in command_of(child)]


def all_children(pid: int) -> list[int]:
    """The children of a process, zombies included."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
