"""The measurements of all jobs by minute or hour, kept by a process that asks for them often.

A minute that is over does not change, so each is read once.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime

import msgspec

from mrq_core.clock import monotonic
from mrq_core.contract.broker import Broker
from mrq_core.contract.metrics import ENDED, STARTED, Metric, Resolution
from mrq_core.operations.measures.series import FAILED_ENDS, FINISHED, read_roll_ups
from mrq_core.operations.measures.task_history import Values

_SETTLED = {Resolution.MINUTE: 15.0, Resolution.HOUR: 120.0}
"""Seconds after the end of a minute or hour until all workers have recorded its metrics."""
_MOST_KEPT = 2000
"""The most minutes and hours that are kept."""
_AT_ONCE = 10
"""Minutes or hours of one read."""


class Slot(msgspec.Struct, kw_only=True):
    """The attempts of one minute or hour: how long they ran and waited, the jobs that ended and those of them
    that failed, and the ended jobs by queue. `moving` has the queues of all attempts."""

    run: Values = msgspec.field(default_factory=Values)
    wait: Values = msgspec.field(default_factory=Values)
    ended: int = 0
    failed: int = 0
    queues: dict[str, int] = {}
    moving: set[str] = set()

    def add(self, metric: Metric) -> None:
        """Adds a roll-up of `jobs.started` or `jobs.ended`."""
        tags = dict(metric.tags)
        queue, status = tags.get("queue", ""), tags.get("status", "")
        self.moving.add(queue)
        if metric.name == STARTED:
            self.wait.add(metric.count, metric.total, metric.buckets)
            return
        self.run.add(metric.count, metric.total, metric.buckets)
        if status in FINISHED:
            self.ended += metric.count
            self.queues[queue] = self.queues.get(queue, 0) + metric.count
            if status in FAILED_ENDS:
                self.failed += metric.count


class SlotHistory:
    """The minutes and hours that were read so far. May be used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._slots: dict[tuple[Resolution, datetime], Slot] = {}

    def read(
        self,
        broker: Broker,
        times: Sequence[datetime],
        resolution: Resolution,
        now: datetime,
        seconds: float | None = None,
    ) -> list[Slot]:
        """The minutes or hours that begin at these times, which follow each other.

        Reads those that may still change, and those that are not known yet, the latest first: at least 10,
        and others for about `seconds`; the rest is empty, and known to later calls. None: all. Reads what all
        queues and tasks have recorded in the time.
        """
        begin = monotonic()
        settled = _SETTLED[resolution] + resolution.seconds
        with self._lock:
            missing = [at for at in reversed(times) if (resolution, at) not in self._slots]
            fresh: dict[datetime, Slot] = {}
            for start in range(0, len(missing), _AT_ONCE):
                if start and seconds is not None and monotonic() - begin > seconds:
                    break
                fresh.update(_read(broker, missing[start : start + _AT_ONCE][::-1], resolution))
            for at, slot in fresh.items():
                if (now - at).total_seconds() > settled:
                    self._slots[resolution, at] = slot
            while len(self._slots) > _MOST_KEPT:
                del self._slots[min(self._slots, key=lambda key: key[1])]
            return [fresh.get(at) or self._slots.get((resolution, at)) or Slot() for at in times]


def _read(broker: Broker, times: Sequence[datetime], resolution: Resolution) -> dict[datetime, Slot]:
    slots = {at: Slot() for at in times}
    for metric in read_roll_ups(broker, [STARTED, ENDED], times, resolution):
        slot = slots.get(metric.at)
        if slot is not None:
            slot.add(metric)
    return slots
