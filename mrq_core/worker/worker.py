"""One worker process: its parts, and its life from the start to the exit code.

`Claiming` claims jobs, `Executing` takes them through their attempts, and the `Settler` stores the outcomes.
Two native threads, the `Standby` and the `Watchdog`, go on while a job blocks the hub.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import gevent
from gevent.exceptions import InvalidSwitchError, LoopExit

from mrq_core.client.ambient import set_process_client
from mrq_core.client.client import Client
from mrq_core.config.settings import Config
from mrq_core.contract.driver import RunBlocking
from mrq_core.contract.naming import shown_names
from mrq_core.contract.plain_tracebacks import repr_of_error
from mrq_core.debug import start_io_tracing
from mrq_core.plugins.manager import Plugins
from mrq_core.plugins.opening import open_broker
from mrq_core.tasks.scheduled import schedules_of
from mrq_core.worker.claiming import Claiming
from mrq_core.worker.executing import Executing
from mrq_core.worker.executions import Execution
from mrq_core.worker.giving_up import ENDS_WITHIN, GivingUp
from mrq_core.worker.guards import blocking, finalizers
from mrq_core.worker.guards.armed import guard_process, release_process
from mrq_core.worker.guards.guarded_log import GuardedLog
from mrq_core.worker.guards.lasting import LastingGreenlet
from mrq_core.worker.guards.own_descriptors import own
from mrq_core.worker.guards.process_end import LEAVE_WITHIN, end_process_within
from mrq_core.worker.housekeeping import Housekeeping
from mrq_core.worker.hub_time import HubTime
from mrq_core.worker.interrupts import CancelRequests
from mrq_core.worker.leases import LeaseKeeper
from mrq_core.worker.native_settling import NativeSettler
from mrq_core.worker.parent_link import ParentLink
from mrq_core.worker.reporting.admin_pages import Pages
from mrq_core.worker.reporting.report import Reporter, Reports
from mrq_core.worker.reporting.requests import Requests
from mrq_core.worker.scheduling import Scheduling
from mrq_core.worker.settling import Settler
from mrq_core.worker.standby import Standby
from mrq_core.worker.stopping import ENDED_WITHIN, SETTLED_WITHIN, Stopping
from mrq_core.worker.strategy import Strategy, check_chosen_tasks
from mrq_core.worker.watchdog import Watchdog
from mrq_core.worker.worker_state import WorkerState

if TYPE_CHECKING:
    from mrq_core.worker.reporting.admin import AdminServer

_SETTLER_PATIENCE = 0.5
"""Seconds for the settler's greenlet to end: an observer or a log handler may keep it."""

_DISTURBED_MOST = 100
"""Exceptions in the main greenlet after which the worker gives up."""
_FAULTS_MOST = 20
"""Of these, those that may be faults of the worker itself: gevent raises IndexErrors after a stray switch."""

_DISTURBANCES = (LoopExit, InvalidSwitchError)
_log = GuardedLog("mrq.worker")


