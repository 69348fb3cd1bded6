"""One worker process: its parts, and what a job goes through in it.

`Claiming` takes jobs; `_start` gives them to greenlets of the pool; `_execute` runs one there, by
the `Runner`; the `Settler` tells the broker. Two native threads, the `LeaseKeeper` and the
`Watchdog`, go on when a job blocks the hub.
"""

from __future__ import annotations

import gc
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import gevent
from gevent.event import Event

from mrq_core.client.client import Client, ambient_client, set_process_client
from mrq_core.config.settings import Config
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import Outcome
from mrq_core.contract.record import JobRecord, Status
from mrq_core.plugins.manager import Plugins, open_broker
from mrq_core.running.context import JobContext, current_context
from mrq_core.running.logs import JobLog, current_log
from mrq_core.tasks.loading import LoadedTask
from mrq_core.worker import blocking, forking
from mrq_core.worker.claiming import Claiming
from mrq_core.worker.executions import Execution, Executions
from mrq_core.worker.giving_up import GivingUp
from mrq_core.worker.housekeeping import Housekeeping
from mrq_core.worker.leases import LeaseKeeper
from mrq_core.worker.native import Mailbox
from mrq_core.worker.pool import GreenletPool
from mrq_core.worker.reporting import Reporter
from mrq_core.worker.running import Runner
from mrq_core.worker.settling import Settler
from mrq_core.worker.stopping import KILL_PATIENCE, Stopping, stop_interrupt
from mrq_core.worker.strategy import Strategy
from mrq_core.worker.watchdog import GRACE, Watchdog, timeout_interrupt

_LAST_TRY_SECONDS = 0.5
"""How long a call to the broker may take while the worker is being given up."""
_WISHES = frozenset({Status.RETRY, Status.QUEUED, Status.ABORT, Status.INTERRUPT, Status.CANCEL})
"""Outcomes that somebody asked for: no reason for a warning."""

_log = logging.getLogger("mrq.worker")


