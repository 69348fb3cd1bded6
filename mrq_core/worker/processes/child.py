"""A worker process as its parent sees it: its start, its two pipes, and its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress

from mrq_core.clock import monotonic
from mrq_core.worker.processes.launch import Launch
from mrq_core.worker.processes.messages import DONE, READY, REPORT

_REPORTS_MOST = 64 * REPORT.size
_STEP_MOST = 1.0
"""Seconds of silence that one examination counts at most: the system may have stopped the parent."""


class ChildProcess:
    """A worker that this process has started. The constructor starts it. Raises OSError.

    `silence_left`: the seconds for which the worker may send no report before it must be killed.
    """

    def __init__(self, start: bytes, launch: Launch, title: str) -> None:
        """`start` is the beginning of the pipe of commands; `title` shows in lists of processes."""
        self.started_at = monotonic()
        self.is_ready = False
        self.is_done = False
        self.is_killed = False
        self.silence_left = float("inf")
        self._unsent = bytearray(start)
        theirs, self._commands = os.pipe()
        try:
            self.reports, reports = os.pipe()
            try:
                self.pid = _spawn(launch, title, theirs, reports)
            except BaseException:
                os.close(self.reports)
                raise
            finally:
                os.close(reports)
        except BaseException:
            os.close(self._commands)
            raise
        finally:
            os.close(theirs)
        os.set_blocking(self._commands, False)
        os.set_blocking(self.reports, False)
        self.send(b"")

    @property
    def has_unsent(self) -> bool:
        """Whether a part of the commands waits for room in the pipe. `send(b"")` sends it."""
        return bool(self._unsent)

    def send(self, command: bytes) -> None:
        """Sends a command. Never waits."""
        self._unsent += command
        with suppress(BlockingIOError):
            try:
                while self._unsent:
                    del self._unsent[: os.write(self._commands, self._unsent)]
            except BrokenPipeError:  # it is about to end
                self._unsent.clear()

    def receive(self) -> bool:
        """Reads the reports. False: none will follow."""
        try:
            while data := os.read(self.reports, _REPORTS_MOST):
                for kind, seconds in REPORT.iter_unpack(data[: len(data) // REPORT.size * REPORT.size]):
                    self.is_ready |= kind == READY
                    self.is_done |= kind == DONE
                    self.silence_left = seconds
            return False
        except BlockingIOError:
            return True

    def is_overdue(self, elapsed: float) -> bool:
        """Counts these seconds as silence, and returns whether the worker must be killed."""
        self.silence_left -= min(elapsed, _STEP_MOST)
        return self.silence_left < 0 and not self.is_killed

    def kill(self) -> None:
        """Kills the worker, and the processes that its tasks have started in its group."""
        self.is_killed = True
        for kill in (os.kill, os.killpg):  # a process that was just started has no group yet
            with suppress(ProcessLookupError, PermissionError):
                kill(self.pid, signal.SIGKILL)

    def exit_code(self) -> int | None:
        """The exit code, negative for a signal. None: the worker runs. Reads the last reports first."""
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # code of the config file has taken it
            pid, status = self.pid, 1 << 8
        if not pid:
            return None
        self.receive()
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        """Closes the pipes."""
        os.close(self._commands)
        os.close(self.reports)


def _spawn(launch: Launch, title: str, commands: int, reports: int) -> int:
    """Starts an interpreter in a new session, so that neither the signals nor the end of a terminal reach it.
    Its standard input is empty."""
    code = (
        f"import sys; sys.path[:] = {list(launch.path)!r}; "
        f"from mrq_core.cli.worker_process import main; main({commands}, {reports})"
    )
    flags: list[str] = getattr(subprocess, "_args_from_interpreter_flags")()  # noqa: B009
    os.set_inheritable(commands, True)
    os.set_inheritable(reports, True)
    return os.posix_spawn(
        sys.executable,
        [sys.executable, *flags, "-c", code, title],
        launch.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
        setsid=True,
        setsigmask=(),
        setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
    )
