"""What the parts of one worker share."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import replace

from gevent.event import Event

from mrq_core.client.client import Client
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import Limit
from mrq_core.contract.naming import in_order
from mrq_core.plugins.opening import open_broker
from mrq_core.tasks.limits import rules_in
from mrq_core.tasks.loading import LoadedTask
from mrq_core.worker.executions import Execution, Executions
from mrq_core.worker.guards.surroundings import Surroundings
from mrq_core.worker.metrics import WorkerMetrics
from mrq_core.worker.observers import Observers
from mrq_core.worker.outage import Outage


class WorkerState:
    """Configuration, broker and plugins of a worker, the claims that it holds, and its status.

    `worker` is what `get_current_worker` returns. `on_settled` is called for each accepted outcome. Setting
    `wake` ends the sleep of the loop that claims. Only the hub's thread changes the attributes.
    """

    def __init__(
        self,
        client: Client,
        *,
        worker: object = None,
        on_settled: Callable[[Execution], None] | None = None,
    ) -> None:
        self.client = client
        self.config = client.config
        self.broker = client.broker
        self.plugins = client.plugins
        self.worker = worker
        self.on_settled = on_settled
        self.name = self.config.worker_name(os.getpid())
        self.status = "init"
        self.executions = Executions()
        self.dropped: deque[Execution] = deque()
        """Claims that are lost without an outcome, and whose leases are to end at once."""
        self.wake = Event()
        self.outage = Outage(on_end=self.wake.set)
        self.observers = Observers(client.plugins)
        self.surroundings = Surroundings()
        self.paused: frozenset[str] = frozenset()
        """The paused queues and trees."""
        self.paused_tasks: frozenset[str] = frozenset()
        """The paths of the paused tasks."""
        self.limits: Mapping[str, Limit] = {}
        """The limit rules of shared state, and those of loaded tasks that shared state does not have."""
        self.loaded: deque[LoadedTask] = deque()
        """Tasks that were loaded and whose limit rules are not published yet."""
        self.undescribed: deque[LoadedTask] = deque()
        """Tasks that were loaded and are not described yet."""
        self.idle_rounds = 0
        """How often a claim has found nothing to do."""
        self.counts: Counter[str] = Counter()
        """The number of settled attempts by status."""
        self.metrics = WorkerMetrics(tuple(in_order(name)[0] for name in self.config.queues))

    def note_loaded(self, loaded: LoadedTask) -> None:
        """Notes a task that was loaded, for the housekeeping to publish. Its limits hold from the next claim
        of this worker on."""
        if loaded.limits:
            self.loaded.append(loaded)
            self.limits = {**rules_in(loaded.limits), **self.limits}
        self.undescribed.append(loaded)

    def set_status(self, status: str) -> None:
        """Changes the status, and tells plugins."""
        if status != self.status:
            self.status = status
            if self.plugins.implements("mrq_worker_event"):
                self.observers.call("mrq_worker_event", worker=self.name, event=status)

    def open_broker(self, timeout: float | None = None) -> Broker:
        """Opens another broker, for a native thread. `timeout`: seconds for each call, instead of
        BROKER_TIMEOUT."""
        config = self.config if timeout is None else replace(self.config, broker_timeout=timeout)
        return open_broker(config, self.plugins)
