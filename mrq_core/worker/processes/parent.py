"""The parent: one loop that waits for signals, reports, exits and times, and acts on them.

| of a worker | the parent |
|---|---|
| It stops for MAX_JOBS, MAX_TIME, MAX_MEMORY, a request or a signal. | Starts the next one at once. |
| It dies after it was ready. | The same, at most once a second. |
| It dies before it is ready, such as over MAX_MEMORY. | Starts the next one after a pause that doubles. Gives up after `FAILURES_MOST` in a row, or at once after exit code 2, if no other worker is at work. |
| It is silent for longer than its last report allows. | Kills it. Its claims are lost. |
| Its burst is over. | Starts no other. |

The first worker starts alone: an error that concerns all is printed once.
"""  # noqa: E501

from __future__ import annotations

import logging
import os
import resource
import selectors
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress

from mrq_core.clock import monotonic
from mrq_core.errors import ConfigError
from mrq_core.worker.processes.child import ChildProcess
from mrq_core.worker.processes.messages import DRAIN, INTERRUPT, STOP
from mrq_core.worker.processes.signals import SignalPipe
from mrq_core.worker.processes.slot import FAILURES_MOST, Slot, described

LEAVE_WITHIN = 3.5
"""Seconds for a worker to end from the interrupt of its jobs; then it is killed. A worker itself ends within
3 s."""
_DEATH_WITHIN = 1.0
"""Seconds for a killed worker to be gone when the parent stops. A process may wait for a disk."""
_TICK = 1.0
_LEFT_FOR = 5.0
"""Seconds for which the exit status of a process is left to other code."""
_TICK_UNSENT = 0.01
_FAILED, _USAGE = 1, 2
_FILES_OF_ONE, _OTHER_FILES = 2, 32
"""Files that the parent has open: for each worker, and besides."""

_log = logging.getLogger("mrq.processes")


def check_number(number: int) -> None:
    """Raises ConfigError if this process may not open the pipes of this many workers."""
    most = (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _OTHER_FILES) // _FILES_OF_ONE
    if 0 <= most < number:
        raise ConfigError(
            f"PROCESSES is {number}, and the limit of open files allows {max(most, 0)} workers: raise the "
            "limit (ulimit -n), or lower PROCESSES"
        )


