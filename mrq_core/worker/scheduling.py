"""The scheduler inside a worker: a greenlet with the worker's broker."""

from __future__ import annotations

from collections.abc import Sequence

import gevent

from mrq_core.errors import BrokerError
from mrq_core.scheduler.definitions import Definition
from mrq_core.scheduler.firing import Scheduler
from mrq_core.worker.guards.guarded_log import GuardedLog
from mrq_core.worker.guards.lasting import LastingGreenlet
from mrq_core.worker.worker_state import WorkerState

_PATIENCE = 0.5
"""Seconds for the greenlet to end."""

_log = GuardedLog("mrq.worker")


class Scheduling:
    """Fires schedules beside the jobs. A job that blocks the hub delays its fires; other schedulers do not
    wait for it."""

    def __init__(self, state: WorkerState, definitions: Sequence[Definition]) -> None:
        self._outage = state.outage
        self._scheduler = Scheduler(state.client, definitions, wait=self._wait)
        self._greenlet = LastingGreenlet(self._scheduler.run)

    def _wait(self, seconds: float) -> None:
        gevent.sleep(seconds)
        self._outage.wait_for_end()

    def start(self) -> None:
        """Syncs the definitions and starts the greenlet. Raises BrokerError."""
        self._scheduler.start()
        self._greenlet.start()

    def stop(self) -> None:
        """Ends the greenlet."""
        self._scheduler.stop()
        self._greenlet.stop(timeout=_PATIENCE)
        try:
            self._scheduler.close()
        except BrokerError as error:
            _log.warning("scheduler.report_not_removed error=%s", error)
