"""What the tests of `--processes` share: a parent, and the workers that it has started."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from mrq_core.worker.reporting.process_memory import children_of
from tests.support import PATIENCE, Process, Project, until

SETTINGS = ("--max-latency", "0.05", "--report-interval", "0.2", "--stop-grace", "0")
TASKS = """
import ctypes
import os
import time

from mrq_core import get_current_worker, log, task
from tasks import note


@task
def pid(seconds: float = 0):
    note(os.getpid())
    time.sleep(seconds)
    return os.getpid()


@task(isolate=True)
def solo():
    note(os.getpid())
    time.sleep(1000)


@task(timeout=0.5)
def holds_gil():
    note(os.getpid())
    ctypes.PyDLL(None).sleep(1000)


@task(timeout=1000)
def holds_gil_long():
    note(os.getpid())
    ctypes.PyDLL(None).sleep(1000)


@task(timeout=0.5)
def in_c_code():
    note(os.getpid())
    import hashlib
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)


@task
def grows():
    note(os.getpid())
    kept.append(bytearray(os.urandom(1_000_000) * 200))


kept = []


@task
def logs(word: str, lines: int):
    for n in range(lines):
        log.info("%s-%d-end", word, n)
"""

SLOW_IN_WORKERS = f"""
import os, time
if os.getsid(0) == os.getpid() and os.getppid() != {os.getpid()}:
    open("loading", "w").close()
    time.sleep(1000)
"""
"""A config file that makes workers, and not their parent, start slowly."""


def start_parent(project: Project, *arguments: str, number: int = 2) -> Process:
    """A parent with this number of workers, which are all at work."""
    parent = project.start("worker", "--processes", str(number), *SETTINGS, *arguments)
    until_started(parent, number)
    return parent


def until_started(parent: Process, number: int) -> None:
    """Waits until this many workers have started, counting those that are gone."""
    until(
        lambda: parent.output.count("worker.started") >= number or parent.popen.poll() is not None,
        what=f"{number} workers to start",
    )
    assert parent.popen.poll() is None, parent.output


def workers_of(parent: int) -> list[int]:
    """The process ids of the workers of a parent."""
    return [pid for pid in children_of(parent) if b"mrq-worker-process" in command_of(pid)]


def command_of(pid: int) -> bytes:
    """The command line of a process; empty if it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def is_running(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def in_shell(project: Project, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the mrq program as the last words of a script of bash."""
    return subprocess.run(
        ["bash", "-c", script, "bash", sys.executable, "-m", "mrq_core.cli", *arguments],
        cwd=project.path, env=project.env, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
