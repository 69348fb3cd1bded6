"""Tasks that workers have loaded, as they describe themselves in shared state.

A description stays for 30 days after a worker has last loaded the task, or worked with it.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from mrq_core.clock import after
from mrq_core.contract.broker import Broker
from mrq_core.contract.codec import JsonValue
from mrq_core.contract.shared_state import StateItem
from mrq_core.tasks.describing import TaskDescription

TASKS_NAMESPACE = "tasks"
TTL = 30 * 86_400.0
"""Seconds for which a description is kept."""
_RENEWED = TTL / 2
"""Seconds before the end of a description in which a worker writes it again."""


def publish_task(broker: Broker, description: TaskDescription) -> bool:
    """Publishes the description of a task. False: shared state has the same for some time to come. Of
    several workers whose code differs, the last wins."""
    value: JsonValue = msgspec.json.decode(msgspec.json.encode(description))  # the stored form
    item = broker.state.get(TASKS_NAMESPACE, description.path)
    if item is not None and item.value == value and not _ends_soon(broker, item):
        return False
    broker.state.put(TASKS_NAMESPACE, description.path, value, ttl=TTL)
    return True


def published_tasks(broker: Broker) -> dict[str, TaskDescription]:
    """The published tasks by path, without those that this version cannot read. Grows with their number, and
    with their size, which is at most 8 KB each."""
    return {found.path: found for found in _read(broker.state.list(TASKS_NAMESPACE))}


def published_task(broker: Broker, path: str) -> TaskDescription | None:
    """The published task with this path. None: no worker of the last 30 days has loaded it."""
    item = broker.state.get(TASKS_NAMESPACE, path)
    return next(iter(_read([item])), None) if item is not None else None


def searchable_names(description: TaskDescription | None) -> frozenset[str]:
    """The names of the search keys of a task."""
    names = description.options.get("searchable") if description is not None else None
    return frozenset(map(str, names)) if isinstance(names, list) else frozenset()


def _ends_soon(broker: Broker, item: StateItem) -> bool:
    return item.expires_at is None or item.expires_at < after(broker.now(), _RENEWED)


def _read(items: Iterable[StateItem]) -> Iterable[TaskDescription]:
    for item in items:
        try:
            yield msgspec.convert(item.value, TaskDescription)
        except msgspec.ValidationError:
            continue