class Worker:
    """A worker. `run` works until it is told to stop, and returns the exit code of the process.

    Make and run it in the main thread of a process that gevent has patched: tasks wait for I/O, and brokers
    for their servers, by yielding to the hub. `on_settled` is called for each accepted outcome. `parent` is
    the parent process of `--processes`.
    """

    def __init__(
        self,
        config: Config,
        plugins: Plugins,
        *,
        on_settled: Callable[[Execution], None] | None = None,
        parent: ParentLink | None = None,
    ) -> None:
        self.config = config
        self._parent = parent
        self._tracing = start_io_tracing(config)
        run_blocking: RunBlocking = blocking.run_blocking
        if self._tracing is not None:
            run_blocking = self._tracing.blocking(run_blocking)
        self.client = Client(config, open_broker(config, plugins, run_blocking=run_blocking), plugins)
        check_chosen_tasks(config, self.client.broker)
        self._state = state = WorkerState(self.client, worker=self, on_settled=on_settled)
        self.name = state.name
        self._strategy = Strategy(config.dequeue_strategy, config.queues)
        self._stopping = Stopping(state, has_parent=parent is not None)
        self._settler = Settler(state)
        cancels = CancelRequests(state.executions)
        self._executing = Executing(state, self._settler, self._stopping, cancels, parent, self._tracing)
        self._claiming = Claiming(state, self._strategy, self._stopping, self._executing)
        profiler = self._executing.profiler
        reporter = Reporter(state, self._strategy.queues)
        reports = Reports(state, reporter)
        requests = Requests(state, self._stopping, profiler, cancels)
        self._pages = Pages(state, reporter, lambda: requests.polled_at)
        self._housekeeping = Housekeeping(state, self._settler, self._stopping, cancels, reports, requests)
        self._scheduling = Scheduling(state, schedules_of(config)) if config.scheduler else None
        self._keeper = LeaseKeeper(state)
        self._native_settler = NativeSettler(state, self._settler)
        self._standby = Standby(state, [self._keeper, self._native_settler, reports, requests, profiler])
        self._last_resort = GivingUp(state, self._executing.outcomes, self._stopping)
        self._watchdog = Watchdog(
            state.executions,
            give_up=self._give_up,
            tick=self._tick,
            is_killing=lambda: self._stopping.is_killing,
            hub_time=HubTime(Executing._execute),
        )

    @property
    def status(self) -> str:
        """One of init, wait, spawn, full, join, kill, stop."""
        return self._state.status

    def stop(self, why: str) -> None:
        """Finishes running jobs and claims nothing more. May be called in any greenlet."""
        self._stopping.stop(why)

    def run(self, *, exits_after: bool = False) -> int:
        """Works until it is stopped or, in a burst, nothing is left to do. `exits_after`: the process exits
        with the returned code, within `LEAVE_WITHIN` of the end of the work, and ignores signals until then.

        Raises BrokerError if it cannot start; later it waits for a broker that is away.
        """
        guard_process(self._tracing)
        try:
            return self._run(exits_after=exits_after)
        finally:  # last: observers, and handlers of the last line, may leave greenlets behind, and fork
            release_process(exits_after=exits_after)

    def _run(self, *, exits_after: bool) -> int:
        broker = self._state.broker
        _log.info(
            "worker.starting name=%s broker=%s at %s config=%s queues=%s greenlets=%d",
            self.name,
            broker.name,
            broker.location or "an unnamed place",
            getattr(self.config.module, "__file__", None) or "none",
            shown_names(self._strategy.queues),
            self.config.greenlets,
        )
        admin = self._admin_server()
        broker.prepare()
        set_process_client(self.client).keep_open()
        self._stopping.handle_signals()
        if self._parent is not None:
            self._parent.obey(self._stopping, self._state.executions)
        self._standby.start()
        self._watchdog.start()
        finalizers.watch.add(gevent.getcurrent())
        finalizers.watch.start()
        if admin is not None:
            admin.start()
            _log.info("worker.admin address=http://%s", admin.address)
        self._state.surroundings.keep_signals(self._stopping.signals, self._state.executions.greenlets)
        settling = LastingGreenlet(self._settler.run)
        settling.start()
        code = 1
        try:
            self._housekeeping.start()
            if self._scheduling is not None:
                self._scheduling.start()
            _log.info("worker.started name=%s", self.name)
            # Objects that are loaded by now live as long as the worker: spare the collector their traversal.
            gc.collect()
            gc.freeze()
            if self._parent is not None:
                self._parent.report_ready()
            code = self._work()
        finally:
            if exits_after:  # before code of a task, such as a log handler, is called again
                end_process_within(LEAVE_WITHIN, code, "the worker had stopped")
            if not self._close(settling, admin, exits_after=exits_after):
                code = 1
        _log.info("worker.stopped name=%s jobs=%d", self.name, self._claiming.claimed)
        if self._parent is not None and self._claiming.is_burst_over:
            self._parent.report_done()
        return code

    def _close(self, settling: LastingGreenlet, admin: AdminServer | None, *, exits_after: bool) -> bool:
        """Ends the parts of the worker, each whatever becomes of the others. False: one of them is broken."""
        scheduling = self._scheduling
        steps: list[Callable[[], None]] = [
            *([scheduling.stop] if scheduling is not None else []),
            self._housekeeping.stop,
            self._settler.stop,
            partial(settling.stop, timeout=_SETTLER_PATIENCE),
            finalizers.watch.stop,
            self._watchdog.stop,
            self._standby.stop,
            self._native_settler.close,
            self._keeper.close,
            *([admin.stop] if admin is not None else []),
            self._executing.close,
            partial(self._state.set_status, "stop"),
            self._state.broker.close,
            partial(self._stopping.restore_signals, ignores_later=exits_after),
        ]
        broken = [step for step in steps if not self._runs_through(step)]
        return not broken

    def _tick(self, now: float) -> None:
        """In the watchdog's thread."""
        self._stopping.check(now)
        if self._parent is not None:
            self._parent.tick(now)
        fault = self._stopping.task_fault
        if fault and self._stopping.is_killing and self._state.executions.undecided():
            self._give_up(None, fault)
        other_fault = finalizers.watch.fault or self._state.outage.lost
        if other_fault:
            self._give_up(None, other_fault)
        lost = own.lost()
        if lost is not None:
            self._give_up(None, f"a task has closed the file descriptor {lost}, which the worker needs")

    def _give_up(self, overdue: Execution | None, task_fault: str = "") -> None:
        """In the watchdog's thread."""
        if self._parent is not None:
            self._parent.report_end(ENDS_WITHIN)
        self._last_resort.give_up(overdue, task_fault)

    def _admin_server(self) -> AdminServer | None:
        """The server of the admin port, if there is one. Raises MrqError if the port is taken."""
        if not self.config.admin_port:
            return None
        from mrq_core.worker.reporting.admin import AdminServer  # gevent's server takes long to import

        return AdminServer(self._state, self._pages, self.config.admin_port)

    def _work(self) -> int:
        code = 0 if self._runs_through(self._claiming.run) else 1
        self._stopping.is_stopping = True
        return code if self._runs_through(self._finish) else 1

    def _runs_through(self, step: Callable[[], None]) -> bool:
        """Runs a part of the worker's life in the main greenlet; again after a task has switched to
        this greenlet, or thrown an exception into it. False: the part is broken."""
        disturbed = faults = 0
        while True:
            try:
                step()
                return True
            except BaseException as error:
                disturbed += 1
                kind = type(error)
                faults += issubclass(kind, Exception) and not issubclass(kind, _DISTURBANCES)
                if faults > _FAULTS_MOST or disturbed > _DISTURBED_MOST:
                    _log.exception("worker.broke name=%s: it finishes what runs, and stops", self.name)
                    return False
                shown = repr_of_error(error)
                _log.warning("worker.disturbed name=%s by %s: a task has caused it", self.name, shown)

    def _finish(self) -> None:
        """Waits for running jobs to end and for the broker to accept every outcome."""
        executions, wake = self._state.executions, self._state.wake
        self._state.set_status("join")
        while executions.running and not self._stopping.is_killing:
            wake.wait()
            wake.clear()
        if self._stopping.is_killing:
            self._end_running_jobs()
        self._state.outage.hurry()
        while not self._settler.drain(0.1):
            if self._stopping.is_past(SETTLED_WITHIN):
                _log.error(
                    "settle.given_up waiting=%d: these jobs have lost their claims: they will run again, or "
                    "fail if they are at_most_once",
                    executions.unsettled,
                )
                return

    def _end_running_jobs(self) -> None:
        """Waits for interrupted jobs, and abandons those that do not end."""
        executions, wake = self._state.executions, self._state.wake
        self._state.set_status("kill")
        while executions.running and not self._stopping.is_past(ENDED_WITHIN):
            wake.wait(0.1)
            wake.clear()
        self._executing.abandon()
