"""The waiting parameters of a raw queue: push, peek, remove, size, histogram."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from mrq_core.contract.messages import RawClaim, RawItem
from mrq_core.contract.naming import RawKind


class RawItems:
    """The waiting parameters of one raw queue, in the order of arrival."""

    def __init__(self, kind: RawKind) -> None:
        self.kind = kind
        self.visits: dict[str, RawClaim] = {}
        """By parameter: the latest claim that left the parameter in its set (pushback)."""
        self._waiting: list[RawItem] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def push(self, item: RawItem, now: datetime) -> bool:
        """Adds the parameter. False: the set already holds the parameter, and its score is updated."""
        score = item.score
        if not self._has_scores:
            score = None
        elif score is None:
            score = now.timestamp() if self.kind is RawKind.TIMED_SET else 0.0
        item = RawItem(param=item.param, score=score)
        index = self._index(item.param)
        if self.kind is RawKind.LIST or index is None:
            self._waiting.append(item)
            return True
        self._waiting[index] = item
        return False

    def remove(self, param: str) -> bool:
        """Removes the first waiting item with the parameter."""
        index = self._index(param)
        if index is None:
            return False
        del self._waiting[index]
        self.visits.pop(param, None)
        return True

    def in_order(self) -> list[RawItem]:
        """The waiting items in claim order."""
        if self._has_scores:
            return sorted(self._waiting, key=lambda item: item.score or 0.0)
        return list(self._waiting)

    def due(self, now: datetime) -> Sequence[RawItem]:
        """The items that can be claimed, in claim order. In a timed set, only those whose time has come."""
        items = self.in_order()
        if self.kind is RawKind.TIMED_SET:
            return [item for item in items if (item.score or 0.0) <= now.timestamp()]
        return items

    def take(self, item: RawItem) -> None:
        """Removes an item that is claimed. A later item with the same parameter stays."""
        self._waiting.remove(item)

    def due_time(self, param: str) -> float | None:
        """The score of the parameter, which is a Unix time in a timed set. None: it does not wait."""
        index = self._index(param)
        return None if index is None else self._waiting[index].score or 0.0

    def push_back(self, param: str, due_at: datetime) -> None:
        """Makes a waiting parameter of a timed set due at this time."""
        index = self._index(param)
        if index is not None:
            self._waiting[index] = RawItem(param=param, score=due_at.timestamp())

    def histogram(self, start: float, stop: float, buckets: int) -> list[int]:
        """The number of scores in each of `buckets` equal intervals; the end of an interval belongs to the
        next."""
        numbers = [0] * buckets
        for item in self._waiting:
            if item.score is not None and start <= item.score < stop:
                bucket = int((item.score - start) / (stop - start) * buckets)
                numbers[min(bucket, buckets - 1)] += 1
        return numbers

    @property
    def _has_scores(self) -> bool:
        return self.kind in (RawKind.SORTED_SET, RawKind.TIMED_SET)

    def _index(self, param: str) -> int | None:
        return next((index for index, item in enumerate(self._waiting) if item.param == param), None)
