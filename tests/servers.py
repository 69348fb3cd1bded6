"""Servers for tests: real programs, started on free ports of this machine, ended by their process id."""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

SECONDS = 30.0
_random = random.SystemRandom()  # not what a test has seeded


class Program(NamedTuple):
    """A server's program: the one that an environment variable names, the one on the PATH, or one that came
    in a package of Python."""

    name: str
    variable: str
    package: str
    module: str
    place: str
    """Where it is in the module's folder."""

    def find(self) -> str | None:
        """Where it is; None where there is none."""
        named = os.environ.get(self.variable) or shutil.which(self.name)
        if named:
            return named
        module = importlib.util.find_spec(self.module)
        for folder in (module.submodule_search_locations or ()) if module else ():
            program = Path(folder) / self.place
            if program.exists():
                return str(program)
        return None

    def require(self) -> str:
        """Where it is; skips the test where there is none, or fails it if servers are required."""
        found = self.find()
        if found is None:
            why = f"there is no {self.name} on the PATH, and the package {self.package} is not installed"
            if os.environ.get("MRQ_TEST_REQUIRE_SERVERS") == "1":
                pytest.fail(why)
            pytest.skip(why)
        return found


def free_port() -> int:
    """A port that nobody listens on now, and, for nodes of a Redis cluster, neither on the one 10,000 above.

    Not one of those that the kernel gives to clients: one of them could have it when a server that was
    killed wants it back, and a client that keeps trying could even be connected to itself.
    """
    while True:
        port = _random.randrange(11_000, 22_000)
        if _is_free(port) and _is_free(port + 10_000):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


class ServerProcess(ABC):
    """One server with a folder of its own. `options` are those of its command line."""

    program: Program

    def __init__(self, *options: str, port: int | None = None, folder: Path | None = None) -> None:
        self.program.require()  # before anything is made
        self.port = free_port() if port is None else port
        prefix = f"mrq-{self.program.name}-"
        self.folder = folder or Path(tempfile.mkdtemp(prefix=prefix, dir=self.parent_folder()))
        self.options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    @abstractmethod
    def url(self) -> str:
        """Where it listens, as brokers are told."""

    @abstractmethod
    def arguments(self) -> Sequence[str]:
        """Its command line, without the program."""

    @abstractmethod
    def is_up(self) -> bool:
        """Whether it answers."""

    def parent_folder(self) -> str | None:
        """Where its folder is made; None for the usual place."""
        return None

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and not ended by us."""
        return self._process is not None

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        command = [self.program.require(), *self.arguments()]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                restore_signals=False,  # SIGXFSZ stays ignored: what may not grow is an error then
            )
        deadline = time.monotonic() + SECONDS
        while not self.is_up():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                said = (self.folder / "log").read_text()[-2000:]
                pytest.fail(f"{self.program.name} did not start:\n{said}")
            time.sleep(0.01)

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal; after SIGSTOP it has stopped when this returns."""
        os.kill(self.pid, number)
        if number == signal.SIGSTOP:
            os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def kill(self) -> None:
        """Kills it as a power failure would."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def stop(self) -> None:
        """Ends it, and removes its folder: nothing of it is kept."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
