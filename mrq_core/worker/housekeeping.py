"""The periodic work of a worker beside its jobs: it polls for rules, cancellations and requests, stores
logs, reports about itself, records metrics, publishes its tasks, prunes expired jobs, and checks its
limits."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import gevent

from mrq_core.clock import monotonic
from mrq_core.contract.shared_state import Versions
from mrq_core.errors import BrokerError, BrokerUnavailable, MrqError, shown_error
from mrq_core.worker import metrics
from mrq_core.worker.clock_watch import ClockWatch
from mrq_core.worker.guards.descriptors import DescriptorReserve
from mrq_core.worker.guards.guarded_log import GuardedLog
from mrq_core.worker.guards.lasting import LastingGreenlet
from mrq_core.worker.interrupts import CancelRequests
from mrq_core.worker.outage import LEAST, MOST
from mrq_core.worker.reporting.process_memory import own_size
from mrq_core.worker.reporting.publishing import INTERVAL as PUBLISH_INTERVAL
from mrq_core.worker.reporting.publishing import TaskPublisher
from mrq_core.worker.reporting.report import Reports
from mrq_core.worker.reporting.requests import Requests
from mrq_core.worker.rules import WorkerRules
from mrq_core.worker.settling import Settler
from mrq_core.worker.stopping import Stopping
from mrq_core.worker.worker_state import WorkerState

_FLUSH_INTERVAL = 0.5
_PRUNE_INTERVAL = 60.0
_POLL_INTERVAL = 1.0

_TRYING = frozenset({"poll", "report"})
"""Steps that always call the broker, and tell that it is away or back."""
_INDEPENDENT = frozenset({"flush_running"})
"""Steps that go on during an outage, and try again by themselves after a failure: a broker that refuses
claims may take what they write, as the store of a pair does."""
_FOLLOWING = frozenset({"_measure", "_prune", "_watch_clocks", "publish"})
"""Steps that wait for the end of an outage."""
_LOCAL = frozenset({"_tidy", "_check_limits", "write_file"})
"""Steps that do not call the broker, and go on during an outage."""
_LATER = frozenset({"_check_limits"})
"""Steps that come after their interval: a worker runs jobs before it stops for a limit."""

_log = GuardedLog("mrq.worker")


class Housekeeping:
    """The small loops, each in a greenlet."""

    def __init__(
        self,
        state: WorkerState,
        settler: Settler,
        stopping: Stopping,
        cancels: CancelRequests,
        reports: Reports,
        requests: Requests,
    ) -> None:
        self._state = state
        self._config = state.config
        self._broker = state.broker
        self._settler = settler
        self._stopping = stopping
        self._cancels = cancels
        self._reports = reports
        self._requests = requests
        self._rules = WorkerRules(state)
        self._publisher = TaskPublisher(state)
        self._reserve = DescriptorReserve()
        self._clocks = ClockWatch(state.broker.now)
        self._versions = Versions()
        self._started = monotonic()
        self._is_over = False
        self._greenlets: list[LastingGreenlet] = []

    def start(self) -> None:
        """Polls and reports once, and starts the loops.

        Raises BrokerError, also if the broker can be read and not written, ConfigError if REPORT_FILE cannot
        be written, and MrqError if the process already uses more than MAX_MEMORY.
        """
        loops: list[tuple[float, Callable[[], None]]] = [
            (_FLUSH_INTERVAL, self._settler.flush_running),
            (_FLUSH_INTERVAL, self._tidy),
            (_POLL_INTERVAL, self._watch_clocks),
            (self._config.report_interval, self.report),
            (metrics.INTERVAL, self._measure),
            (PUBLISH_INTERVAL, self._publisher.publish),
            (_PRUNE_INTERVAL, self._prune),
            (self._config.paused_queues_refresh_interval or _POLL_INTERVAL, self.poll),
        ]
        if self._config.max_memory or self._config.max_time:
            loops.append((1.0, self._check_limits))
        self._reports.start()
        if self._reports.has_file:
            loops.append((self._config.report_interval, self.write_file))
            self._reports.start_file()
        self._rules.start()
        self._clocks.start()
        self.poll()  # before the first claim, which must obey the rules
        self._check_memory()
        self.report()
        self._requests.start()
        self._greenlets = [LastingGreenlet(self._repeat, interval, step) for interval, step in loops]
        for greenlet in self._greenlets:
            greenlet.start()

    def stop(self) -> None:
        """Ends the loops, writes the last report, records the last metrics, and publishes the last tasks and
        their limits."""
        for greenlet in self._greenlets:  # all, before the first of them can go on
            greenlet.may_end()
        self._is_over = True
        self._reserve.release()
        self._requests.stop()
        for greenlet in self._greenlets:
            greenlet.stop(timeout=0)
        try:
            self._reports.remove_file()
        except OSError as error:
            _log.warning("report.not_removed file=%s error=%s", self._config.report_file, error)
        try:
            self._requests.finish(self._broker)
            self._reports.say_goodbye(self._broker)
        except BrokerError as error:
            _log.warning("report.not_written worker=%s error=%s", self._state.name, error)
            return  # the broker is away: the last metrics are lost, and the stop waits no longer
        except Exception as error:  # such as no free file descriptor: the rest of the stop must follow
            _log.warning("report.not_written worker=%s error=%s", self._state.name, shown_error(error))
        last: list[tuple[str, Callable[[], None]]] = [
            ("limits.not_published", self._rules.publish),
            ("metrics.lost", partial(self._state.metrics.record, self._broker)),
            ("tasks.not_published", self._publisher.publish),
        ]
        for failure, step in last:
            try:
                step()
            except Exception as error:  # of a driver: the rest of the stop must follow
                _log.warning("%s worker=%s error=%s", failure, self._state.name, shown_error(error))

    def poll(self) -> None:
        """Asks the broker for pauses, limit rules, cancelled jobs to interrupt, and requests to answer."""
        changes = self._broker.poll(self._state.name, self._versions)
        self._versions = changes.versions
        if changes.rules is not None:
            self._rules.follow(changes.rules)
        self._cancels.add(changes.interrupts)
        self._requests.polled(changes.versions, changes.requests)
        self._rules.publish()

    def report(self) -> None:
        """Writes the report that `mrq workers` shows."""
        self._reports.store(self._broker)

    def write_file(self) -> None:
        """Writes the report to REPORT_FILE. A separate loop, which waits for no broker."""
        self._reports.write_file()

    def _repeat(self, interval: float, step: Callable[[], None]) -> None:
        """Calls the step again and again. Steps that call the broker wait while it is away."""
        failures = 0
        name, outage = step.__name__, self._state.outage
        if name in _LATER:
            gevent.sleep(interval)
        while not self._is_over:
            if name in _FOLLOWING:
                outage.wait_for_end()
            elif name in _INDEPENDENT:
                if failures:
                    outage.wait_for_end(random.uniform(LEAST, MOST))
            elif name not in _LOCAL and not outage.may_call(name):
                outage.wait()
                continue
            try:
                step()
                failures = 0
                if name not in _LOCAL and name not in _INDEPENDENT:
                    outage.worked(name)
            except (BrokerError, OSError) as error:
                failures += 1
                if isinstance(error, BrokerUnavailable) and name in _TRYING:
                    outage.failed(name, error)
                    continue
                # Another step may meet the outage a moment later, and logs it.
                if name in _INDEPENDENT and outage.is_on:
                    failures = 1
                elif failures == (2 if isinstance(error, BrokerUnavailable) else 1):
                    _log.warning("housekeeping.failed step=%s error=%s", name, error)
            except Exception:
                _log.exception("housekeeping.broke step=%s", name)
            gevent.sleep(interval)

    def _measure(self) -> None:
        self._state.metrics.sample(self._broker)
        self._state.metrics.record(self._broker)

    def _tidy(self) -> None:
        surroundings = self._state.surroundings
        surroundings.restore(is_alone=not self._state.executions.running)
        if surroundings.lasting_change:
            self._stopping.stop_within_grace(f"a task has {surroundings.lasting_change} for good")
        if self._reserve.is_exhausted():
            self._stopping.stop_within_grace(
                "it may open no more files and connections: tasks have left theirs open"
            )
        if self._stopping.is_stopping:
            self._reserve.release()

    def _watch_clocks(self) -> None:
        self._clocks.look()

    def _prune(self) -> None:
        while pruned := self._broker.prune():
            _log.debug("jobs.pruned number=%d", pruned)

    def _check_memory(self) -> None:
        used = own_size() / 1e6
        if self._config.max_memory and used > self._config.max_memory:
            raise MrqError(
                f"this worker uses {used:.0f} MB before its first job, and MAX_MEMORY is "
                f"{self._config.max_memory:g} MB: set MAX_MEMORY well above {used:.0f}, or to 0 for no limit"
            )

    def _check_limits(self) -> None:
        if self._config.max_time and monotonic() - self._started > self._config.max_time:
            self._stopping.stop(f"it has worked for MAX_TIME, {self._config.max_time:g} s")
        used = own_size() / 1e6
        if self._config.max_memory and used > self._config.max_memory:
            self._stopping.stop(
                f"it uses {used:.0f} MB, more than MAX_MEMORY, {self._config.max_memory:g} MB"
            )
