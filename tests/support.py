"""What the tests that run real workers share: a project folder, its processes, and waiting for conditions."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from mrq_core.client.client import Client
from mrq_core.client.handles import Job
from mrq_core.config.sources import load_config
from mrq_core.contract.record import JobRecord
from mrq_core.worker.reporting.process_memory import children_of
from tests.brokers import Address

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds after which a condition that should come true is taken for a failure, on any machine."""

LOAD = 1.5
"""Seconds that a busy machine adds to the time that a process takes to end."""


def until(condition: Callable[[], T], *, what: str = "", patience: float = PATIENCE) -> T:
    """Waits until the condition gives something true, and returns that."""
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience:g} s in vain for {what or condition}")
        time.sleep(0.01)


def tree_of(pid: int) -> list[int]:
    """All descendants of a process."""
    found = children_of(pid)
    return found + [one for child in found for one in tree_of(child)]


class Process:
    """A child process in a process group of its own, with its output in a file."""

    def __init__(self, arguments: list[str], *, cwd: Path, env: dict[str, str], output: Path) -> None:
        self._output = output
        with output.open("ab") as file:
            self.popen = subprocess.Popen(
                arguments, cwd=cwd, env=env, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def output(self) -> str:
        """All it has printed so far."""
        return self._output.read_text(errors="replace")

    def send(self, signum: signal.Signals) -> None:
        os.kill(self.pid, signum)

    def wait(self, patience: float = PATIENCE) -> int:
        """Its exit code."""
        try:
            return self.popen.wait(patience)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"process {self.pid} has not ended; it printed:\n{self.output}") from None

    def until_output(self, text: str) -> None:
        until(lambda: text in self.output or self.popen.poll() is not None, what=f"{text!r} in the output")
        assert text in self.output, self.output

    def end(self) -> None:
        """Ends it, its descendants and its group: children of a process that is gone, too."""
        for pid in tree_of(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait()


class Project:
    """A folder with a tasks.py, a broker, and workers that run in it."""

    def __init__(self, path: Path, broker: str, store: str = "") -> None:
        self.path = path
        self.address = Address(broker, store)
        self.ledger_path = path / "ledger"
        self.client = Client(load_config({"broker": broker, "store": store}, environ={}))
        self._processes: list[Process] = []
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MRQ_")},
            "MRQ_BROKER": broker,
            "MRQ_STORE": store,
            "LEDGER": str(self.ledger_path),
            "PYTHONUNBUFFERED": "1",
        }

    def write(self, name: str, text: str) -> Path:
        """Writes a file, and deletes Python's cache of an earlier file of the name.

        The cache compares only the size and the second of the last change.
        """
        path = self.path / name
        for cached in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
            cached.unlink(missing_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def start(self, *arguments: str) -> Process:
        """Starts the mrq program."""
        process = Process(
            [sys.executable, "-m", "mrq_core.cli", *arguments],
            cwd=self.path,
            env=self.env,
            output=self.path / f"output-{len(self._processes)}",
        )
        self._processes.append(process)
        return process

    def mrq(self, *arguments: str, errors: bool = False) -> str:
        """Runs the mrq program and returns what it printed to standard output, or to standard error."""
        done = subprocess.run(
            [sys.executable, "-m", "mrq_core.cli", *arguments],
            cwd=self.path, env=self.env, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stderr if errors else done.stdout

    def worker(self, *arguments: str) -> Process:
        """Starts a worker and waits until it is at work. Latency and reports are made short, and SIGTERM
        interrupts running jobs at once; a flag in `arguments` changes that."""
        settings = ("--max-latency", "0.05", "--report-interval", "0.2", "--stop-grace", "0")
        process = self.start("worker", *settings, *arguments)
        process.until_output("worker.started")
        return process

    def work_off(self, *arguments: str) -> Process:
        """Runs a worker until nothing is due."""
        process = self.start("worker", "--burst", "--max-latency", "0.05", *arguments)
        assert process.wait() == 0, process.output
        return process

    def queue(self, path: str, params: dict[str, object] | None = None, **more: object) -> str:
        return self.client.queue_job(path, params or {}, **more)  # type: ignore[arg-type]

    def job(self, job_id: str) -> Job:
        return Job(job_id, client=self.client)

    def ended(self, job_id: str) -> JobRecord:
        """The record of the job once it has ended."""
        return self.job(job_id).wait(PATIENCE)

    def until_status(self, job_id: str, status: str) -> JobRecord:
        until(lambda: self.client.fetch(job_id).status == status, what=f"job {job_id} to be {status}")
        return self.client.fetch(job_id)

    def log_of(self, job_id: str) -> list[str]:
        return [line.message for line in self.client.broker.read_logs(job_id).lines]

    def ledger(self) -> list[str]:
        """The lines that tasks have written to $LEDGER."""
        return self.ledger_path.read_text().split() if self.ledger_path.exists() else []

    def freeze(self, worker: Process) -> None:
        """Stops a worker where it is, but not in the middle of a transaction of SQLite, which would keep all
        other processes from writing."""
        while True:
            worker.send(signal.SIGSTOP)
            os.waitid(os.P_PID, worker.pid, os.WSTOPPED)
            if not self._is_locked():
                return
            worker.send(signal.SIGCONT)

    def _is_locked(self) -> bool:
        path = self.address.broker.partition("sqlite:///")[2]
        if not path:
            return False
        with contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
            connection.execute("ROLLBACK")
            return False

    def close(self) -> None:
        for process in self._processes:
            process.end()
        self.client.close()


@contextlib.contextmanager
def open_project(path: Path, broker: str, store: str = "") -> Iterator[Project]:
    """A project that is cleaned up whatever happens."""
    project = Project(path, broker, store)
    try:
        yield project
    finally:
        project.close()


WAITS_FOR_GO = """
import os
import time

from mrq_core import task


@task(at_most_once=True)
def waits():
    open("began", "w").close()
    while not os.path.exists("go"):
        time.sleep(0.01)
    return "done"
"""
"""A task that makes the file `began`, and ends when there is a file `go`."""
