"""Raw queues as a dashboard shows them: their kind, the next parameters, and when timed ones become due."""

from __future__ import annotations

import msgspec

from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import RawItem
from mrq_core.contract.naming import RawKind, check_raw_queue_name
from mrq_core.contract.raw import RawQueue

BUCKETS = 60
"""The intervals of a histogram."""
_PEEKED = 10
_SPANS = (3600.0, 6 * 3600.0, 86_400.0, 7 * 86_400.0, 30 * 86_400.0)
"""Seconds that a histogram may cover."""


class Future(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of a timed set by the time at which they become due: `numbers` has those of equal
    intervals within `seconds` from now, `overdue` is the number of due ones, `later` of those behind."""

    seconds: float
    numbers: tuple[int, ...]
    overdue: int
    later: int


class RawQueueView(msgspec.Struct, frozen=True, kw_only=True):
    """A raw queue. `items`: the parameters that are claimed next. `future`: of a timed set."""

    name: str
    kind: RawKind
    size: int
    items: tuple[RawItem, ...]
    future: Future | None


def raw_size(broker: Broker, name: str) -> int:
    """The number of waiting parameters of a raw queue. One round trip."""
    return broker.raw(name).size()


def raw_queue_view(broker: Broker, name: str) -> RawQueueView:
    """Describes a raw queue. Raises InvalidValue for another name. The cost grows with the logarithm of the
    number of parameters."""
    name, kind = check_raw_queue_name(name)
    queue = broker.raw(name)
    size = queue.size()
    is_timed = kind is RawKind.TIMED_SET
    return RawQueueView(
        name=name,
        kind=kind,
        size=size,
        items=tuple(queue.peek(_PEEKED)),
        future=_future(queue, size, broker.now().timestamp()) if is_timed else None,
    )


def _future(queue: RawQueue, size: int, now: float) -> Future:
    """Covers the shortest of the spans that contains at least 90 % of the parameters that are not due yet."""
    [overdue] = queue.histogram(0.0, now, 1)
    waiting = max(0, size - overdue)
    numbers: list[int] = []
    seconds = 0.0
    for seconds in _SPANS:
        numbers = queue.histogram(now, now + seconds, BUCKETS)
        if sum(numbers) >= 0.9 * waiting:
            break
    later = max(0, waiting - sum(numbers))
    return Future(seconds=seconds, numbers=tuple(numbers), overdue=overdue, later=later)
