"""When each schedule is due, for one scheduler. All times are Unix milliseconds of the broker's clock."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable

from mrq_core.operations.schedules import StoredSchedule
from mrq_core.scheduler.policies import due_at

TAKEOVER_MS = 5000
"""The age at which a scheduler takes over the pending fires of another, which has died or was stopped."""


class DueTimes:
    """The due times of all schedules, in memory."""

    def __init__(self) -> None:
        self._due: dict[str, int] = {}
        self._heap: list[tuple[int, float, str]] = []
        self._chosen: dict[str, int] = {}
        """`pending_at` of the fires that this scheduler has chosen last, by schedule."""

    def note_all(self, schedules: Iterable[StoredSchedule]) -> None:
        """Forgets all schedules, and remembers these."""
        self._due, self._heap = {}, []
        for stored in schedules:
            self.note(stored)

    def note(self, stored: StoredSchedule) -> None:
        """Remembers when the schedule is due."""
        if stored.pending and stored.removed_at is None:
            self.set(stored.name, self.taken_from(stored))
        elif stored.fires and stored.next_fire is not None:
            self.set(stored.name, due_at(stored.definition, stored.next_fire))
        else:
            self.forget(stored.name)

    def set(self, name: str, due: int) -> None:
        """Makes the schedule due at this time, whatever its fires are."""
        self._due[name] = due
        # Schedulers take schedules that are due at the same time in different orders, and share the work.
        heapq.heappush(self._heap, (due, random.random(), name))

    def forget(self, name: str) -> None:
        """The schedule is not due until it is noted again."""
        self._due.pop(name, None)

    def chose(self, stored: StoredSchedule) -> None:
        """This scheduler has chosen the pending fires."""
        self._chosen[stored.name] = stored.pending_at

    def taken_from(self, stored: StoredSchedule) -> int:
        """The time from which this scheduler makes the jobs of pending fires: at once if it has chosen them,
        and could not go on since."""
        is_own = self._chosen.get(stored.name) == stored.pending_at
        return stored.pending_at + (0 if is_own else TAKEOVER_MS)

    def take(self, now: int, most: int) -> list[str]:
        """The names of up to `most` schedules that are due."""
        names: dict[str, None] = {}
        while self._heap and self._heap[0][0] <= now and len(names) < most:
            due, _, name = heapq.heappop(self._heap)
            if self._due.get(name) == due:
                names[name] = None
        return list(names)

    def first(self) -> int | None:
        """The earliest due time. None: no schedule is due."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
