"""Publishes descriptions of the tasks that a worker has loaded, for dashboards that do not have the code."""

from __future__ import annotations

from mrq_core import __version__
from mrq_core.clock import monotonic
from mrq_core.errors import shown_error
from mrq_core.operations.task_descriptions import publish_task
from mrq_core.tasks.describing import TaskDescription, describe
from mrq_core.tasks.loading import LoadedTask
from mrq_core.worker.guards.guarded_log import GuardedLog
from mrq_core.worker.worker_state import WorkerState

INTERVAL = 2.0
"""Seconds between two checks for tasks that were loaded."""
_RENEWAL = 86_400.0
"""Seconds after which a worker publishes its tasks again, so that they do not expire."""
MOST = 10_000
"""The most tasks that one worker publishes."""

_log = GuardedLog("mrq.worker")


class TaskPublisher:
    """Describes each task once after it was loaded. Publishes what shared state does not have yet."""

    def __init__(self, state: WorkerState) -> None:
        self._state = state
        self._described: dict[str, TaskDescription] = {}
        self._unpublished: list[str] = []
        self._renewed_at = monotonic()

    def publish(self) -> None:
        """Publishes tasks that were loaded since the last call, and once a day all. Raises BrokerError; then
        the next call publishes the rest."""
        while self._state.undescribed:
            self._add(self._state.undescribed.popleft())
        now = monotonic()
        if now - self._renewed_at > _RENEWAL:
            self._renewed_at, self._unpublished = now, list(self._described)
        while self._unpublished:
            publish_task(self._state.broker, self._described[self._unpublished[-1]])
            self._unpublished.pop()

    def _add(self, loaded: LoadedTask) -> None:
        if len(self._described) >= MOST:
            return
        try:
            description = describe(loaded, version=__version__)
        except BaseException as error:  # code of a type of the task
            _log.warning("task.not_described path=%s error=%s", loaded.path, shown_error(error))
            return
        self._described[loaded.path] = description
        self._unpublished.append(loaded.path)
