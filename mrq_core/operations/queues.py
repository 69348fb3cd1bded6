"""Queues as the command line and a dashboard list them, and pausing and resuming them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import msgspec

from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import CHUNK, QueueCounts
from mrq_core.contract.naming import check_queue_name, is_covered, is_tree


class QueueList(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of all queues, by name, and the names of all paused queues and trees."""

    queues: tuple[QueueCounts, ...]
    paused: frozenset[str]

    def is_paused(self, queue: str) -> bool:
        """Whether the queue, or a tree that contains it, is paused."""
        return is_covered(queue, self.paused)

    def other_paused(self) -> list[str]:
        """The paused names that no listed queue has: trees, and queues without jobs so far."""
        return sorted(self.paused - {queue.queue for queue in self.queues})


class ResumeResult(msgspec.Struct, frozen=True, kw_only=True):
    """The names that were resumed. `not_paused` has the other names, each with the paused tree that still
    contains it, or None."""

    resumed: tuple[str, ...]
    not_paused: Mapping[str, str | None]


def all_counts(broker: Broker, prefix: str = "") -> Iterator[QueueCounts]:
    """The counts of all queues whose names begin with the prefix, by name. One round trip for each 1,000
    queues; grows with their number."""
    after = ""
    while names := broker.queue_names(prefix=prefix, after=after, limit=CHUNK):
        yield from broker.counts(names)
        if len(names) < CHUNK:
            return
        after = names[-1]


def list_queues(broker: Broker) -> QueueList:
    """Lists the queues that have, or had, jobs."""
    return QueueList(queues=tuple(all_counts(broker)), paused=broker.paused())


def waiting_in(broker: Broker, name: str) -> int:
    """The number of jobs that wait in a queue, or in the subqueues of a tree; claimed jobs do not count.

    The cost of a tree grows with the number of its subqueues.
    """
    if is_tree(name):
        return sum(counts.waiting for counts in all_counts(broker, name))
    return broker.counts([name])[0].waiting


def pause_queues(broker: Broker, names: Sequence[str]) -> None:
    """Pauses queues and trees: workers claim nothing more from them. Raises InvalidValue for a bad name."""
    for name in names:
        check_queue_name(name)
    broker.pause(names)


def resume_queues(broker: Broker, names: Sequence[str]) -> ResumeResult:
    """Resumes queues and trees, and tells which of them were paused. Raises InvalidValue for a bad name."""
    for name in names:
        check_queue_name(name)
    before = broker.paused()
    broker.resume(names)
    return ResumeResult(
        resumed=tuple(name for name in names if name in before),
        not_paused={name: _tree_around(name, before) for name in names if name not in before},
    )


def _tree_around(name: str, paused: Collection[str]) -> str | None:
    """The first paused tree that contains the name."""
    trees = (tree for tree in sorted(paused) if is_tree(tree) and name.startswith(tree))
    return next(trees, None)
