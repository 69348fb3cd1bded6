"""The rules of shared state in a worker: obeys pauses and limits, and publishes the limits of its tasks."""

from __future__ import annotations

from collections.abc import Mapping

from mrq_core.contract.messages import Limit
from mrq_core.contract.naming import shown_names
from mrq_core.contract.shared_state import Rules
from mrq_core.errors import ConfigError
from mrq_core.operations.limits import publish_limits
from mrq_core.tasks.limits import rules_in
from mrq_core.tasks.options import options_from
from mrq_core.worker.guards.guarded_log import GuardedLog
from mrq_core.worker.worker_state import WorkerState

_log = GuardedLog("mrq.worker")


class WorkerRules:
    """Follows the rules, and publishes the limits of the tasks in TASKS and of each task that is loaded."""

    def __init__(self, state: WorkerState) -> None:
        self._state = state
        self._broker = state.broker
        self._obeys_pauses = bool(state.config.paused_queues_refresh_interval)
        self._of_tasks: dict[str, Limit] = {}
        """The limit rules of the tasks of this worker, by name."""
        self._unpublished: dict[str, Limit] = {}
        self._stored: Mapping[str, Limit] = {}
        """The limit rules of shared state."""

    def start(self) -> None:
        """Publishes the limits in TASKS, before the first claim. Raises BrokerError."""
        for path, options in self._state.config.tasks.items():
            try:
                limits = options_from(options, where=f"TASKS[{path!r}]").limits
            except ConfigError:  # reported when a job of the task is started
                continue
            self._add(rules_in(limits or {}))
        self.publish()

    def follow(self, rules: Rules) -> None:
        """Obeys these rules from the next claim on. Publishes again the rules of tasks that a person has
        removed."""
        state = self._state
        if self._obeys_pauses and rules.paused_queues != state.paused:
            state.paused = rules.paused_queues
            _log.info("queues.paused queues=%s", shown_names(sorted(state.paused)) or "none")
        if self._obeys_pauses and rules.paused_tasks != state.paused_tasks:
            state.paused_tasks = rules.paused_tasks
            _log.info("tasks.paused tasks=%s", ",".join(sorted(state.paused_tasks)) or "none")
        self._take_loaded()
        if rules.limits != self._stored:
            self._stored = rules.limits
            _log.info("limits.changed limits=%s", ",".join(sorted(rules.limits)) or "none")
            self._add({name: limit for name, limit in self._of_tasks.items() if name not in rules.limits})
        state.limits = {**self._of_tasks, **rules.limits}
        state.wake.set()

    def publish(self) -> None:
        """Publishes the limits of tasks that were loaded since the last call. Raises BrokerError; then the
        next call publishes them."""
        self._take_loaded()
        if self._unpublished:
            publish_limits(self._broker, self._unpublished)
            self._unpublished = {}

    def _take_loaded(self) -> None:
        while self._state.loaded:
            self._add(rules_in(self._state.loaded.popleft().limits))

    def _add(self, limits: dict[str, Limit]) -> None:
        self._of_tasks.update(limits)
        self._unpublished.update(limits)
