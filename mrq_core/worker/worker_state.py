"""What the parts of one worker share."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import replace

import gevent
from gevent.event import Event

from mrq_core.client.client import Client
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import Limit
from mrq_core.plugins.manager import open_broker
from mrq_core.tasks.loading import LoadedTask
from mrq_core.worker.executions import Execution, Executions
from mrq_core.worker.guarded_log import GuardedLog
from mrq_core.worker.surroundings import Surroundings

OBSERVER_PATIENCE = 5.0
"""Seconds for which the worker waits for the observers of a hook."""
_MOST_HANGING = 100

_log = GuardedLog("mrq.worker")


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
        self.wake = Event()
        self._hanging: dict[str, list[gevent.Greenlet[..., None]]] = {}
        """The greenlets of observers that are not waited for, by hook."""
        self.surroundings = Surroundings()
        self.paused: frozenset[str] = frozenset()
        """The paused queues and trees."""
        self.paused_tasks: frozenset[str] = frozenset()
        """The paths of the paused tasks."""
        self.limits: Mapping[str, Limit] = {}
        """The limit rules of shared state."""
        self.loaded: deque[LoadedTask] = deque()
        """Tasks that were loaded and whose limit rules are not published yet."""
        self.counts: Counter[str] = Counter()
        """The number of settled attempts by status."""

    def set_status(self, status: str) -> None:
        """Changes the status, and tells plugins."""
        if status != self.status:
            self.status = status
            if self.plugins.implements("mrq_worker_event"):
                self.observe("mrq_worker_event", worker=self.name, event=status)

    def observe(self, hook: str, **values: object) -> None:
        """Calls the observers of a hook, and waits up to OBSERVER_PATIENCE for them.

        They run in a separate greenlet, so that what an observer raises or leaves behind, such as a timer,
        reaches none of the worker's greenlets. While observers hang, later ones are not waited for, and above
        _MOST_HANGING calls are left out.
        """
        hanging = self._hanging.get(hook, [])
        if hanging:
            hanging = self._hanging[hook] = [greenlet for greenlet in hanging if not greenlet.dead]
        if len(hanging) >= _MOST_HANGING:
            return
        greenlet = gevent.spawn(self.plugins.observe, hook, caught=BaseException, **values)
        greenlet.join(0 if hanging else OBSERVER_PATIENCE)
        if not greenlet.dead:
            self._hanging.setdefault(hook, []).append(greenlet)
            if not hanging:
                _log.warning("plugin.hangs hook=%s: the worker waits for it no longer", hook)

    def open_broker(self, timeout: float | None = None) -> Broker:
        """Opens another broker, for a native thread. `timeout`: seconds for each call, instead of
        BROKER_TIMEOUT."""
        config = self.config if timeout is None else replace(self.config, broker_timeout=timeout)
        return open_broker(config, self.plugins)
