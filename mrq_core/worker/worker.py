"""One worker process: claims as many jobs as it has free greenlets, runs them, and settles them.

A job goes through this file from top to bottom: `_claim` takes it, `_start` gives it to a greenlet
of the pool, `_run_attempt` runs it there, and the settler tells the broker.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import gevent
import psutil
from gevent.event import Event

from mrq_core import __version__
from mrq_core.client import Client, ambient_client, set_process_client
from mrq_core.config import Config
from mrq_core.context import JobContext, current_context
from mrq_core.errors import BrokerError
from mrq_core.job import JobRecord, Outcome, Status
from mrq_core.loading import LoadedTask
from mrq_core.logs import JobLog, current_log
from mrq_core.messages import Claimed, ClaimRequest, Settlement
from mrq_core.operations.workers import RunningJob, WorkerReport
from mrq_core.plugins import Plugins, open_broker
from mrq_core.worker import blocking
from mrq_core.worker.attempts import Attempt, Attempts
from mrq_core.worker.giving_up import GivingUp
from mrq_core.worker.housekeeping import Housekeeping
from mrq_core.worker.leases import LeaseKeeper
from mrq_core.worker.native import Mailbox
from mrq_core.worker.pool import GreenletPool
from mrq_core.worker.running import Runner
from mrq_core.worker.settling import Settler
from mrq_core.worker.stopping import KILL_PATIENCE, Stopping
from mrq_core.worker.strategy import Strategy
from mrq_core.worker.watchdog import GRACE, Watchdog, timeout_interrupt

_BACKOFF_FIRST, _BACKOFF_MOST = 0.1, 5.0
_UNSETTLED_MOST = 2000
"""While so many outcomes wait for the broker, no more jobs are claimed."""

_WISHES = frozenset({Status.RETRY, Status.QUEUED, Status.ABORT, Status.INTERRUPT, Status.CANCEL})
"""Outcomes that somebody asked for: no reason for a warning."""

_log = logging.getLogger("mrq.worker")


class Worker:
    """A worker. `run` works until it is told to stop, and returns the exit code of the process.

    It must be made and run in the main thread of a process that gevent has patched, because tasks
    wait on I/O, and brokers on their servers, by giving the hub to others.
    """

    def __init__(
        self, config: Config, plugins: Plugins, *, on_settled: Callable[[Attempt], None] | None = None
    ):
        self.config = config
        self.name = config.worker_name(os.getpid())
        self.status = "init"
        self.client = Client(
            config, open_broker(config, plugins, run_blocking=blocking.run_blocking), plugins
        )
        self._on_settled = on_settled
        self._broker = self.client.broker
        self._strategy = Strategy(config.dequeue_strategy, config.queues)
        self._runner = Runner(config, plugins)
        self._attempts = Attempts()
        self._pool = GreenletPool(config.greenlets, self._run_attempt)
        self._settler = Settler(
            self._broker, plugins, self._attempts, max_log_size=config.max_log_size, on_settled=self._settled
        )
        self._wake = Event()
        self._stopping = Stopping(self._attempts, wake=self._wake.set)
        self._started_jobs = 0
        self._counts: Counter[str] = Counter()
        self._started_at = datetime.now(UTC)
        self._process = psutil.Process(os.getpid())
        self._housekeeping = Housekeeping(
            config,
            self._broker,
            self._attempts,
            self._settler,
            worker=self.name,
            describe=self.describe,
            stop=self.stop,
            wake=self._wake.set,
        )
        self._lost: Mailbox[Attempt] = Mailbox(self._on_lost)
        own_broker = lambda: open_broker(config, plugins)  # noqa: E731 - native threads open their own
        self._keeper = LeaseKeeper(
            own_broker, self._attempts, lease=config.lease, grace=GRACE, lost=self._lost
        )
        giving_up = GivingUp(
            own_broker,
            self._runner,
            self._attempts,
            max_log_size=config.max_log_size,
            is_asked_to_stop=lambda: self._stopping.is_killing,
        )
        self._watchdog = Watchdog(self._attempts, giving_up)

    # --- its life ----------------------------------------------------------------------------

    def run(self) -> int:
        """Works until it is stopped or, in burst, nothing is left to do. Raises BrokerError if it
        cannot start; once it has, a broker that is away is waited for."""
        self._broker.prepare()
        set_process_client(self.client)
        self._stopping.handle_signals()
        self._keeper.start()
        self._watchdog.start()
        self._housekeeping.start()
        settling = gevent.spawn(self._settler.run)
        _log.info(
            "worker.started name=%s broker=%s queues=%s greenlets=%d",
            self.name, self._broker.name, ",".join(self._strategy.queues), self.config.greenlets,
        )  # fmt: skip
        try:
            self._loop()
            self._finish()
        finally:
            self._housekeeping.stop()
            settling.kill()
            self._watchdog.stop()
            self._keeper.stop()
            self._lost.close()
            self._stopping.restore_signals()
            self._set_status("stop")
            self._broker.close()
        _log.info("worker.stopped name=%s jobs=%d", self.name, self._started_jobs)
        return 0

    def stop(self, why: str) -> None:
        """Finishes what runs and takes nothing new. May be called in any greenlet."""
        if not self._stopping.is_stopping:
            _log.info("worker.stopping name=%s: %s", self.name, why)
        self._stopping.stop()

    def describe(self) -> WorkerReport:
        """What `mrq workers` shows of this worker."""
        with self._process.oneshot():
            memory, cpu = self._process.memory_info().rss, self._process.cpu_times()
        running = self._attempts.undecided()
        return WorkerReport(
            name=self.name,
            host=socket.gethostname(),
            pid=os.getpid(),
            status=self.status,
            queues=self._strategy.queues,
            greenlets=self.config.greenlets,
            started_at=self._started_at,
            reported_at=datetime.now(UTC),
            jobs=dict(self._counts),
            running=tuple(
                RunningJob(
                    id=a.record.id, path=a.record.path, started_at=a.record.started_at or self._started_at
                )
                for a in running[:1000]
            ),
            unsettled=self._settler.waiting,
            memory=memory,
            cpu_time=cpu.user + cpu.system,
            version=__version__,
        )

    def _finish(self) -> None:
        """Waits for what runs and for the broker to take every outcome."""
        self._set_status("join")
        while self._attempts.running and not self._stopping.is_killing:
            self._sleep_until_woken(None)
        if self._stopping.is_killing:
            self._set_status("kill")
            deadline = time.monotonic() + KILL_PATIENCE
            while self._attempts.running and time.monotonic() < deadline:
                self._sleep_until_woken(deadline - time.monotonic())
            for attempt in self._attempts.undecided():
                _log.warning(
                    "job.abandoned id=%s: its code did not end when it was interrupted", attempt.record.id
                )
                self._decide(attempt, self._stopping.abandoned(attempt, self._runner))
        patience = KILL_PATIENCE if self._stopping.is_killing else None
        if not self._settler.drain(patience):
            _log.error("settle.given_up waiting=%d: these jobs will run again", self._settler.waiting)

    # --- claiming ----------------------------------------------------------------------------

    def _loop(self) -> None:
        backoff = _BACKOFF_FIRST
        drain_again_at = 0.0
        while not self._stopping.is_stopping:
            room = self._room()
            if self.config.max_jobs and self._started_jobs >= self.config.max_jobs:
                self.stop(f"it has started MAX_JOBS, {self.config.max_jobs}")
                break
            if room <= 0:
                self._set_status("full")
                self._sleep_until_woken(None)
                continue
            try:
                claimed = self._claim(room)
                backoff = _BACKOFF_FIRST
                if len(claimed.records) >= room:
                    continue
                if claimed.suspects_due and time.monotonic() >= drain_again_at:
                    # A suspect runs alone: make room for it, but do not starve the others for long.
                    self._let_run_out(self.config.lease)
                    drain_again_at = time.monotonic() + self.config.lease
                elif not claimed.records or not self._strategy.is_parallel:
                    if self._strategy.is_burst and not claimed.records and self._is_burst_over(claimed):
                        break
                    self._wait(claimed)
            except BrokerError as error:
                _log.error("claim.failed retry_in=%.1fs error=%s", backoff, error)
                self._sleep_until_woken(backoff)
                backoff = min(backoff * 2, _BACKOFF_MOST)

    def _room(self) -> int:
        """How many jobs could be started now."""
        if self._settler.waiting >= _UNSETTLED_MOST or self._attempts.is_alone_running():
            return 0
        room = self.config.greenlets - self._attempts.running
        if self.config.max_jobs:
            room = min(room, self.config.max_jobs - self._started_jobs)
        return room

    def _claim(self, room: int) -> Claimed:
        wanted = self._strategy.wanted(room, self._housekeeping.paused)
        if not wanted:
            return Claimed(now=datetime.now(UTC))
        self._set_status("spawn")
        claimed = self._broker.claim(
            ClaimRequest(
                worker=self.name,
                wanted=wanted,
                limit=room,
                lease=self.config.lease,
                idle=not len(self._attempts),
                max_lost_claims=self.config.max_lost_claims,
                failed_ttl=self.config.default_job_ttl,
                cancel_ttl=self.config.default_job_cancel_ttl,
            )
        )
        for record in claimed.ended:
            _log.warning("job.ended_unrun id=%s status=%s: its claim was lost", record.id, record.status)
        if self._stopping.is_stopping:
            self._give_back(claimed.records)
        elif claimed.records:
            if self.client.plugins.implements("mrq_jobs_started"):
                self.client.plugins.observe("mrq_jobs_started", records=list(claimed.records))
            for record in claimed.records:
                self._start(record)
            gevent.sleep(0)  # short jobs have ended before the next claim asks how much room there is
        return claimed

    def _give_back(self, records: Iterable[JobRecord]) -> None:
        """Returns claims whose code was not started."""
        back = Outcome(status=Status.QUEUED, delay=0.0, cancel_ttl=self.config.default_job_cancel_ttl)
        settlements = [Settlement(id=r.id, token=r.token or "", outcome=back) for r in records]
        if settlements:
            self._broker.settle(settlements)
            _log.info("claims.given_back number=%d", len(settlements))

    def _is_burst_over(self, claimed: Claimed) -> bool:
        if self._attempts or claimed.suspects_due:
            return False
        return claimed.next_due is None or claimed.next_due > claimed.now

    def _let_run_out(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while len(self._attempts) and not self._stopping.is_stopping:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            self._sleep_until_woken(min(left, self.config.max_latency))

    def _wait(self, claimed: Claimed) -> None:
        """Blocks until there may be something due, or something else to do."""
        self._set_status("wait")
        seconds = self.config.max_latency
        if claimed.next_due is not None:
            seconds = min(seconds, max(0.0, (claimed.next_due - claimed.now).total_seconds()))
        names = [w.name for w in self._strategy.wanted(1, self._housekeeping.paused)]
        if self._strategy.is_burst and self._attempts:
            # The last job to end ends the burst too.
            self._sleep_until_woken(min(seconds, 0.05))
            return
        if not names or seconds < 0.001:
            self._sleep_until_woken(seconds)
            return
        waiter = gevent.spawn(self._wait_for_broker, names, seconds)
        self._wake.clear()
        waitables: list[Any] = [waiter, self._wake]
        gevent.wait(waitables, count=1)
        if not waiter.ready():
            waiter.kill()
        elif isinstance(waiter.value, BrokerError):
            raise waiter.value

    def _wait_for_broker(self, names: list[str], seconds: float) -> BrokerError | None:
        """In a greenlet of its own, which returns its error: gevent would print one that it raised."""
        try:
            self._broker.wait(names, seconds)
        except BrokerError as error:
            return error
        return None

    def _sleep_until_woken(self, seconds: float | None) -> None:
        self._wake.clear()
        self._wake.wait(seconds)

    # --- running -----------------------------------------------------------------------------

    def _start(self, record: JobRecord) -> None:
        log = JobLog(record.id, record.claims, self.config.max_log_size)
        attempt = Attempt(JobContext(record, self.client, log, worker=self))
        self._attempts.add(attempt)
        self._started_jobs += 1
        self._pool.start(attempt)

    def _run_attempt(self, attempt: Attempt) -> None:
        """In a greenlet of the pool, in a context of its own. Never raises."""
        current_context.set(attempt.context)
        current_log.set(attempt.context.log)
        ambient_client.set(self.client)
        _log.debug(
            "job.started id=%s path=%s attempt=%d",
            attempt.record.id,
            attempt.record.path,
            attempt.record.claims,
        )
        attempt.started = time.monotonic()
        outcome = self._runner.run(attempt.context, lambda loaded: self._arm(attempt, loaded))
        if outcome.exception_type is not None:
            _log.log(
                logging.INFO if outcome.status in _WISHES else logging.WARNING,
                "job.%s id=%s path=%s error=%s",
                outcome.status, attempt.record.id, attempt.record.path, _last_line(outcome.traceback),
            )  # fmt: skip
        self._decide(attempt, outcome)

    def _arm(self, attempt: Attempt, loaded: LoadedTask) -> None:
        if loaded.timeout:
            attempt.deadline = time.monotonic() + loaded.timeout
            attempt.interrupt_from(attempt.deadline, timeout_interrupt(loaded.timeout))

    def _decide(self, attempt: Attempt, outcome: Outcome) -> None:
        if attempt.decide(outcome):
            self._attempts.ended(attempt)
            self._settler.add(attempt)
        self._wake.set()

    def _settled(self, attempt: Attempt) -> None:
        if attempt.outcome is not None:
            self._counts[str(attempt.outcome.status)] += 1
        if self._on_settled is not None:
            self._on_settled(attempt)
        self._wake.set()

    def _on_lost(self, attempt: Attempt) -> None:
        if attempt.outcome is None and not attempt.lost:
            _log.warning("claim.lost id=%s: another worker may run this job now", attempt.record.id)
            attempt.lost = True

    def _set_status(self, status: str) -> None:
        if status != self.status:
            self.status = status
            if self.client.plugins.implements("mrq_worker_event"):
                self.client.plugins.observe("mrq_worker_event", worker=self.name, event=status)


def _last_line(text: str | None) -> str:
    return (text or "").rstrip().rpartition("\n")[2]
