"""The dashboard that `mrq demo` opens beside its worker, in another process."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from mrq_core.cli.dashboard_command import how_to_install, missing_library
from mrq_core.cli.output import note
from mrq_core.config.settings import Config

if TYPE_CHECKING:
    from mrq_core.cli.options import Given

GROUPS = ("broker", "plugins", "dashboard")
"""The groups of settings that the demo passes on to the dashboard."""
_ADDRESS = re.compile(r"The dashboard is at (\S+)")
_STARTS_WITHIN = 15
"""Seconds after which the demo goes on without a dashboard."""
_ENDS_WITHIN = 8
"""Seconds that the process has to end, once its input has ended; open requests get up to 3."""
_KEPT_LINES = 5


class DemoDashboard:
    """The process, and its address once it serves. It ends when its input ends, so that it does not outlive
    the demo, however that ends."""

    def __init__(self, flags: list[str], source: bytes = b"") -> None:
        """`source`: what the process reads from its input first."""
        import gevent
        from gevent.event import Event

        # A new session: Ctrl-C reaches the demo alone, which ends the dashboard after its worker.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "mrq_core.cli", "dashboard", "--until-input-ends", *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.address: str | None = None
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._known = Event()
        self._reader = gevent.spawn(self._read)
        self._writer = gevent.spawn(self._write, source)

    def _write(self, source: bytes) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # the process has ended
            self._process.stdin.write(source)
            self._process.stdin.flush()

    def _read(self) -> None:
        """Reads what the process prints until it ends: a full pipe would stop it."""
        assert self._process.stderr is not None
        for line in (said.decode(errors="replace") for said in self._process.stderr):
            found = _ADDRESS.search(line)
            if found is not None and self.address is None:
                self.address = found[1]
                self._known.set()
            else:
                self._lines.append(line.strip())
        self._known.set()

    def ready(self) -> str | None:
        """Waits for the address. None: there is no dashboard, and a remark has told why."""
        if not self._known.wait(_STARTS_WITHIN):
            note(f"The dashboard has not started within {_STARTS_WITHIN} s: the demo goes on without it.")
        elif self.address is None:
            said = self._lines[-1].removeprefix("mrq: ") if self._lines else "its process has ended"
            note(f"The dashboard is left out: {said}")
        return self.address

    def wait(self) -> None:
        """Waits until the process ends."""
        self._reader.join()

    def end(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._writer.kill()
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()


@contextmanager
def dashboard_of(config: Config, given: Given, *, is_wanted: bool) -> Iterator[DemoDashboard | None]:
    """Starts the dashboard, and ends it with the block. None: it is not wanted, or cannot be started; a
    remark tells how to install what is missing."""
    missing = missing_library() if is_wanted else None
    if missing is not None:
        note(f"The demo also shows a dashboard where {missing} is installed: {how_to_install()}")
    if not is_wanted or missing is not None:
        yield None
        return
    flags, source = given.flags(*GROUPS), b""
    if config.file is not None and config.file.is_read_once:
        source = config.file.source
        flags += ["--config", config.file.path, "--config-bytes", str(len(source))]
    made = DemoDashboard([*flags, "--port", str(_port(config))], source)
    try:
        yield made
    finally:
        made.end()


def _port(config: Config) -> int:
    """The configured port; a free one if none is given and the default is taken, as by the dashboard of other
    work."""
    port = config.dashboard_port
    if "DASHBOARD_PORT" in config.sources:
        return port
    try:
        socket.create_server((config.dashboard_ip, port)).close()
    except (OSError, UnicodeError):
        return 0
    return port
