"""The sizes of the parts of a search or a count that ends within its time."""

from __future__ import annotations

from mrq_core.clock import monotonic

MAX_SECONDS = 0.25
"""The time of a search, and of a count."""
FIRST, LEAST, MOST = 2_000, 200, 50_000
"""The numbers of index entries in a part: of the first, the smallest and the largest part."""
SHARE = 10
"""The least number of parts in the time: the last part may take longer than those before it."""


class Pace:
    """The number of index entries to read next, from the speed of the last part and the time left.

    The time begins with the object, and the first part with `begin_part`, or with the object too.
    """

    def __init__(self, first: int | None = None) -> None:
        self.size = FIRST if first is None else min(first, FIRST)
        self._part_began = monotonic()
        self._deadline = self._part_began + MAX_SECONDS

    def begin_part(self) -> None:
        """Begins the first part after other work of the same call."""
        self._part_began = monotonic()

    def goes_on(self) -> bool:
        """Ends a part. False: the time is over."""
        now = monotonic()
        left = self._deadline - now
        took = max(now - self._part_began, 1e-6)
        time_of_next = min(left, MAX_SECONDS / SHARE)
        self.size = max(LEAST, min(2 * self.size, MOST, int(self.size * time_of_next / took)))
        self._part_began = now
        return left > 0
