"""A worker's link to its parent of `--processes`: obeys its commands, and reports that the worker runs.

A native thread reads the commands. The watchdog's thread reports once a second, and whenever the limits of
the running jobs have changed. While C code holds the GIL, the worker sends no report, and the parent kills it
once the limit of the last report is over. A job that starts reports its limit itself, and the job with the
latest limit its end, because a job may hold the GIL at once.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mrq_core.clock import monotonic
from mrq_core.worker.executions import Execution, Executions
from mrq_core.worker.guards.native import start_lasting_thread
from mrq_core.worker.guards.own_descriptors import own
from mrq_core.worker.guards.process_end import end_process_within, write_and_exit
from mrq_core.worker.processes.messages import ALIVE, DONE, DRAIN, INTERRUPT, READY, REPORT, STOP

if TYPE_CHECKING:
    from mrq_core.worker.stopping import Stopping

_INTERVAL = 1.0
"""Seconds between two reports."""
_HARD_GRACE = 8.0
"""Seconds from the limit of a job until the parent kills its process. The watchdog gives the worker up three
seconds earlier."""
_IDLE_LIMIT = 60.0
"""Seconds for which a worker without jobs may be silent."""
_CHANGE = 1.0
"""Seconds. Smaller changes of the limit are not reported."""
_YOUNG = 1.0
"""Seconds for which a job without a limit is taken for a job that has none yet."""


class ParentLink:
    """The two pipes. `Worker` calls the methods; `tick` and `report_end` in the watchdog's thread."""

    def __init__(self, commands: int, reports: int) -> None:
        self._commands = commands
        self._reports = reports
        os.set_blocking(reports, False)
        own.add(commands, reports)
        self._stopping: Stopping | None = None
        self._executions = Executions()
        self._sent_at = -math.inf
        self._told = -math.inf
        """The latest limit of a running job that the parent knows, as monotonic time. -inf: no job runs."""
        self._longest: Execution | None = None
        """The job with this limit. None: not known."""

    def start(self) -> None:
        """Begins to read the commands. Until `obey`, each of them ends the process."""
        start_lasting_thread(self._read)

    def obey(self, stopping: Stopping, executions: Executions) -> None:
        """From now on, commands stop this worker."""
        self._executions = executions
        self._stopping = stopping

    def report_ready(self) -> None:
        """Says that the worker begins to claim jobs."""
        self._send(READY, _IDLE_LIMIT)

    def report_done(self) -> None:
        """Says that the burst is over."""
        self._send(DONE, _IDLE_LIMIT)

    def report_end(self, seconds: float) -> None:
        """Says that the process ends within these seconds, and reports no more."""
        self._send(ALIVE, seconds + _CHANGE)

    def expect(self, execution: Execution, timeout: float) -> None:
        """Reports the limit of a job that starts, in seconds from now, if it changes the latest limit. 0: no
        limit. Costs little for a worker whose jobs have similar limits, and beside a job with a later one."""
        now = monotonic()
        limit = now + timeout if timeout else math.inf
        if limit > self._told + _CHANGE:
            self._longest = execution
            self._tell(limit, now)
        elif limit < self._told - 2 * _CHANGE and self._is_free(execution):
            self._report_lower(execution, limit, now)

    def leave(self, execution: Execution) -> None:
        """Reports the latest limit of the jobs that run, if the job that has ended had a later one. Costs
        little for others."""
        if self._longest is execution:
            now = monotonic()
            running = next(self._begun(), None)
            if running is not None:
                self._report_lower(running, self._limit_of(running, now), now)

    def _report_lower(self, execution: Execution, limit: float, now: float) -> None:
        """Reports the latest limit of this job and all others, if it is lower than what the parent knows."""
        latest, self._longest = limit, execution
        for other in self._begun():
            due = self._limit_of(other, now)
            if other is not execution and due > latest:
                latest, self._longest = due, other
        if latest < self._told - 2 * _CHANGE:
            self._tell(latest, now)

    def _begun(self) -> Iterator[Execution]:
        """The running jobs but those that wait for their import: they report a limit before their code
        begins."""
        for execution in self._executions.undecided():
            if execution.context.in_code or execution.due is not None:
                yield execution

    def _is_free(self, execution: Execution) -> bool:
        """Whether no other job that runs is known to have the latest limit."""
        longest = self._longest
        if longest is None or longest is execution or longest.outcome is not None:
            return True
        return not self._executions.is_held(longest)

    def _tell(self, limit: float, now: float) -> None:
        self._told = limit + _CHANGE
        self._send(ALIVE, limit - now + _CHANGE + _HARD_GRACE)

    def tick(self, now: float) -> None:
        """Reports if a second has passed, or the limits have changed."""
        limit, longest = self._latest_limit(now)
        is_changed = limit > self._told + _CHANGE or limit < self._told - 2 * _CHANGE
        if is_changed or now >= self._sent_at + _INTERVAL:
            self._sent_at = now
            self._told, self._longest = limit, longest
            is_idle = limit == -math.inf
            self._send(ALIVE, _IDLE_LIMIT if is_idle else max(limit - now, 0.0) + _HARD_GRACE)

    def _latest_limit(self, now: float) -> tuple[float, Execution | None]:
        latest, longest = -math.inf, None
        for execution in list(self._begun()) or self._executions.undecided():
            limit = self._limit_of(execution, now)
            if limit > latest:
                latest, longest = limit, execution
        return latest, longest

    def _limit_of(self, execution: Execution, now: float) -> float:
        due = execution.due
        if due is not None:
            return due[0]
        return now + _IDLE_LIMIT if now < execution.started + _YOUNG else math.inf

    def _send(self, kind: bytes, seconds: float) -> None:
        try:
            os.write(self._reports, REPORT.pack(kind, seconds))
        except OSError:  # the parent is stopped, and the pipe full; or the parent is gone
            pass

    def _read(self) -> None:
        while True:
            try:
                received = os.read(self._commands, 64)
            except OSError:  # a task has closed it
                received = b""
            for number in received:
                self._obey(bytes([number]))
            if not received:
                self._obey(b"")
                return

    def _obey(self, command: bytes) -> None:
        """In the native thread. An empty command: the parent is gone."""
        stopping = self._stopping
        if stopping is None:
            line = "the worker had not started when its parent told it to stop, or was gone"
            end_process_within(1.0, 0, line)  # standard error may be a full pipe
            write_and_exit(line, 0)
        if command in (DRAIN, STOP):
            stopping.ask(is_drain=command == DRAIN, by="a command of its parent")
        elif command == INTERRUPT:
            stopping.interrupt("a command of its parent")
        elif not command:
            stopping.interrupt("the death of its parent")