class Worker:
    """A worker. `run` works until it is told to stop, and returns the exit code of the process.

    It must be made and run in the main thread of a process that gevent has patched, because tasks
    wait on I/O, and brokers on their servers, by giving the hub to others. `on_settled` is called
    for each job whose outcome the broker has taken.
    """

    def __init__(
        self, config: Config, plugins: Plugins, *, on_settled: Callable[[Execution], None] | None = None
    ) -> None:
        self.config = config
        self.name = config.worker_name(os.getpid())
        self.status = "init"
        self.client = Client(
            config, open_broker(config, plugins, run_blocking=blocking.run_blocking), plugins
        )
        self._observer = on_settled
        broker = self.client.broker
        self._broker = broker
        self._wake = Event()
        self._counts: Counter[str] = Counter()
        self._strategy = Strategy(config.dequeue_strategy, config.queues)
        self._runner = Runner(config, plugins)
        self._executions = Executions()
        self._pool = GreenletPool(config.greenlets, self._execute)
        self._stopping = Stopping(self._executions, wake=self._wake.set)
        self._settler = Settler(
            broker, plugins, self._executions, max_log_size=config.max_log_size, on_settled=self._settled
        )
        reporter = Reporter(self._executions, self._settler, config, self._strategy.queues, self._counts)
        self._housekeeping = Housekeeping(
            config,
            broker,
            self._executions,
            self._settler,
            worker=self.name,
            describe=lambda: reporter.describe(self.name, self.status),
            stop=self.stop,
            wake=self._wake.set,
        )
        self._claiming = Claiming(
            config,
            broker,
            self._strategy,
            self._executions,
            self._settler,
            self._stopping,
            worker=self.name,
            wake=self._wake,
            paused=lambda: self._housekeeping.paused,
            start=self._start,
            set_status=self._set_status,
        )
        self._lost: Mailbox[Execution] = Mailbox(self._on_lost)
        self._keeper = LeaseKeeper(
            self._own_broker, self._executions, lease=config.lease, grace=2 * GRACE, lost=self._lost
        )
        giving_up = GivingUp(
            lambda: self._own_broker(_LAST_TRY_SECONDS),
            self._runner,
            self._executions,
            self._stopping,
            max_log_size=config.max_log_size,
        )
        self._watchdog = Watchdog(self._executions, give_up=giving_up, leave_by=self._stopping.leave_by)

    # --- its life ----------------------------------------------------------------------------

    def run(self) -> int:
        """Works until it is stopped or, in burst, nothing is left to do. Raises BrokerError if it
        cannot start; once it has, a broker that is away is waited for."""
        self._broker.prepare()
        set_process_client(self.client)
        self._stopping.handle_signals()
        forking.enter_worker()
        self._keeper.start()
        self._watchdog.start()
        settling = gevent.spawn(self._settler.run)
        code = 0
        try:
            self._housekeeping.start()
            _log.info(
                "worker.started name=%s broker=%s queues=%s greenlets=%d",
                self.name, self._broker.name, ",".join(self._strategy.queues), self.config.greenlets,
            )  # fmt: skip
            # What is loaded by now lives as long as the worker: the collector need not look at it again.
            gc.collect()
            gc.freeze()
            code = self._work()
        finally:
            self._housekeeping.stop()
            settling.kill()
            self._watchdog.stop()
            self._keeper.stop()
            self._lost.close()
            forking.leave_worker()
            self._stopping.restore_signals()
            self._set_status("stop")
            self._broker.close()
        _log.info("worker.stopped name=%s jobs=%d", self.name, self._claiming.claimed)
        return code

    def stop(self, why: str) -> None:
        """Finishes what runs and takes nothing new. May be called in any greenlet."""
        if not self._stopping.is_stopping:
            _log.info("worker.stopping name=%s: %s", self.name, why)
        self._stopping.stop()

    def _work(self) -> int:
        code = 0
        try:
            self._claiming.run()
        except Exception:
            _log.exception("worker.broke name=%s: it finishes what runs, and stops", self.name)
            code = 1
        self._stopping.is_stopping = True
        self._finish()
        return code

    def _finish(self) -> None:
        """Waits for what runs and for the broker to take every outcome."""
        self._set_status("join")
        while self._executions.running and not self._stopping.is_killing:
            self._wake.wait()
            self._wake.clear()
        if self._stopping.is_killing:
            self._end_what_runs()
        give_up_at: float | None = None
        while not self._settler.drain(0.1):
            if self._stopping.is_killing and give_up_at is None:
                give_up_at = time.monotonic() + KILL_PATIENCE
            if give_up_at is not None and time.monotonic() > give_up_at:
                _log.error("settle.given_up waiting=%d: these jobs will run again", self._settler.waiting)
                return

    def _end_what_runs(self) -> None:
        self._set_status("kill")
        deadline = time.monotonic() + KILL_PATIENCE
        while self._executions.running and time.monotonic() < deadline:
            self._wake.wait(deadline - time.monotonic())
            self._wake.clear()
        for execution in self._executions.undecided():
            _log.warning(
                "job.abandoned id=%s: its code did not end when it was interrupted", execution.record.id
            )
            interrupt = execution.interrupt_at(time.monotonic()) or stop_interrupt()
            self._decide(execution, self._runner.forced(execution.context, interrupt, execution.started))

    def _own_broker(self, timeout: float | None = None) -> Broker:
        """Another broker, for a native thread."""
        config = self.config if timeout is None else replace(self.config, broker_timeout=timeout)
        return open_broker(config, self.client.plugins)

    def _set_status(self, status: str) -> None:
        if status != self.status:
            self.status = status
            if self.client.plugins.implements("mrq_worker_event"):
                self.client.plugins.observe("mrq_worker_event", worker=self.name, event=status)

    # --- what a job goes through ---------------------------------------------------------------

    def _start(self, records: Sequence[JobRecord]) -> None:
        for record in records:
            log = JobLog(record.id, record.claims, self.config.max_log_size)
            execution = Execution(JobContext(record, self.client, log, worker=self))
            self._executions.add(execution)
            self._pool.start(execution)
            self._interrupt_if_asked(execution)
        # Only now: however long an observer takes, the claims are held, renewed and can be interrupted.
        if self.client.plugins.implements("mrq_jobs_started"):
            self.client.plugins.observe("mrq_jobs_started", records=list(records))

    def _interrupt_if_asked(self, execution: Execution) -> None:
        """For what was asked before this execution was there to be found."""
        if self._stopping.is_killing:
            execution.interrupt_from(time.monotonic(), stop_interrupt)
        self._housekeeping.interrupt_if_asked(execution)

    def _execute(self, execution: Execution) -> None:
        """In a greenlet of the pool, in a context of its own. Never raises."""
        current_context.set(execution.context)
        current_log.set(execution.context.log)
        ambient_client.set(self.client)
        record = execution.record
        _log.debug("job.started id=%s path=%s attempt=%d", record.id, record.path, record.claims)
        execution.started = time.monotonic()
        outcome = self._runner.run(execution.context, lambda loaded: self._arm(execution, loaded))
        if outcome.exception_type is not None:
            level = logging.INFO if outcome.status in _WISHES else logging.WARNING
            error = (outcome.traceback or "").rstrip().rpartition("\n")[2]
            _log.log(level, "job.%s id=%s path=%s error=%s", outcome.status, record.id, record.path, error)
        self._decide(execution, outcome)

    def _arm(self, execution: Execution, loaded: LoadedTask) -> None:
        if loaded.timeout:
            execution.deadline = time.monotonic() + loaded.timeout
            execution.interrupt_from(execution.deadline, partial(timeout_interrupt, loaded.timeout))
            if self._stopping.is_killing:  # the signal may have come between reading and writing the wish
                execution.interrupt_from(time.monotonic(), stop_interrupt)

    def _decide(self, execution: Execution, outcome: Outcome) -> None:
        if execution.decide(outcome):
            self._executions.ended(execution)
            self._settler.add(execution)
        if not self._wake.is_set():
            self._wake.set()

    def _settled(self, execution: Execution) -> None:
        if execution.outcome is not None:
            self._counts[execution.outcome.status.value] += 1
        if self._observer is not None:
            self._observer(execution)
        if not self._wake.is_set():
            self._wake.set()

    def _on_lost(self, execution: Execution) -> None:
        if execution.outcome is None and not execution.lost:
            _log.warning("claim.lost id=%s: another worker may run this job now", execution.record.id)
            execution.lost = True
