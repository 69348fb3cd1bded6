"""Trees of subqueues: the entries of a tree, and the rotation among its subqueues."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from mrq_core.contract.messages import Wanted
from mrq_core.contract.naming import is_covered, is_in, is_tree
from mrq_core.contract.record import JobRecord, Status
from mrq_core.testing.memory.data import MemoryData

MAX_SUBQUEUES = 32
"""The number of subqueues that one call resolves a tree to."""


def is_wanted(queue: str, wanted: Wanted) -> bool:
    """Whether the queue is the wanted queue or belongs to the wanted tree, and is not excluded."""
    return is_in(queue, wanted.name) and not is_covered(queue, wanted.exclude)


def entries(data: MemoryData, wanted: Wanted) -> Iterator[JobRecord]:
    """All entries of the wanted queue or tree, due or not, claimed or not. The stored objects: do not
    change them."""
    queues = data.entries if is_tree(wanted.name) else (wanted.name,)
    for queue in queues:
        if is_wanted(queue, wanted):
            yield from data.entries.get(queue, {}).values()


def is_due(record: JobRecord, now: datetime) -> bool:
    """Whether the due time of the entry has come. A parked job has no due time."""
    return record.due_at is not None and record.due_at <= now


def due_by_queue(data: MemoryData, wanted: Wanted, now: datetime) -> list[list[JobRecord]]:
    """The due unclaimed jobs of the queue, or of each subqueue that the rotation reaches in this call.

    In each: larger priority first, then earlier due time, then smaller id.
    """
    due: dict[str, list[JobRecord]] = {}
    for record in entries(data, wanted):
        if is_due(record, now) and record.status is not Status.STARTED:
            due.setdefault(record.queue, []).append(record)
    last = data.rotation.get(wanted.name, "")
    names = sorted(due, key=lambda name: (name <= last, name))[:MAX_SUBQUEUES]
    for name in names:
        due[name].sort(key=lambda record: (record.due_at, record.id), reverse=wanted.reverse)
        due[name].sort(key=lambda record: -record.priority)
    return [due[name] for name in names]
