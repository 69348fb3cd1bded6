"""What a worker does beside its jobs: it asks for pauses and cancellations, stores logs, reports
about itself, prunes what has expired, and notices when one of its limits is reached."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

import gevent
import psutil

from mrq_core.config.settings import Config
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import Versions
from mrq_core.errors import BrokerError, CancelInterrupt, ConfigError, Interrupt
from mrq_core.operations.workers import WORKERS_NAMESPACE, WorkerReport, report_to_json
from mrq_core.worker.executions import Execution, Executions
from mrq_core.worker.reporting import ReportFile
from mrq_core.worker.settling import Settler

_FLUSH_INTERVAL = 0.5
_PRUNE_INTERVAL = 60.0
_POLL_INTERVAL = 1.0
_ASKED_KEPT = 60.0
"""Seconds for which a request to interrupt a job is kept that this worker does not hold yet."""
_REPORTS_KEPT = 3
"""A report that was not renewed for so many intervals vanishes."""

_log = logging.getLogger("mrq.worker")


class Housekeeping:
    """The small loops. `describe` makes the report; `stop` asks the worker to stop, saying why."""

    def __init__(
        self,
        config: Config,
        broker: Broker,
        executions: Executions,
        settler: Settler,
        *,
        worker: str,
        describe: Callable[[], WorkerReport],
        stop: Callable[[str], None],
        wake: Callable[[], None],
    ) -> None:
        self._config = config
        self._broker = broker
        self._executions = executions
        self._settler = settler
        self._worker = worker
        self._describe = describe
        self._stop = stop
        self._wake = wake
        self._file = ReportFile(config.report_file) if config.report_file else None
        self._versions = Versions()
        self._process = psutil.Process(os.getpid())
        self._started = time.monotonic()
        self._greenlets: list[gevent.Greenlet[..., None]] = []
        self._asked: dict[str, float] = {}
        self.paused: frozenset[str] = frozenset()

    def start(self) -> None:
        """Starts the loops, knowing what is paused. Raises BrokerError, and ConfigError for a REPORT_FILE
        that cannot be written: who watches it would take this worker for a dead one."""
        loops: list[tuple[float, Callable[[], None]]] = [
            (_FLUSH_INTERVAL, self._settler.flush_running),
            (self._config.report_interval, self.report),
            (_PRUNE_INTERVAL, self._prune),
            (self._config.paused_queues_refresh_interval or _POLL_INTERVAL, self.poll),
        ]
        if self._config.max_memory or self._config.max_time:
            loops.append((1.0, self._check_limits))
        if self._file is not None:
            loops.append((self._config.report_interval, self.write_file))
            try:
                self.write_file()
            except OSError as error:
                raise ConfigError(f"REPORT_FILE cannot be written: {error}") from error
        self.poll()  # before the first claim: nothing is taken from a queue that is paused already
        self._greenlets = [gevent.spawn(self._repeat, interval, step) for interval, step in loops]

    def stop(self) -> None:
        """Ends the loops and takes the worker's report away."""
        gevent.killall(self._greenlets, block=False)
        try:
            if self._file is not None:
                self._file.remove()
        except OSError as error:
            _log.warning("report.not_removed file=%s error=%s", self._config.report_file, error)
        try:
            self._broker.state.delete(WORKERS_NAMESPACE, [self._worker])
        except BrokerError as error:
            _log.warning("report.not_removed worker=%s error=%s", self._worker, error)

    def poll(self) -> None:
        """Learns about pauses, and about running jobs that somebody wants interrupted."""
        changes = self._broker.poll(self._worker, self._versions)
        self._versions = changes.versions
        is_heeded = bool(self._config.paused_queues_refresh_interval)
        if is_heeded and changes.paused is not None and changes.paused != self.paused:
            self.paused = changes.paused
            _log.info("queues.paused queues=%s", ",".join(sorted(self.paused)) or "none")
            self._wake()
        if changes.interrupts or self._asked:
            now = time.monotonic()
            self._asked = {job_id: at for job_id, at in self._asked.items() if now - at < _ASKED_KEPT}
            self._asked.update(dict.fromkeys(changes.interrupts, now))
            for execution in self._executions.undecided():
                self.interrupt_if_asked(execution)

    def interrupt_if_asked(self, execution: Execution) -> None:
        """Interrupts the job if somebody has asked for it. The request may be here before the job is: the
        broker knows of a claim before its worker does."""
        if self._asked.pop(execution.record.id, None) is not None:
            _log.info("job.interrupting id=%s", execution.record.id)
            execution.interrupt_from(time.monotonic(), _cancel_interrupt)

    def report(self) -> None:
        """Writes what `mrq workers` shows."""
        ttl = self._config.report_interval * _REPORTS_KEPT
        report = report_to_json(self._describe())
        self._broker.state.put(WORKERS_NAMESPACE, self._worker, report, ttl=ttl)

    def write_file(self) -> None:
        """Writes the same to REPORT_FILE. A loop of its own, which waits for no broker."""
        if self._file is not None:
            self._file.write(self._describe())

    def _repeat(self, interval: float, step: Callable[[], None]) -> None:
        failing = False
        while True:
            try:
                step()
                failing = False
            except (BrokerError, OSError) as error:
                if not failing:
                    _log.warning("housekeeping.failed step=%s error=%s", step.__name__, error)
                failing = True
            except Exception:
                _log.exception("housekeeping.broke step=%s", step.__name__)
            gevent.sleep(interval)

    def _prune(self) -> None:
        while pruned := self._broker.prune():
            _log.debug("jobs.pruned number=%d", pruned)

    def _check_limits(self) -> None:
        if self._config.max_time and time.monotonic() - self._started > self._config.max_time:
            self._stop(f"it has worked for MAX_TIME, {self._config.max_time:g} s")
        used = self._process.memory_info().rss / 1e6
        if self._config.max_memory and used > self._config.max_memory:
            self._stop(f"it uses {used:.0f} MB, more than MAX_MEMORY, {self._config.max_memory:g} MB")


def _cancel_interrupt() -> Interrupt:
    return CancelInterrupt("the job was cancelled while it ran")
