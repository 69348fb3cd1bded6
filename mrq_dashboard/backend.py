"""Runs the functions that answer requests: in a bounded number of threads, each answer within a time."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import TypeVar

import anyio
from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar

from mrq_core.client.client import Client
from mrq_core.config.settings import Config
from mrq_core.contract.broker import Broker
from mrq_core.errors import BrokerUnavailable, on_one_line
from mrq_core.operations.auditing import audit
from mrq_core.operations.bulk.bulk_actions import Bulk
from mrq_core.operations.bulk.bulk_runner import BulkRunner
from mrq_core.operations.explaining.reached_limits import ReachedLimits
from mrq_core.operations.measures.slots import SlotHistory
from mrq_core.operations.measures.task_history import TaskHistory
from mrq_core.operations.queries.search import KnownSuccesses
from mrq_core.operations.statistics import DayMeasurements
from mrq_dashboard.health import Health
from mrq_dashboard.sharing import Shared

_log = logging.getLogger("mrq.dashboard")
THREADS = 16
"""The most requests that ask the broker at the same time; others wait."""
_OF_TIMEOUT = 0.7
"""The share of DASHBOARD_TIMEOUT after which one call of the broker fails: its message says more."""

_T = TypeVar("_T")


class Backend:
    """The client of a dashboard, and the threads that use it."""

    def __init__(self, config: Config, client: Client | None = None) -> None:
        self.seconds = config.dashboard_timeout
        timeout = min(config.broker_timeout, self.seconds * _OF_TIMEOUT)
        self._impatient_config = dataclasses.replace(config, broker_timeout=timeout)
        self.client = client or Client(self._impatient_config)
        self.task_history = TaskHistory()
        self.slot_history = SlotHistory()
        self.reached = ReachedLimits()
        self.day = DayMeasurements()
        self.known_successes: KnownSuccesses = {}
        self.health = Health()
        self.shared = Shared()
        self._patient: Client | None = None
        self._config = config
        self._is_given = client is not None
        self.runner = BulkRunner(self._patient_broker, self._note_end)
        self._is_closed = False
        self._limiter: RunVar[CapacityLimiter] = RunVar("mrq_dashboard_limiter")
        """One for each event loop: it wakes no request of another."""

    async def ask(self, function: Callable[[], _T], *, longer: float = 1.0) -> _T:
        """Runs the function in a thread. Raises BrokerUnavailable if it takes longer than DASHBOARD_TIMEOUT
        times `longer`, time to wait for a free thread included; the function then ends by itself, unseen."""
        limiter = self._limiter.get(None)
        if limiter is None:
            limiter = CapacityLimiter(THREADS)
            self._limiter.set(limiter)
        seconds = self.seconds * longer
        try:
            with anyio.fail_after(seconds):
                return await to_thread.run_sync(function, abandon_on_cancel=True, limiter=limiter)
        except TimeoutError:
            raise BrokerUnavailable(
                f"the broker did not answer within {seconds:g} s: it is away, slow or overloaded"
            ) from None

    def _patient_broker(self) -> Broker:
        """The broker for bulk actions, in their thread: it waits BROKER_TIMEOUT for an answer, because a
        step on a busy server takes longer than a page may."""
        if self._is_given or not self.client.broker.is_shared:
            return self.client.broker
        self._patient = self._patient or Client(self._config, plugins=self.client.plugins)
        return self._patient.broker

    def _note_end(self, bulk: Bulk) -> None:
        """Logs and audits the end of a bulk action. A repeated call replaces the entry."""
        counts = {**bulk.changes, **({"unsure": bulk.unsure} if bulk.unsure else {})}
        action = f"bulk {bulk.change.verb} {bulk.status}"
        text = " ".join(f"{name}={number}" for name, number in counts.items())
        _log.info(
            "dashboard.did who=%s action=%s target=%s %s",
            on_one_line(bulk.who), action, on_one_line(bulk.text), text,
        )  # fmt: skip
        audit(self._patient_broker(), bulk.who, action, bulk.text or "all jobs", counts, entry_id=bulk.id)

    def begin(self) -> None:
        """Starts bulk actions that go on, and opens another client after `close`."""
        if self._is_closed:
            self.client, self._patient = Client(self._impatient_config, plugins=self.client.plugins), None
            self._is_closed = False
        self.runner.begin()

    def close(self) -> None:
        """Closes the client."""
        self._is_closed = True
        self.client.close()
        if self._patient is not None:
            self._patient.close()