class ParentProcess:
    """Runs `number` workers. `start` starts the worker with a number from 1; it raises OSError."""

    def __init__(self, number: int, start: Callable[[int], ChildProcess], *, stop_grace: float) -> None:
        self._slots = [Slot(each + 1) for each in range(number)]
        self._start = start
        self._grace = stop_grace
        self._signals = SignalPipe()
        self._selector = selectors.DefaultSelector()
        self._was_ready = False
        """Whether a worker was ready since the start."""
        self._command = b""
        """The last command to the workers. Empty: the parent does not stop."""
        self._kills_at = float("inf")
        self._code = 0
        self._examined_at = monotonic()
        self._reaped_at = self._examined_at
        self._adopted = Adopted()

    def run(self) -> int:
        """Works until it must stop, the burst is over, or no worker can start. Returns the exit code."""
        self._signals.start()
        self._selector.register(self._signals.descriptor, selectors.EVENT_READ)
        _log.info("processes.started pid=%d processes=%d", os.getpid(), len(self._slots))
        while not self._is_over():
            self._start_due()
            received = self._wait()
            for number in received:
                self._obey(number)
            now = monotonic()
            self._examine(now)
            if signal.SIGCHLD in received or now - self._reaped_at >= _TICK:
                self._reaped_at = now
                self._reap()
        self._signals.ignore()
        _log.info("processes.stopped pid=%d code=%d", os.getpid(), self._code)
        return self._code

    def _alive(self) -> Iterator[tuple[Slot, ChildProcess]]:
        return ((slot, slot.child) for slot in self._slots if slot.child is not None)

    def _is_over(self) -> bool:
        if any(self._alive()):
            if monotonic() < self._kills_at + _DEATH_WITHIN:
                return False
            _log.error("processes.left pids=%s: killed, and not gone", [c.pid for _, c in self._alive()])
            return True
        return bool(self._command) or all(slot.is_over for slot in self._slots)

    def _wait(self) -> list[int]:
        """Waits for the next event or time. Reads the reports, and returns the signals."""
        now = monotonic()
        times = [now + _TICK]
        if self._kills_at > now:
            times.append(self._kills_at)
        if not self._command:
            times += [slot.next_start for slot in self._startable() if slot.child is None]
        if any(child.has_unsent for _, child in self._alive()):
            times.append(now + _TICK_UNSENT)
        received: list[int] = []
        for key, _ in self._selector.select(max(0.0, min(times) - now)):
            if key.data is None:
                received = self._signals.read()
            else:
                self._receive(key.data)
        return received

    def _receive(self, slot: Slot) -> None:
        child = slot.child
        if child is None:
            return
        if not child.receive():
            self._forget(child)
        self._was_ready |= child.is_ready

    def _forget(self, child: ChildProcess) -> None:
        with suppress(KeyError):
            self._selector.unregister(child.reports)

    # --- starting ---------------------------------------------------------------------------------

    def _startable(self) -> list[Slot]:
        """The slots whose workers may start: the first only, until a worker is ready."""
        slots = self._slots if self._was_ready else self._slots[:1]
        return [slot for slot in slots if not slot.is_over]

    def _start_due(self) -> None:
        for slot in self._startable():
            if not self._command and slot.is_due(monotonic()):
                try:
                    slot.child = child = self._start(slot.number)
                except OSError as error:
                    self._after_failure(slot, f"cannot be started: {error}", slot.failed(), _FAILED)
                else:
                    self._selector.register(child.reports, selectors.EVENT_READ, slot)
                    _log.debug("process.started number=%d pid=%d", slot.number, child.pid)

    def _after_failure(self, slot: Slot, how: str, pause: float, code: int) -> None:
        """Gives up if no worker is at work and more attempts are useless."""
        is_last = code == _USAGE or slot.failures >= FAILURES_MOST
        if is_last and not any(child.is_ready for _, child in self._alive()):
            _log.error("processes.given_up number=%d failures=%d: the worker %s, and no other worker runs",
                       slot.number, slot.failures, how)  # fmt: skip
            self._code = code
            self._tell(STOP, LEAVE_WITHIN)
        else:
            _log.error("process.failed number=%d: the worker %s; the next start is in %g s",
                       slot.number, how, pause)  # fmt: skip

    # --- watching ---------------------------------------------------------------------------------

    def _examine(self, now: float) -> None:
        """Kills workers that are silent for too long, or that a stop has not ended in time."""
        elapsed, self._examined_at = now - self._examined_at, now
        for slot, child in self._alive():
            if child.has_unsent:
                child.send(b"")
            if now >= self._kills_at and not child.is_killed:
                _log.error("process.killed number=%d pid=%d: it did not stop in time", slot.number, child.pid)
                child.kill()
            elif child.is_overdue(elapsed):
                _log.error(
                    "process.killed number=%d pid=%d: it does not respond, and its limit is over; its claims "
                    "are lost", slot.number, child.pid,
                )  # fmt: skip
                child.kill()

    def _reap(self) -> None:
        for slot, child in list(self._alive()):
            code = child.exit_code()
            if code is not None:
                self._was_ready |= child.is_ready
                self._forget(child)
                child.close()
                self._after_end(slot, child, code)
        self._adopted.reap({child.pid for _, child in self._alive()})

    def _after_end(self, slot: Slot, child: ChildProcess, code: int) -> None:
        pause = slot.ended(child, code)
        how = described(code)
        if self._command:
            _log.info("process.ended number=%d pid=%d: %s", slot.number, child.pid, how)
        elif pause is not None:
            self._after_failure(
                slot, f"ended before it was ready ({how})", pause, _USAGE if code == _USAGE else _FAILED
            )
        elif code == 0:
            then = "its burst is over" if slot.is_over else "another one follows"
            _log.info("process.ended number=%d pid=%d: %s", slot.number, child.pid, then)
        else:
            _log.error("process.died number=%d pid=%d: %s; another one follows", slot.number, child.pid, how)

    # --- stopping ---------------------------------------------------------------------------------

    def _obey(self, number: int) -> None:
        """Passes a signal on: SIGINT drains, and interrupts if it is not the first signal."""
        if number == signal.SIGCHLD:
            return
        name = signal.Signals(number).name
        if number != signal.SIGINT:
            if self._command in (b"", DRAIN):
                _log.info("processes.stopping on %s: running jobs have %g s to finish", name, self._grace)
                self._tell(STOP, self._grace + LEAVE_WITHIN)
        elif not self._command:
            _log.info("processes.stopping on %s: running jobs finish; again to interrupt them", name)
            self._tell(DRAIN, float("inf"))
        elif self._command != INTERRUPT:
            _log.info("processes.stopping on %s: running jobs are interrupted", name)
            self._tell(INTERRUPT, LEAVE_WITHIN)

    def _tell(self, command: bytes, seconds: float) -> None:
        """Sends a command to all workers, and kills those that have not ended after these seconds."""
        self._command = command
        self._kills_at = min(self._kills_at, monotonic() + seconds)
        for _, child in self._alive():
            child.send(command)


class Adopted:
    """Processes that this process has adopted, as process 1 of a container does."""

    def __init__(self) -> None:
        self._left_since = float("inf")

    def reap(self, ours: set[int]) -> None:
        """Takes the exit statuses of those that have ended, seconds after the first of them: a log handler
        may have forked such a process, and waits for it."""
        now = monotonic()
        try:
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if ended.si_pid in ours:
                    return  # it is next
                self._left_since = min(self._left_since, now)
                if now < self._left_since + _LEFT_FOR:
                    return
                os.waitpid(ended.si_pid, os.WNOHANG)
        except (ChildProcessError, AttributeError):  # macOS has no waitid in older versions of Python
            pass
        self._left_since = float("inf")
