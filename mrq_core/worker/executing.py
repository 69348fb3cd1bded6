"""A job's way in a worker, from the claimed record to the outcome that the settler stores.

In this order:

1. `Executing.start`, in the loop that claims: makes an `Execution` of each record, hands it to a greenlet,
   and calls the observers of `mrq_jobs_started`.
2. `Executing._execute`, in that greenlet: sets the context variables and starts the attempt.
3. `Executing._load` imports the task, one task at a time, within its timeout. `Runner.run` starts the
   timeout anew with `Executing._set_deadline`.
4. `Around.enter`, in `around.py`: runs plugins up to their `yield`, if any implements `mrq_around_job`.
5. `Runner._call`: refuses the second start of an at_most_once job, decodes the params with `mrq_decode`, and
   calls the task's code. No other function does.
6. `Outcomes`, in `outcomes.py`: turns the result or the exception into an `Outcome`.
7. `Around.leave`: runs the rest of the plugins.
8. `Executing.decide`: fixes the outcome and hands it to the `Settler`, in `settling.py`.

A job that runs solo takes steps 3 to 7 in a separate process, which `solo/solo_jobs.py` starts.

Meanwhile `leases.py` renews the claim, and `watchdog.py` interrupts the code when it is overdue or unwanted.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import gevent

from mrq_core.client.ambient import ambient_client
from mrq_core.clock import monotonic
from mrq_core.config.settings import Config
from mrq_core.contract.codec import JsonObject, copied
from mrq_core.contract.exception_fields import cause_of
from mrq_core.contract.lifecycle import runs_solo
from mrq_core.contract.messages import Outcome
from mrq_core.contract.record import JobRecord
from mrq_core.errors import ClaimLost, InvalidValue, MrqError, TaskImportFailed
from mrq_core.plugins.manager import Plugins
from mrq_core.running.context import JobContext, current_context
from mrq_core.running.job_log import JobLog, current_log
from mrq_core.tasks.loading import LoadedTask, load_task
from mrq_core.worker.around import Around
from mrq_core.worker.ended_lines import EndedLines
from mrq_core.worker.executions import Execution, job_execution
from mrq_core.worker.guards import forking
from mrq_core.worker.guards.guarded_log import GuardedLog
from mrq_core.worker.guards.surroundings import LONG
from mrq_core.worker.imports import Imports
from mrq_core.worker.interrupts import CancelRequests, import_interrupt, stop_interrupt, timeout_interrupt
from mrq_core.worker.outcomes import Outcomes
from mrq_core.worker.parent_link import ParentLink
from mrq_core.worker.pool import GreenletPool, restore_class
from mrq_core.worker.reporting.profiling import Profiler
from mrq_core.worker.settling import Settler
from mrq_core.worker.solo.solo_jobs import SoloProcesses
from mrq_core.worker.stopping import Stopping
from mrq_core.worker.worker_state import WorkerState

if TYPE_CHECKING:
    from mrq_core.debug.io_tracing import IoTracing

_SEES_RECORD = ("mrq_around_job", "mrq_jobs_started", "mrq_jobs_settled", "mrq_retry_decision")
"""The hooks whose plugins get the record of a job that runs."""

_log = GuardedLog("mrq.worker")


class Executing:
    """Takes claimed jobs through their attempts, in up to GREENLETS greenlets."""

    def __init__(
        self,
        state: WorkerState,
        settler: Settler,
        stopping: Stopping,
        cancels: CancelRequests,
        parent: ParentLink | None = None,
        tracing: IoTracing | None = None,
    ) -> None:
        self._state = state
        self._parent = parent
        self._executions = state.executions
        self._settler = settler
        self._stopping = stopping
        self._cancels = cancels
        self._wake = state.wake
        self._runner = Runner(state.config, state.plugins, on_loaded=state.note_loaded)
        self.outcomes = self._runner.outcomes
        self._solo = SoloProcesses(state, stopping, self.outcomes, self._limit_import, self._set_deadline)
        self._is_solo_possible = state.broker.is_shared
        self.profiler = Profiler(Runner._call.__code__)
        self._tracing = tracing
        self._ended_lines = EndedLines(state.config)
        self._imports = Imports()
        self._loop: Any = gevent.get_hub().loop
        self._pool = GreenletPool(state.config.greenlets, self._execute)

    def start(self, records: Sequence[JobRecord]) -> None:
        """Starts the attempts of jobs that were claimed just now. The caller keeps to the free greenlets."""
        state = self._state
        for record in records:
            log = JobLog(record.id, record.claims, state.config.max_log_size)
            execution = job_execution(JobContext(record, state.client, log, worker=state.worker))
            self._executions.add(execution)
            self._pool.start(execution)
            # Requests that came before the execution could be found.
            if self._stopping.is_killing:
                execution.interrupt_from(monotonic(), stop_interrupt)
            self._cancels.apply(execution)
        state.metrics.started(records)
        # Only now: the claims are held, renewed and can be interrupted, however slow an observer is.
        if state.plugins.implements("mrq_jobs_started"):
            state.observers.call("mrq_jobs_started", records=list(records))

    def _execute(self, execution: Execution) -> bool:
        """Runs in a greenlet of the pool, in a copy of the context. Never raises, and always decides or drops
        the execution. True: the code of the job did not wait, and has left nothing in the loop."""
        is_clean = False
        context, record = execution.context, execution.record
        try:
            current_context.set(context)
            current_log.set(context.log)
            ambient_client.set(self._state.client)
            if _log.logger.isEnabledFor(logging.DEBUG):
                _log.debug("job.started id=%s path=%s attempt=%d", record.id, record.path, record.claims)
            execution.started = monotonic()
            execution.greenlet.has_waited = False
            self._state.surroundings.guard_streams()
            if self.profiler.wishes:
                self.profiler.begin(execution)
            if self._tracing is not None:
                execution.io = self._tracing.begin(context, execution.greenlet)
            active = self._loop.activecnt
            outcome = self._run(execution)
            restore_class(execution.greenlet)
            if outcome is None:
                self._drop(execution)
                return False
            # While a job does not wait, nothing else runs that could change the number.
            is_clean = self._loop.activecnt == active and not execution.greenlet.has_waited
        except BaseException as fault:  # of mrq, or an exception that an earlier job left for this greenlet
            outcome = execution.context.outcome or self.outcomes.of_fault(
                execution.context, fault, execution.started
            )
        if self._tracing is not None and execution.io is not None:
            self._tracing.end(execution.io, context, execution.greenlet)
        # Decided before code of a task, such as a log handler, is called again.
        is_alone = self._executions.running == 1
        self.decide(execution, outcome)
        surroundings, now = self._state.surroundings, monotonic()
        if now - execution.started > LONG or not surroundings.is_intact(now):
            surroundings.restore(is_alone=is_alone)
        if execution.outcome is outcome and not context.is_told:
            self._ended_lines.log(context, outcome)
        return is_clean

    def _run(self, execution: Execution) -> Outcome | None:
        """Runs the attempt here, or in a separate process. None: the claim is lost."""
        context = execution.context
        failure = None
        if not (self._is_solo_possible and runs_solo(context.record)):
            failure = self._load(execution)
            loaded = context.loaded
            if loaded is None or not (loaded.isolate and self._is_solo_possible):
                return self._runner.run(context, partial(self._set_deadline, execution), failure)
        return self._solo.run(execution)

    def _load(self, execution: Execution) -> BaseException | None:
        """Loads the task, in its turn."""
        context = execution.context
        if self._runner.is_loaded(context.record.path):
            return self._runner.load(context)
        with self._imports.turn(execution) as interrupt:
            if interrupt is not None:
                context.interrupted = interrupt
                return interrupt
            self._limit_import(execution)
            try:
                with self._state.surroundings.settings_kept():
                    return self._imports.run(
                        partial(self._runner.load, context), partial(self._runner.forget, context)
                    )
            finally:
                execution.end_import()
                self._state.surroundings.guard_streams()

    def _limit_import(self, execution: Execution) -> None:
        """Interrupts the import after the timeout of the task, as far as the configuration tells it."""
        config = self._state.config
        options: Any = config.tasks.get(execution.record.path, {})
        timeout = options.get("timeout", config.default_job_timeout)
        # What is imported already takes no time, and the parent would not know the limits of other jobs.
        if self._parent is not None and execution.record.path.rpartition(".")[0] not in sys.modules:
            self._parent.expect(execution, timeout)
        if timeout:
            execution.limit_import(monotonic() + timeout, partial(import_interrupt, timeout))

    def _set_deadline(self, execution: Execution, timeout: float) -> None:
        """Starts the timeout, in seconds; 0: no timeout."""
        execution.end_import()
        if self._parent is not None:
            self._parent.expect(execution, timeout)
        if timeout:
            execution.limit_run(monotonic() + timeout, partial(timeout_interrupt, timeout))
            if self._stopping.is_killing:  # a signal in the middle of the call above may have been lost
                execution.interrupt_from(monotonic(), stop_interrupt)

    def decide(self, execution: Execution, outcome: Outcome) -> None:
        """Ends the execution with this outcome, unless its outcome was decided before."""
        if execution.decide(outcome):
            self._executions.ended(execution)
            self._settler.add(execution)
            if self._parent is not None:
                self._parent.leave(execution)
        if not self._wake.is_set():
            self._wake.set()

    def _drop(self, execution: Execution) -> None:
        """Leaves a claim without an outcome: it is lost. The lease keeper ends its lease at once; if the
        broker is away, or the worker stops, the lease ends in its time."""
        if execution.outcome is None:
            self._executions.ended(execution)
            self._executions.remove([execution])
            with suppress(MrqError):
                self._settler.store_lines([execution])
            self._state.dropped.append(execution)
        self._wake.set()

    def close(self) -> None:
        """Ends what was started for solo jobs."""
        self._solo.close()

    def abandon(self) -> None:
        """Decides the outcomes of jobs whose code did not end when it was interrupted."""
        for execution in self._executions.undecided():
            record = execution.record
            text = "job.abandoned id=%s path=%s: its code did not end when it was interrupted"
            _log.warning(text, record.id, record.path)
            interrupt = execution.interrupt_at(monotonic()) or stop_interrupt()
            outcome = self.outcomes.forced(execution.context, interrupt, execution.started)
            self.decide(execution, outcome)
            if execution.outcome is outcome:
                self._ended_lines.log(execution.context, outcome)


class Runner:
    """Runs one attempt, from its record to its outcome. Needs no worker, and calls no broker.

    Loads each task once in a process, and again if loading failed. Calls `on_loaded` with each
    loaded task.
    """

    def __init__(
        self, config: Config, plugins: Plugins, on_loaded: Callable[[LoadedTask], None] | None = None
    ) -> None:
        self._on_loaded = on_loaded
        self._config = config
        self._plugins = plugins
        self._wrappers = plugins.job_wrappers()
        self._is_watched = any(map(plugins.implements, _SEES_RECORD))
        self._loaded: dict[str, LoadedTask] = {}
        self.outcomes = Outcomes(config, plugins)

    def run(
        self,
        context: JobContext,
        set_deadline: Callable[[float], None] | None = None,
        failure: BaseException | None = None,
    ) -> Outcome:
        """Runs the task of the job, and the plugins around it. Never raises. Calls `set_deadline` with the
        timeout, in seconds, after the task is loaded and before anything of it runs. `failure`: the answer of
        `load`, if the caller has called it."""
        started = monotonic()
        around = Around(self._wrappers, context) if self._wrappers else None
        if context.loaded is None and failure is None:
            failure = self.load(context)
        try:
            loaded = context.loaded
            if set_deadline is not None:
                set_deadline(self._config.default_job_timeout if loaded is None else loaded.timeout)
            if around is not None:
                around.enter()
            if loaded is None:
                assert failure is not None
                raise failure
            outcome = self._call(context, loaded, started)
            if context.interrupted is not None:
                outcome = self.outcomes.of_interrupted(context, outcome, started)
        except BaseException as error:
            context.in_code = False
            forking.end_if_child(error)
            outcome = self.outcomes.of_exception(context, error, started)
            if around is not None:
                around.leave(outcome, error)
        else:
            if around is not None:
                around.leave(outcome, None)
        finally:
            del failure  # its traceback refers to this frame
        return outcome

    def is_loaded(self, path: str) -> bool:
        """Whether the task of this path is imported."""
        return path in self._loaded

    def forget(self, context: JobContext) -> None:
        """Makes the next `load` of the task load it anew."""
        self._loaded.pop(context.record.path, None)

    def load(self, context: JobContext) -> BaseException | None:
        """Loads the task. Returns what that raises: it ends the attempt inside the plugins around the job."""
        path = context.record.path
        loaded = self._loaded.get(path)
        if loaded is None:
            context.in_code = True
            try:
                loaded = self._loaded[path] = load_task(path, self._config)
            except BaseException as error:  # a module may raise anything
                forking.end_if_child(cause_of(error) if type(error) is TaskImportFailed else error)
                return error
            finally:
                context.in_code = False
            forking.end_if_child()
            if self._on_loaded is not None:
                self._on_loaded(loaded)
        context.loaded = loaded
        return None

    def _call(self, context: JobContext, loaded: LoadedTask, started: float) -> Outcome:
        """Calls the task's code, and returns its outcome if it returns. Interrupts are raised only between
        the two lines that set `in_code`: in the code, and in plugins that decode and encode."""
        _refuse_second_start(context.record, loaded)
        context.in_code, has_returned = True, False
        try:
            params = self._params(context)
            result = loaded.task_class().run_wrapped(params)
            forking.end_if_child()
            has_returned = True
            outcome = self.outcomes.of_result(loaded, result, started)
            forking.end_if_child()
            return outcome
        except InvalidValue:
            context.in_code = False
            if has_returned:
                self.outcomes.end_unstorable(context, result)
            raise
        finally:
            context.in_code = False

    def _params(self, context: JobContext) -> JsonObject:
        """The decoded params; a copy where plugins see the record, which keeps its params as claimed."""
        stored = context.record.params
        params = self._plugins.decode(stored)
        forking.end_if_child()
        if not isinstance(params, dict):
            raise MrqError(
                f"a plugin's mrq_decode made a {type(params).__name__} of the params: expected a dict"
            )
        if self._is_watched and params is stored:
            return copied(stored)
        return params


def _refuse_second_start(record: JobRecord, loaded: LoadedTask) -> None:
    """Raises ClaimLost for the second attempt of an at_most_once job.

    A job that was queued without its code is stored as an ordinary job, and claimed again after a lost claim.
    """
    for attempt in reversed(record.history if loaded.at_most_once else ()):
        if attempt.lost:
            raise ClaimLost(
                f"the claim of worker {attempt.worker} was lost while it ran this job, and an "
                "at_most_once job is never started twice",
                job_id=record.id,
            )
        if not attempt.status.is_waiting:  # the job has ended, and a person has queued it again
            return
