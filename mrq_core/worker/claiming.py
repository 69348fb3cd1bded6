"""The worker's loop: claims as many jobs as there are free greenlets, and waits when nothing is due."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import gevent

from mrq_core.clock import monotonic
from mrq_core.contract.messages import CHUNK, Claimed, ClaimRef, ClaimRequest, Outcome, Settlement, Wanted
from mrq_core.contract.record import JobRecord, Status
from mrq_core.errors import BrokerError, BrokerUnavailable
from mrq_core.worker.executing import Executing
from mrq_core.worker.guards.guarded_log import GuardedLog
from mrq_core.worker.stopping import Stopping
from mrq_core.worker.strategy import Strategy
from mrq_core.worker.worker_state import WorkerState

_BACKOFF_FIRST, _BACKOFF_MOST = 0.1, 2.0
_MOMENT = 0.25
"""Seconds. A job that kills its process does it within a moment, more often than not."""
_UNSETTLED_MOST = 2000
"""With this many outcomes that wait for the broker, the worker claims nothing more."""

_log = GuardedLog("mrq.worker")


class Claiming:
    """Claims jobs and starts them, until the worker stops or, in a burst, nothing is left."""

    def __init__(
        self, state: WorkerState, strategy: Strategy, stopping: Stopping, executing: Executing
    ) -> None:
        self._state = state
        self._config = state.config
        self._broker = state.broker
        self._executions = state.executions
        self._wake = state.wake
        self._outage = state.outage
        self._strategy = strategy
        self._stopping = stopping
        self._executing = executing
        self._denied = frozenset(state.config.deny_tasks)
        self._allowed = frozenset(state.config.allow_tasks)
        self._quarter = -(-self._config.greenlets // 4)
        self.claimed = 0
        """The number of jobs that were claimed to be started."""
        self.is_burst_over = False
        """Whether `run` has returned because nothing is left."""

    def run(self) -> None:
        """The loop. While the broker is away, it waits for the end of the outage."""
        backoff = _BACKOFF_FIRST
        while not self._stopping.is_stopping:
            self._wake.clear()  # an event after this line ends the next sleep
            if self._config.max_jobs and self.claimed >= self._config.max_jobs:
                self._stopping.stop("it has started MAX_JOBS jobs")
                return
            room = self._room()
            if room <= 0:
                self._state.set_status("full")
                self._wake.wait()
                continue
            if not self._outage.may_call("claim"):
                self._wake.wait(self._outage.pause)
                continue
            try:
                if self._is_over_after_claiming(room):
                    self.is_burst_over = True
                    return
                backoff = _BACKOFF_FIRST
            except BrokerUnavailable as error:
                self._outage.failed("claim", error)
            except BrokerError as error:
                _log.error("claim.failed retry_in=%.1fs error=%s", backoff, error)
                self._wake.wait(backoff * random.uniform(0.5, 1.0))
                backoff = min(backoff * 2, _BACKOFF_MOST)

    def _room(self) -> int:
        """The number of jobs that can be started now."""
        if self._executions.unsettled >= _UNSETTLED_MOST:
            return 0
        room = min(self._config.greenlets - self._executions.running, CHUNK)
        if self._config.max_jobs:
            room = min(room, self._config.max_jobs - self.claimed)
        return room

    def _is_over_after_claiming(self, room: int) -> bool:
        """Claims once, and waits if nothing more is due. True: the burst is over."""
        wanted = self._strategy.wanted(room, self._state.paused)
        claimed = self._claim(wanted, room)
        if len(claimed.records) >= room or (claimed.records and self._strategy.is_parallel):
            # More may be due; in parallel, a queue may have had more than its share.
            pass
        elif self._strategy.is_burst and not claimed.records and self._is_burst_over(claimed):
            return True
        else:
            self._wait(wanted, claimed)
        return False

    def _claim(self, wanted: tuple[Wanted, ...], room: int) -> Claimed:
        self._state.set_status("spawn")
        asked_at = monotonic()
        claimed = self._broker.claim(
            ClaimRequest(
                worker=self._state.name,
                wanted=wanted,
                limit=room,
                lease=self._config.lease,
                lost_limit=self._lost_limit(),
                failed_ttl=self._config.default_job_ttl,
                cancel_ttl=self._config.default_job_cancel_ttl,
                limits=self._state.limits,
                paused_tasks=self._state.paused_tasks,
                denied_tasks=self._denied,
                allowed_tasks=self._allowed,
            )
        )
        if self._outage.steps:
            self._outage.worked("claim")
        self._state.metrics.lost(claimed.ended)
        for record in claimed.ended:
            _log.warning("job.ended_unrun id=%s status=%s: its claim was lost", record.id, record.status)
        if self._stopping.is_stopping:
            self._give_back(claimed.records)
        elif claimed.records:
            records = self._held(claimed.records, asked_at)
            self.claimed += len(records)
            self._executing.start(records)
            gevent.sleep(0)  # short jobs end before the next claim counts the free greenlets
        return claimed

    def _held(self, records: Sequence[JobRecord], asked_at: float) -> Sequence[JobRecord]:
        """The jobs whose claims are held for a while. While a job keeps the hub, the answer of a claim waits
        here, and no thread renews its leases: they may be over by now, and the jobs with another worker, or
        about to be claimed by this one again."""
        while records and monotonic() - asked_at > self._config.lease / 2:
            asked_at = monotonic()
            kept = self._broker.renew(
                [ClaimRef(id=record.id, token=record.token or "") for record in records], self._config.lease
            )
            for record, is_kept in zip(records, kept, strict=True):
                if not is_kept:
                    _log.warning(
                        "claim.lost id=%s: another worker has claimed the job before its code started here",
                        record.id,
                    )
            records = [record for record, is_kept in zip(records, kept, strict=True) if is_kept]
        return records

    def _give_back(self, records: Sequence[JobRecord]) -> None:
        """Returns claims whose code was not started."""
        back = Outcome(status=Status.QUEUED, delay=0.0, cancel_ttl=self._config.default_job_cancel_ttl)
        if records:
            self._broker.settle([Settlement(id=r.id, token=r.token or "", outcome=back) for r in records])
            _log.info("claims.given_back number=%d", len(records))

    def _is_burst_over(self, claimed: Claimed) -> bool:
        if len(self._executions):
            return False
        return claimed.is_denied or claimed.next_due is None or claimed.next_due > claimed.now

    def _lost_limit(self) -> int:
        """The number of suspects to claim: at most a quarter of the greenlets start suspects in one moment,
        so that a job that kills its worker does not meet all its neighbours again."""
        return max(0, self._quarter - self._executions.lost_since(monotonic() - _MOMENT))

    def _wait(self, wanted: tuple[Wanted, ...], claimed: Claimed) -> None:
        """Blocks until a job may be due, or the worker is woken."""
        self._state.set_status("wait")
        self._state.idle_rounds += not claimed.records
        seconds = self._config.max_latency
        if claimed.next_due is not None:
            seconds = min(seconds, max(0.0, (claimed.next_due - claimed.now).total_seconds()))
        if self._lost_limit() < self._quarter:  # further suspects may be claimed after a moment
            seconds = min(seconds, _MOMENT)
        if claimed.is_denied:  # due jobs of other workers would end each wait for the broker at once
            self._wake.wait(self._config.max_latency)
        elif not wanted or seconds < 0.001:
            self._wake.wait(seconds)
        else:
            self._wait_for_broker(wanted, seconds)

    def _wait_for_broker(self, wanted: tuple[Wanted, ...], seconds: float) -> None:
        """Waits for a hint of the broker, or until the worker is woken. Raises BrokerError."""
        waiter = gevent.spawn(self._hint, wanted, seconds)
        waitables: list[Any] = [waiter, self._wake]
        gevent.wait(waitables, count=1)
        if not waiter.ready():
            waiter.kill()
        elif isinstance(waiter.value, BrokerError):
            raise waiter.value

    def _hint(self, wanted: tuple[Wanted, ...], seconds: float) -> BrokerError | None:
        """Runs in another greenlet and returns its error: gevent prints errors that a greenlet raises."""
        try:
            self._broker.wait(wanted, seconds)
        except BrokerError as error:
            return error
        except OSError as error:  # such as no free descriptor
            return BrokerUnavailable(f"waiting for jobs failed: {error}")
        return None
