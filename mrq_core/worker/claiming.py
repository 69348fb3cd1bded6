"""The worker's loop: asks for as many jobs as there are free greenlets, and waits when nothing is due."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import gevent
from gevent.event import Event

from mrq_core.config.settings import Config
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import CHUNK, Claimed, ClaimRequest, Outcome, Settlement, Wanted
from mrq_core.contract.record import JobRecord, Status
from mrq_core.errors import BrokerError
from mrq_core.worker.executions import Executions
from mrq_core.worker.settling import Settler
from mrq_core.worker.stopping import Stopping
from mrq_core.worker.strategy import Strategy

_BACKOFF_FIRST, _BACKOFF_MOST = 0.1, 2.0
_UNSETTLED_MOST = 2000
"""While so many outcomes wait for the broker, no more jobs are claimed."""

_log = logging.getLogger("mrq.worker")


class Claiming:
    """Claims jobs and hands them to `start`, until the worker is to stop or, in burst, nothing is left.

    `paused` says which queues are paused now; `wake` is set whenever there may be something to do.
    """

    def __init__(
        self,
        config: Config,
        broker: Broker,
        strategy: Strategy,
        executions: Executions,
        settler: Settler,
        stopping: Stopping,
        *,
        worker: str,
        wake: Event,
        paused: Callable[[], frozenset[str]],
        start: Callable[[Sequence[JobRecord]], None],
        set_status: Callable[[str], None],
    ) -> None:
        self._config = config
        self._broker = broker
        self._strategy = strategy
        self._executions = executions
        self._settler = settler
        self._stopping = stopping
        self._worker = worker
        self._wake = wake
        self._paused = paused
        self._start = start
        self._set_status = set_status
        self._patience = config.lease
        """Seconds that claiming stops to make room for a suspect."""
        self._make_room_from = 0.0
        self.claimed = 0
        """How many jobs were claimed to be started."""

    def run(self) -> None:
        """The loop. A broker that is away is waited for."""
        backoff = _BACKOFF_FIRST
        while not self._stopping.is_stopping:
            self._wake.clear()  # whatever happens from here on ends the next sleep
            if self._config.max_jobs and self.claimed >= self._config.max_jobs:
                _log.info("worker.stopping name=%s: it has started MAX_JOBS jobs", self._worker)
                self._stopping.stop()
                return
            room = self._room()
            if room <= 0:
                self._set_status("full")
                self._wake.wait()
                continue
            try:
                if self._is_over_after_claiming(room):
                    return
                backoff = _BACKOFF_FIRST
            except BrokerError as error:
                _log.error("claim.failed retry_in=%.1fs error=%s", backoff, error)
                # Jitter, so that not all workers come back at the same moment.
                self._wake.wait(backoff * random.uniform(0.5, 1.0))
                backoff = min(backoff * 2, _BACKOFF_MOST)

    def _room(self) -> int:
        """How many jobs could be started now."""
        if self._settler.waiting >= _UNSETTLED_MOST or self._executions.is_suspect_running():
            return 0
        room = min(self._config.greenlets - self._executions.running, CHUNK)
        if self._config.max_jobs:
            room = min(room, self._config.max_jobs - self.claimed)
        return room

    def _is_over_after_claiming(self, room: int) -> bool:
        """One claim, and the waiting that it asks for. True when a burst is over."""
        wanted = self._strategy.wanted(room, self._paused())
        claimed = self._claim(wanted, room)
        if claimed.suspects_due and time.monotonic() >= self._make_room_from:
            self._make_room()
        elif len(claimed.records) >= room or (claimed.records and self._strategy.is_parallel):
            # There may be more; in parallel, a queue may have had more than its share.
            pass
        elif self._strategy.is_burst and not claimed.records and self._is_burst_over(claimed):
            return True
        else:
            self._wait(wanted, claimed)
        return False

    def _claim(self, wanted: tuple[Wanted, ...], room: int) -> Claimed:
        self._set_status("spawn")
        claimed = self._broker.claim(
            ClaimRequest(
                worker=self._worker,
                wanted=wanted,
                limit=room,
                lease=self._config.lease,
                idle=not len(self._executions),
                max_lost_claims=self._config.max_lost_claims,
                failed_ttl=self._config.default_job_ttl,
                cancel_ttl=self._config.default_job_cancel_ttl,
            )
        )
        for record in claimed.ended:
            _log.warning("job.ended_unrun id=%s status=%s: its claim was lost", record.id, record.status)
        if self._stopping.is_stopping:
            self._give_back(claimed.records)
        elif claimed.records:
            self.claimed += len(claimed.records)
            self._start(claimed.records)
            gevent.sleep(0)  # short jobs have ended before the next claim asks how much room there is
        return claimed

    def _give_back(self, records: Sequence[JobRecord]) -> None:
        """Returns claims whose code was not started."""
        back = Outcome(status=Status.QUEUED, delay=0.0, cancel_ttl=self._config.default_job_cancel_ttl)
        if records:
            self._broker.settle([Settlement(id=r.id, token=r.token or "", outcome=back) for r in records])
            _log.info("claims.given_back number=%d", len(records))

    def _is_burst_over(self, claimed: Claimed) -> bool:
        if len(self._executions) or claimed.suspects_due:
            return False
        return claimed.next_due is None or claimed.next_due > claimed.now

    def _make_room(self) -> None:
        """Lets everything run out, for a suspect, which runs alone.

        Not for ever, so as not to starve the others: after a lease it is given up for a lease, and
        then tried for twice as long as the last time, because a suspect must run at some time.
        """
        deadline = time.monotonic() + self._patience
        while len(self._executions) and not self._stopping.is_stopping:
            left = deadline - time.monotonic()
            if left <= 0:
                self._patience *= 2
                self._make_room_from = time.monotonic() + self._config.lease
                return
            self._wake.wait(min(left, self._config.max_latency))
            self._wake.clear()
        self._patience = self._config.lease

    def _wait(self, wanted: tuple[Wanted, ...], claimed: Claimed) -> None:
        """Blocks until there may be something due, or something else to do."""
        self._set_status("wait")
        seconds = self._config.max_latency
        if claimed.next_due is not None:
            seconds = min(seconds, max(0.0, (claimed.next_due - claimed.now).total_seconds()))
        if self._strategy.is_burst and len(self._executions):
            # The last job to end ends the burst too, and wakes this.
            self._wake.wait(seconds)
        elif not wanted or seconds < 0.001:
            self._wake.wait(seconds)
        else:
            self._wait_for_broker(wanted, seconds)

    def _wait_for_broker(self, wanted: tuple[Wanted, ...], seconds: float) -> None:
        """Returns early when the worker is woken for another reason. Raises BrokerError."""
        waiter = gevent.spawn(self._hint, wanted, seconds)
        waitables: list[Any] = [waiter, self._wake]
        gevent.wait(waitables, count=1)
        if not waiter.ready():
            waiter.kill()
        elif isinstance(waiter.value, BrokerError):
            raise waiter.value

    def _hint(self, wanted: tuple[Wanted, ...], seconds: float) -> BrokerError | None:
        """In a greenlet of its own, which returns its error: gevent would print one that it raised."""
        try:
            self._broker.wait(wanted, seconds)
        except BrokerError as error:
            return error
        return None
