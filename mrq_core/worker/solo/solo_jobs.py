"""Solo jobs: a process for one attempt of a job, beside the other jobs of the worker.

A job runs solo if its task is isolated, or if its claims were lost twice in a row. The greenlet of the job
waits for the process; `watchdog.py` examines the process ten times a second, also while another job blocks
the hub. `solo_handle.py` is one process as the worker sees it, `solo_process.py` the process itself.

How an attempt ends:

- The process sends the outcome.
- The worker kills the process: for its memory, or because its code did not end when it was interrupted. A
  process without heartbeats is killed at once.
- The process dies by itself. The claim is settled as lost (`Outcome.lost`), which counts against the job.
- The fork server dies, and its processes with it. This says nothing about the job: its claim is lost, as if
  the worker had died.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable

import gevent
from gevent.lock import BoundedSemaphore

from mrq_core.clock import monotonic
from mrq_core.config.cores import available_cores
from mrq_core.config.settings import SETTINGS, default_of
from mrq_core.contract.lifecycle import runs_solo
from mrq_core.contract.messages import Outcome
from mrq_core.contract.record import JobRecord, Status
from mrq_core.errors import Interrupt, JobInterrupt
from mrq_core.worker.executions import Execution
from mrq_core.worker.guards.guarded_log import GuardedLog
from mrq_core.worker.outcomes import Outcomes
from mrq_core.worker.solo.fork_server import ForkServer
from mrq_core.worker.solo.solo_handle import EXIT_PATIENCE, SoloProcess
from mrq_core.worker.solo.solo_messages import (
    Ended,
    Logged,
    Progressed,
    Running,
    Start,
    StopRequested,
    Traced,
)
from mrq_core.worker.stopping import Stopping
from mrq_core.worker.worker_state import WorkerState

_WAIT_SLICE = 0.2
_LONGEST_WAIT = 4.0
"""Seconds. So long a job that may kill its process waits in the worker, and about as long in its queue."""
_SPAWN_RETRY = 5.0
_BACKS_OFF_FROM = 3
"""From this number of claims lost with their workers on, a job waits for a while after each loss."""
_BACKOFF_MOST = 300.0
"""Seconds. The longest wait, unless the lease is longer."""

_log = GuardedLog("mrq.worker")

SetDeadline = Callable[[Execution, float], None]


class SoloProcesses:
    """Runs attempts in processes, up to SOLO_PROCESSES at a time."""

    def __init__(
        self,
        state: WorkerState,
        stopping: Stopping,
        outcomes: Outcomes,
        limit_import: Callable[[Execution], None],
        set_deadline: SetDeadline,
    ) -> None:
        self._state = state
        self._stopping = stopping
        self._outcomes = outcomes
        self._limit_import = limit_import
        self._set_deadline = set_deadline
        self._most = state.config.solo_processes or available_cores()
        self._slots = BoundedSemaphore(self._most)
        self._suspects_waiting = 0
        self._folder = _working_directory()
        self._server: ForkServer | None = None

    def close(self) -> None:
        """Ends the fork server."""
        if self._server is not None:
            self._server.close()

    def run(self, execution: Execution) -> Outcome | None:
        """Runs the attempt in a process. Called in the job's greenlet. An attempt that waits for a free
        process is given back when the worker stops. None: the fork server died, and the claim is lost."""
        waiting = self._wait_for_slot(execution)
        if waiting is not None:
            return waiting
        process = None
        try:
            execution.started = monotonic()
            process = SoloProcess(self._fork_server())
            process.send(self._start_of(execution))
            execution.process = process  # not before: an interrupt must not be the first message
            self._limit_import(execution)
            return self._follow(execution, process)
        except OSError as error:  # no memory, too many processes or files
            _log.error(
                "solo.not_started id=%s retry_in=%.0fs error=%s", execution.record.id, _SPAWN_RETRY, error
            )
            return self._given_back(_SPAWN_RETRY)
        except Exception as error:
            return self._outcomes.of_exception(execution.context, error, execution.started)
        finally:
            gevent.spawn(self._release, process)

    def _wait_for_slot(self, execution: Execution) -> Outcome | None:
        """Waits until another process may start. Otherwise returns the outcome of the attempt.

        A job that runs solo for its lost claims is lost once more if its worker dies while it waits here.
        Therefore only as many of them wait as there are processes. The others go back to their queue, and are
        due again after a moment. A job that was lost with its worker again and again goes back for longer.
        """
        if not runs_solo(execution.record):
            return self._acquire(execution, None)
        backoff = backoff_of(execution.record, self._state.config.lease)
        if backoff > 0:
            _log.info("job.backs_off id=%s retry_in=%.1fs: its workers died", execution.record.id, backoff)
            return self._given_back(backoff)
        if self._suspects_waiting >= self._most:
            return self._wait_in_queue()
        self._suspects_waiting += 1
        try:
            return self._acquire(execution, monotonic() + _LONGEST_WAIT)
        finally:
            self._suspects_waiting -= 1

    def _acquire(self, execution: Execution, deadline: float | None) -> Outcome | None:
        while True:
            has_slot = self._slots.acquire(timeout=_WAIT_SLICE)
            outcome = self._outcome_of_wait(execution, deadline, has_slot)
            if outcome is None and has_slot:
                return None
            if outcome is not None:
                if has_slot:
                    self._slots.release()
                return outcome

    def _outcome_of_wait(
        self, execution: Execution, deadline: float | None, has_slot: bool
    ) -> Outcome | None:
        """The outcome of an attempt that must not start, or wait any more. None: it may."""
        now = monotonic()
        interrupt = execution.interrupt_at(now)
        if isinstance(interrupt, JobInterrupt):
            return self._given_back(0.0)
        if interrupt is not None:
            return self._outcomes.forced(execution.context, interrupt, execution.started)
        if has_slot:
            return None
        if self._stopping.is_stopping:
            return self._given_back(0.0)
        return self._wait_in_queue() if deadline is not None and now > deadline else None

    def _wait_in_queue(self) -> Outcome:
        return self._given_back(_LONGEST_WAIT * random.uniform(0.5, 1.5))

    def _given_back(self, delay: float) -> Outcome:
        """The outcome of an attempt that ran no code."""
        cancel_ttl = self._state.config.default_job_cancel_ttl
        return Outcome(status=Status.QUEUED, delay=delay, cancel_ttl=cancel_ttl)

    def _fork_server(self) -> ForkServer:
        """The running server. A server that was killed is replaced."""
        if self._server is None or not self._server.is_alive:
            self._server = ForkServer(_modules_of(self._state))
        return self._server

    def _start_of(self, execution: Execution) -> Start:
        config = self._state.config
        values = {name.lower(): getattr(config, name.lower()) for name in SETTINGS}
        module = config.module
        return Start(
            folder=self._folder,
            config_file=getattr(module, "__file__", None) or os.devnull,
            config_source=None if config.file is None else config.file.source,
            settings={
                name: value
                for name, value in values.items()
                # Also a default that was given: the process finds the same environment and config file.
                if (name.upper() in config.sources or value != default_of(name.upper()))
                and not SETTINGS[name.upper()].file_only
            },
            worker=self._state.name,
            record=execution.record,
        )

    def _follow(self, execution: Execution, process: SoloProcess) -> Outcome | None:
        """Receives the messages of the process until it has sent the outcome, or is gone."""
        context = execution.context
        for message in process.messages():
            match message:
                case Logged(line):
                    context.log.take_over(line)
                case Progressed(ratio):
                    context.progress = ratio
                case Traced(io):
                    process.io = io
                case Running(timeout, memory):
                    process.memory = memory
                    self._set_deadline(execution, timeout)
                case StopRequested(why):
                    self._stopping.stop(why)
                case Ended(outcome, is_logged):
                    context.is_told = is_logged
                    return outcome
        if process.killed_for is not None:
            reason = process.killed_for
            if isinstance(reason, Interrupt):
                return self._outcomes.forced(context, reason, execution.started)
            return self._outcomes.of_exception(context, reason, execution.started)
        death = process.death()
        if death is None:
            _log.error(
                "solo.server_died id=%s path=%s: the process that starts solo jobs has ended, and this job "
                "with it",
                execution.record.id, execution.record.path,
            )  # fmt: skip
            return None
        _log.error("solo.died id=%s path=%s: %s", execution.record.id, execution.record.path, death)
        return self._outcomes.of_death(context, death, execution.started)

    def _release(self, process: SoloProcess | None) -> None:
        """Ends the process and what it has started, and lets another one start."""
        if process is not None:
            process.end()
        self._slots.release()
        if process is not None:
            gevent.sleep(EXIT_PATIENCE)  # the watchdog's thread has forgotten the descriptors by then
            process.close()


def _modules_of(state: WorkerState) -> list[str]:
    """The modules of the broker and its drivers that this process has loaded."""
    opened = [type(state.broker).__module__]
    for driver in state.plugins.drivers.values():
        opened += [
            opener.__module__
            for opener in (driver.open_broker, driver.open_queue, driver.open_store)
            if opener is not None
        ]
    packages = tuple({f"{name.rpartition('.')[0]}." for name in opened if "." in name})
    return [name for name in sorted(sys.modules) if name in opened or name.startswith(packages)]


def backoff_of(record: JobRecord, lease: float) -> float:
    """The seconds that a claimed job has to wait because it was lost with its workers. 0: it may run now.

    Workers that die one after another, for lack of memory or at a rolling restart, take innocent jobs along,
    and ten losses in a row end a job. A wait that doubles with each loss, from one lease on, lets such a time
    pass. A job that kills its workers also kills fewer of them.
    """
    losses = record.lost_claims - record.solo_deaths
    if losses < _BACKS_OFF_FROM or record.started_at is None:
        return 0.0
    lost = next((attempt for attempt in reversed(record.history) if attempt.lost), None)
    if lost is None:  # later claims, which were given back, have displaced it: it has waited
        return 0.0
    wait = min(lease * 2.0 ** (losses - _BACKS_OFF_FROM), max(_BACKOFF_MOST, lease))
    return wait - (record.started_at - lost.ended_at).total_seconds()


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was deleted; the processes inherit it
        return os.curdir
