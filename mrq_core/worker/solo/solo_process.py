"""The solo process of one job: runs one attempt, and reports to the worker that started it.

The worker keeps the claim, its lease, the deadline and the settle. This process runs the task's code and the
plugins around it, on a separate broker connection. A native thread sends heartbeats, so that the worker can
tell code that responds to an interrupt from C code that holds the GIL. See `solo_jobs.py` for the other side.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import gevent
from gevent.monkey import get_original

from mrq_core import errors
from mrq_core.client.ambient import ambient_client, set_process_client
from mrq_core.client.client import Client
from mrq_core.clock import monotonic
from mrq_core.config.settings import Config, default_of
from mrq_core.config.source_file import ConfigFile
from mrq_core.config.sources import load_config
from mrq_core.contract.driver import RunBlocking
from mrq_core.contract.messages import Outcome
from mrq_core.contract.queries import LogLine
from mrq_core.contract.record import JobRecord, Status
from mrq_core.debug import start_io_tracing
from mrq_core.errors import Interrupt
from mrq_core.plugins.manager import Plugins
from mrq_core.plugins.opening import open_broker
from mrq_core.running.context import JobContext, current_context, shielded
from mrq_core.running.job_log import JobLog, current_log
from mrq_core.running.logs import logging_kept, set_up_logging
from mrq_core.worker.ended_lines import EndedLines
from mrq_core.worker.executing import Runner
from mrq_core.worker.executions import Execution, Executions, job_execution
from mrq_core.worker.guards import blocking
from mrq_core.worker.guards.armed import guard_process
from mrq_core.worker.guards.guarded_log import GuardedLog
from mrq_core.worker.guards.native import NativeLoop, get_ident, start_lasting_thread
from mrq_core.worker.guards.tracebacks import error_fields, format_traceback
from mrq_core.worker.reporting.stacks import frame_of, full_stack, io_lines, other_greenlets, waiting_text
from mrq_core.worker.solo.solo_log import SoloLog
from mrq_core.worker.solo.solo_messages import (
    HEARTBEAT,
    HEARTBEATS,
    MESSAGES,
    Ended,
    FromProcess,
    Inbox,
    Interrupting,
    Logged,
    Progressed,
    Running,
    StackWanted,
    Start,
    StopRequested,
    Traced,
    beats_of,
    framed,
    to_process,
)
from mrq_core.worker.watchdog import Watchdog

if TYPE_CHECKING:
    from mrq_core.debug.io_tracing import IoTracing

_DATA_FACTOR = 2
"""How far RLIMIT_DATA lies above the limit of the resident memory, which the worker checks: it stops an
allocation that is too quick for these checks."""
_STATUS_DATA = "VmData:"
_GREENLETS_MOST = 50
_LOG_PAUSE = 0.5
"""Seconds between two looks at whether the job has changed logging."""
_IO_PAUSE = 1.0
"""Seconds between two messages about I/O."""

_log = GuardedLog("mrq.worker")


def main(parent: int) -> None:
    """Runs the job that the worker names in its first message. `parent`: the process that ends this one."""
    os.set_blocking(MESSAGES, True)  # gevent made it otherwise in the worker
    inbox = Inbox()
    try:
        start = _receive(inbox)
    except EOFError:
        return  # the worker no longer wants it
    assert isinstance(start, Start)
    try:
        os.chdir(start.folder)
    except OSError:
        pass  # the folder was deleted; the worker runs on in it as well
    link = Link()
    started = monotonic()
    try:
        Job(start, link, inbox, parent).run()
    except BaseException as error:  # the configuration was changed since the worker started, or a plugin
        ttl = start.settings.get("default_job_ttl", default_of("DEFAULT_JOB_TTL"))
        link.send(
            Ended(
                Outcome(
                    status=Status.FAILED,
                    ttl=ttl,
                    total_time=monotonic() - started,
                    **error_fields(start.record.path, error),
                    traceback=format_traceback(error),
                ),
                is_logged=False,
            )
        )


class Link:
    """The socket to the worker. `send` may be called in each thread and greenlet."""

    def __init__(self) -> None:
        # Not a lock of gevent: a native thread takes it too. Its holder never waits for the hub.
        self._lock = get_original("_thread", "allocate_lock")()
        self._is_open = True
        os.register_at_fork(after_in_child=self._close)

    def send(self, message: FromProcess) -> None:
        """Sends the message in one piece. Has no effect in a forked child, and when the worker is gone."""
        self.send_framed(framed(message))

    def send_framed(self, message: bytes) -> None:
        """The same for an encoded message."""
        data = memoryview(message)
        with shielded(), self._lock:
            while data and self._is_open:
                try:
                    data = data[os.write(MESSAGES, data) :]
                except OSError:
                    self._is_open = False

    def _close(self) -> None:
        self._lock = get_original("_thread", "allocate_lock")()
        self._is_open = False


class ForwardedLog(JobLog):
    """A log whose lines go to the worker at once, so that they outlive this process."""

    __slots__ = ("_link",)

    def __init__(self, record: JobRecord, max_size: int, link: Link) -> None:
        super().__init__(record.id, record.claims, max_size)
        self._link = link

    def keep(self, line: LogLine) -> None:
        self._link.send(Logged(line))


class SoloWorker:
    """What `get_current_worker` returns in a solo process."""

    def __init__(self, name: str, config: Config, client: Client, link: Link) -> None:
        self.name = name
        self.config = config
        self.client = client
        self._link = link

    def stop(self, why: str) -> None:
        """Asks the worker to finish its running jobs and to claim nothing more."""
        self._link.send(StopRequested(why))


class Job:
    """The attempt, and the threads beside it."""

    def __init__(self, start: Start, link: Link, inbox: Inbox, parent: int) -> None:
        self._start = start
        self._parent = parent
        self._link = link
        self._inbox = inbox
        self._executions = Executions()
        self._execution: Execution | None = None
        self._interrupt: Interrupting | None = None
        """An interrupt that came before the execution was there."""
        self._progress: float | None = None
        self._tracing: IoTracing | None = None
        self._io_told: object = None
        self._io_told_at = 0.0
        self._is_stack_wanted = False
        self._hub_thread = get_ident()

    def run(self) -> None:
        """Runs the attempt, and sends its outcome."""
        start = self._start
        heart = NativeLoop(self._beat, first_pause=0.0, finish=lambda: None)
        heart.start()
        start_lasting_thread(self._listen)
        file: str | ConfigFile = start.config_file
        if start.config_source is not None:
            file = ConfigFile(start.config_file, start.config_source)
        config = load_config(start.settings, file=file)
        set_up_logging(config, worker=start.worker, follows_file=True)
        self._tracing = start_io_tracing(config)
        self._solo_log = SoloLog()
        with logging_kept():
            plugins = Plugins(config)
        run_blocking: RunBlocking = blocking.run_blocking
        if self._tracing is not None:
            run_blocking = self._tracing.blocking(run_blocking)
        broker = open_broker(config, plugins, run_blocking=run_blocking)
        client = set_process_client(Client(config, broker, plugins))
        client.keep_open()
        self._ended_lines = EndedLines(config)
        log = ForwardedLog(start.record, config.max_log_size, self._link)
        worker = SoloWorker(start.worker, config, client, self._link)
        context = JobContext(start.record, client, log, worker=worker)
        self._execution = execution = job_execution(context)
        self._executions.add(execution)
        guard_process(self._tracing)
        watchdog = Watchdog(
            self._executions, give_up=_leave_to_worker, tick=lambda now: None, is_killing=lambda: False
        )
        watchdog.start()
        self._obey()
        gc.freeze()
        runner = Runner(config, plugins)
        execution.greenlet = gevent.spawn(self._execute, runner, context)
        while not execution.greenlet.ready():
            execution.greenlet.join(_LOG_PAUSE)
            self._solo_log.look()
        self._tell_progress()
        watchdog.stop()
        heart.stop()
        broker.close()

    def _execute(self, runner: Runner, context: JobContext) -> None:
        current_context.set(context)
        current_log.set(context.log)
        ambient_client.set(context.client)
        started = monotonic()
        execution, tracing = self._execution, self._tracing
        if tracing is not None and execution is not None:
            execution.io = tracing.begin(context, gevent.getcurrent())
        try:
            with logging_kept():  # levels that the module of the task sets stay
                failure = runner.load(context)
            outcome = runner.run(context, partial(self._loaded, context), failure)
        except BaseException as error:  # a fault of mrq, or an exception that the job left for this greenlet
            outcome = context.outcome or runner.outcomes.of_fault(context, error, started)
        if tracing is not None and execution is not None and execution.io is not None:
            tracing.end(execution.io, context, gevent.getcurrent())
        self._tell_progress()
        self._solo_log.restore()
        try:
            message = framed(Ended(outcome))
        except BaseException as error:  # a value that no message carries
            outcome = runner.outcomes.of_fault(context, error, started)
            message = framed(Ended(outcome))
        self._ended_lines.log(context, outcome)
        self._link.send_framed(message)

    def _loaded(self, context: JobContext, timeout: float) -> None:
        """Called after the task was loaded, before its code runs."""
        memory = context.loaded.memory if context.loaded is not None else 0
        if memory:
            most = _data_size() + _DATA_FACTOR * memory
            resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        self._link.send(Running(timeout=timeout, memory=memory))

    # --- in native threads -------------------------------------------------------------------

    def _beat(self) -> float:
        """Tells the worker that this process responds. Ends the process if its parent is gone."""
        if os.getppid() != self._parent:
            os.killpg(0, signal.SIGKILL)
        stack = None
        if self._is_stack_wanted:
            self._is_stack_wanted = False
            stack = self._stacks()
        try:
            for beat in beats_of(stack):
                os.write(HEARTBEATS, beat)
        except BrokenPipeError:  # the worker has ended since its id was read
            os.killpg(0, signal.SIGKILL)
        except BlockingIOError:
            self._is_stack_wanted = stack is not None  # the worker has many of them to read
        self._tell_progress()
        self._tell_io()
        return HEARTBEAT

    def _tell_progress(self) -> None:
        execution = self._execution
        progress = execution.context.progress if execution is not None else None
        if progress is not None and progress != self._progress:
            self._progress = progress
            self._link.send(Progressed(progress))

    def _tell_io(self) -> None:
        """Tells the worker what the I/O waits for, up to once a second, if that has changed."""
        execution, now = self._execution, monotonic()
        if execution is None or execution.io is None or now < self._io_told_at + _IO_PAUSE:
            return
        try:
            io = execution.io.state()
        except RuntimeError:  # it changed while it was read
            return
        since = tuple((call.kind, call.text, round(now - call.seconds, 1)) for call in io.calls)
        known = (since, io.left_out, io.totals)
        if known != self._io_told:
            self._io_told, self._io_told_at = known, now
            self._link.send(Traced(io))

    def _listen(self) -> None:
        """Receives interrupts, also while the job blocks the hub."""
        while True:
            try:
                message = _receive(self._inbox)
            except (OSError, EOFError):
                return
            if isinstance(message, Interrupting):
                self._interrupt = message
                self._obey()
            elif isinstance(message, StackWanted):
                self._is_stack_wanted = True

    def _stacks(self) -> str:
        """The stack of the job, and of the other greenlets of this process."""
        execution = self._execution
        if execution is None:
            return "  starts\n"
        frame = frame_of(execution, self._hub_thread)
        parts = [io_lines(execution, frame), full_stack(frame)]
        for name, other in other_greenlets({id(execution.greenlet)}, _GREENLETS_MOST):
            if other is not None:
                parts.append(f"  greenlet {name}\n{waiting_text(other)}{full_stack(other)}")
        return "".join(parts)

    def _obey(self) -> None:
        message, execution = self._interrupt, self._execution
        if message is not None and execution is not None:
            kind: Callable[[str], Interrupt] = getattr(errors, message.kind)
            execution.interrupt_from(monotonic(), partial(kind, message.message))


def _leave_to_worker(execution: Execution | None) -> None:
    """Does nothing: the worker kills a process whose code does not end when it is interrupted."""


def _receive(inbox: Inbox) -> Any:
    """The next message of the worker. Blocks the native thread that calls it. Raises OSError and EOFError."""
    while (frame := inbox.next_frame()) is None:
        data = os.read(MESSAGES, 65536)
        if not data:
            raise EOFError
        inbox.add(data)
    return to_process(frame)


def _data_size() -> int:
    """The private writable memory of this process, in bytes; 0 where the system does not tell."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
            for line in lines:
                if line.startswith(_STATUS_DATA):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
