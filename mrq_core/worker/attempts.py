"""The attempts that a worker holds: from the claim until the broker has taken their outcome."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from mrq_core.context import JobContext
from mrq_core.errors import Interrupt
from mrq_core.job import Outcome
from mrq_core.messages import ClaimRef, LogLine, Settlement


class Attempt:
    """One claimed job in this worker.

    Its outcome is decided once, by whoever comes first: its runner, the worker that must leave,
    or the watchdog. `interrupt_at` is the monotonic time from which the watchdog interrupts it.
    """

    __slots__ = (
        "__weakref__", "_decided", "claim", "context", "deadline", "greenlet", "interrupt", "interrupt_at",
        "lost", "record", "started",
    )  # fmt: skip

    def __init__(self, context: JobContext) -> None:
        self.context = context
        self.record = context.record
        self.claim = ClaimRef(id=self.record.id, token=self.record.token or "")
        self.greenlet: Any = None
        self.started = time.monotonic()
        self.deadline: float | None = None
        self.interrupt_at: float | None = None
        self.interrupt: Interrupt | None = None
        self.lost = False
        self._decided: dict[str, Outcome] = {}

    @property
    def outcome(self) -> Outcome | None:
        """How the attempt ended, once that is decided."""
        return self._decided.get("outcome")

    def decide(self, outcome: Outcome) -> bool:
        """Sets the outcome, unless it is decided already. One step of the interpreter, in any thread."""
        return self._decided.setdefault("outcome", outcome) is outcome

    def interrupt_from(self, moment: float, interrupt: Interrupt) -> None:
        """Asks the watchdog to interrupt this attempt at that monotonic time; an earlier wish stands."""
        if self.interrupt_at is None or moment < self.interrupt_at:
            self.interrupt = interrupt
            self.interrupt_at = moment

    def settlement(self) -> Settlement:
        """What to tell the broker. The outcome must be decided."""
        outcome = self.outcome
        assert outcome is not None
        return Settlement(id=self.claim.id, token=self.claim.token, outcome=outcome)


class Attempts:
    """The attempts of a worker by token. Native threads look at snapshots; only the hub's thread
    changes it."""

    def __init__(self) -> None:
        self._held: dict[str, Attempt] = {}
        self.running = 0
        """How many of them run code."""
        self._suspects = 0

    def __len__(self) -> int:
        return len(self._held)

    def add(self, attempt: Attempt) -> None:
        self._held[attempt.claim.token] = attempt
        self.running += 1
        self._suspects += attempt.record.alone

    def ended(self, attempt: Attempt) -> None:
        """Its code is over; it is held until the broker has its outcome."""
        self.running -= 1
        self._suspects -= attempt.record.alone

    def remove(self, attempts: Iterable[Attempt]) -> None:
        for attempt in attempts:
            self._held.pop(attempt.claim.token, None)

    def snapshot(self) -> list[Attempt]:
        """All held attempts, copied in one step of the interpreter."""
        return list(self._held.values())

    def undecided(self) -> list[Attempt]:
        """Those whose outcome is still open."""
        return [attempt for attempt in self.snapshot() if attempt.outcome is None]

    def by_ids(self, ids: Iterable[str]) -> list[Attempt]:
        """The undecided attempts of these jobs."""
        wanted = set(ids)
        return [attempt for attempt in self.undecided() if attempt.record.id in wanted]

    def is_alone_running(self) -> bool:
        """Whether a suspect runs here: then nothing may be claimed beside it."""
        return self._suspects > 0


def take_logs(attempts: Iterable[Attempt]) -> list[LogLine]:
    """The lines that these attempts have logged and that are not stored yet."""
    return [line for attempt in attempts for line in attempt.context.log.take()]
