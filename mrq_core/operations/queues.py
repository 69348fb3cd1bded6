"""Queues as the command line and a dashboard list them, and pausing and resuming them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec

from mrq_core.clock import after
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import CHUNK
from mrq_core.contract.naming import (
    MAX_SECONDS,
    check_served_name,
    check_time,
    is_covered,
    is_tree,
)
from mrq_core.contract.plain import number_of
from mrq_core.contract.queries import QueueCounts
from mrq_core.contract.shared_state import Pause
from mrq_core.contract.values import check_path
from mrq_core.errors import InvalidValue, shown


class QueueList(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of all queues, by name, and the pauses of queues and trees, by name."""

    queues: tuple[QueueCounts, ...]
    pauses: Mapping[str, Pause]

    @property
    def paused(self) -> frozenset[str]:
        """The names of the paused queues and trees."""
        return frozenset(self.pauses)

    def is_paused(self, queue: str) -> bool:
        """Whether the queue, or a tree that contains it, is paused."""
        return is_covered(queue, self.paused)

    def pause_of(self, queue: str) -> Pause | None:
        """The pause of the queue, or of the first tree that contains it."""
        return _pause_of(queue, self.pauses)

    def other_paused(self) -> list[str]:
        """The paused names that no listed queue has: trees, and queues without jobs so far."""
        return sorted(self.paused - {queue.queue for queue in self.queues})


class QueueOrder(StrEnum):
    """The order of queues: by name, by a number of jobs, most first, or by the oldest due job."""

    NAME = "name"
    DUE = "due"
    WAITING = "waiting"
    RUNNING = "running"
    OLDEST = "oldest"


class QueuePage(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the queues that hold jobs. `number` is the number of queues with the wanted text, `total` that
    of all queues. `other_paused`: paused trees, and paused queues without jobs."""

    queues: tuple[QueueCounts, ...]
    number: int
    total: int
    pauses: Mapping[str, Pause]
    other_paused: tuple[str, ...]

    def paused_as(self, queue: str) -> str | None:
        """The queue if it is paused itself, else the first paused tree that contains it. None: it is not
        paused."""
        return queue if queue in self.pauses else _tree_around(queue, self.pauses)


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


def all_names(broker: Broker) -> list[str]:
    """The names of all queues, in order. One round trip for each 1,000 queues."""
    found: list[str] = []
    while names := broker.queue_names(after=found[-1] if found else "", limit=CHUNK):
        found += names
        if len(names) < CHUNK:
            break
    return found


def queue_page(
    broker: Broker,
    wanted_text: str = "",
    *,
    order: QueueOrder = QueueOrder.NAME,
    first: int = 0,
    limit: int = 100,
) -> QueuePage:
    """The queues whose names have the text, in any case, from the index `first` on.

    By name, only the counts of the page are read; other orders read the counts of all matching queues, one
    round trip for each 1,000.
    """
    names, pauses = all_names(broker), broker.rules().queues
    wanted = wanted_text.casefold()
    matching = [name for name in names if wanted in name.casefold()]
    if order is QueueOrder.NAME:
        shown = _counts_of(broker, matching[first : first + limit])
    else:
        shown = sorted(_counts_of(broker, matching), key=_KEYS[order])[first : first + limit]
    return QueuePage(
        queues=tuple(shown),
        number=len(matching),
        total=len(names),
        pauses=pauses,
        other_paused=tuple(sorted(pauses.keys() - set(names))),
    )


_KEYS: Mapping[QueueOrder, Callable[[QueueCounts], tuple[Any, str]]] = {
    QueueOrder.DUE: lambda counts: (-counts.due, counts.queue),
    QueueOrder.WAITING: lambda counts: (-counts.waiting, counts.queue),
    QueueOrder.RUNNING: lambda counts: (-counts.claimed, counts.queue),
    QueueOrder.OLDEST: lambda counts: (
        (counts.oldest_due is None, counts.oldest_due and counts.oldest_due.timestamp()),
        counts.queue,
    ),
}


def _counts_of(broker: Broker, names: Sequence[str]) -> list[QueueCounts]:
    chunks = (names[start : start + CHUNK] for start in range(0, len(names), CHUNK))
    return [counts for chunk in chunks for counts in broker.counts(chunk)]


def _pause_of(queue: str, pauses: Mapping[str, Pause]) -> Pause | None:
    names = (name for name in sorted(pauses) if is_covered(queue, (name,)))
    return next((pauses[name] for name in names), None)


def list_queues(broker: Broker) -> QueueList:
    """Lists the queues that hold jobs."""
    return QueueList(queues=tuple(all_counts(broker)), pauses=broker.rules().queues)


def waiting_in(broker: Broker, name: str) -> int:
    """The number of jobs that wait in a queue, or in the subqueues of a tree; claimed jobs do not count.

    The cost of a tree grows with the number of its subqueues.
    """
    if is_tree(name):
        return sum(counts.waiting for counts in all_counts(broker, name))
    return broker.counts([name])[0].waiting


def pause_queues(
    broker: Broker, names: Sequence[str], *, until: datetime | None = None, seconds: float | None = None
) -> datetime | None:
    """Pauses queues and trees: workers claim nothing more from them. Returns the end of the pause. Raises
    InvalidValue for a bad name, and for an end that is not in the future."""
    names = [check_served_name(name) for name in names]
    end = pause_end(broker, until, seconds)
    broker.pause(names, end)
    return end


def pause_tasks(
    broker: Broker, paths: Sequence[str], *, until: datetime | None = None, seconds: float | None = None
) -> datetime | None:
    """Pauses tasks: claims park their jobs. Otherwise as `pause_queues`."""
    for path in paths:
        check_path(path)
    end = pause_end(broker, until, seconds)
    broker.pause_tasks(paths, end)
    return end


def resume_tasks(broker: Broker, paths: Sequence[str]) -> ResumeResult:
    """Resumes tasks, and tells which of them were paused. Raises InvalidValue for a bad path."""
    for path in paths:
        check_path(path)
    before = broker.rules().tasks
    broker.resume_tasks(paths)
    return ResumeResult(
        resumed=tuple(path for path in paths if path in before),
        not_paused={path: None for path in paths if path not in before},
    )


def pause_end(broker: Broker, until: datetime | None, seconds: float | None) -> datetime | None:
    """The end of a pause by the broker's clock. None: the pause has no end."""
    if until is not None and seconds is not None:
        raise InvalidValue("a pause has `until` or `seconds`: expected one of them", path="until")
    if until is None and seconds is None:
        return None
    now = broker.now()
    if seconds is not None:
        number = number_of(seconds)
        if number is None or not 0 < number <= MAX_SECONDS:
            raise InvalidValue(
                f"seconds is {shown(seconds)}: expected a number above 0, up to {MAX_SECONDS:.0e}",
                path="seconds",
            )
        return after(now, number)
    end = check_time(until, "until")
    if end <= now:
        raise InvalidValue(
            f"until is {_utc(end)}: expected a time in the future; the broker's clock shows {_utc(now)}",
            path="until",
        )
    if (end - now).total_seconds() > MAX_SECONDS:
        raise InvalidValue(
            f"until is {_utc(end)}: expected a time within about thirty years; a pause without an end lasts "
            "until it is resumed",
            path="until",
        )
    return end


def _utc(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def resume_queues(broker: Broker, names: Sequence[str]) -> ResumeResult:
    """Resumes queues and trees, and tells which of them were paused. Raises InvalidValue for a bad name."""
    names = [check_served_name(name) for name in names]
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
