"""The jobs that a worker holds: from the claim until the broker has taken their outcome."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from mrq_core.contract.messages import ClaimRef, LogLine, Outcome, Settlement
from mrq_core.errors import Interrupt
from mrq_core.running.context import JobContext


class Execution:
    """One claimed job in this worker.

    Its outcome is decided once, by whoever comes first: its runner, the worker that must leave,
    or the watchdog. `due` is from when on it is to be interrupted, by the monotonic clock, and with
    what; the watchdog sees to it.
    """

    __slots__ = (
        "__weakref__", "_decided", "claim", "context", "deadline", "due", "greenlet", "lost",
        "record", "started", "stored_progress",
    )  # fmt: skip

    def __init__(self, context: JobContext) -> None:
        self.context = context
        self.record = context.record
        self.claim = ClaimRef(id=self.record.id, token=self.record.token or "")
        self.greenlet: Any = None
        self.started = time.monotonic()
        self.deadline: float | None = None
        self.due: tuple[float, Callable[[], Interrupt]] | None = None
        self.lost = False
        self.stored_progress: float | None = None
        self._decided: dict[str, Outcome] = {}

    @property
    def outcome(self) -> Outcome | None:
        """How the attempt ended, once that is decided."""
        return self._decided.get("outcome")

    def decide(self, outcome: Outcome) -> bool:
        """Sets the outcome, unless it is decided already. One step of the interpreter, in any thread."""
        return self._decided.setdefault("outcome", outcome) is outcome

    def interrupt_from(self, moment: float, interrupt: Callable[[], Interrupt]) -> None:
        """Asks for an interrupt at that monotonic time; an earlier wish stands. It is made when it is needed,
        for most jobs end before."""
        due = self.due
        if due is None or moment < due[0]:
            self.due = (moment, interrupt)

    def interrupt_at(self, now: float) -> Interrupt | None:
        """The interrupt that is due by now, if one is."""
        due = self.due
        return due[1]() if due is not None and due[0] <= now else None

    def settlement(self) -> Settlement:
        """What to tell the broker. The outcome must be decided."""
        outcome = self.outcome
        assert outcome is not None
        return Settlement(id=self.claim.id, token=self.claim.token, outcome=outcome)


class Executions:
    """What a worker holds, by claim: jobs that were claimed together may have the same token.

    Native threads look at snapshots; only the hub's thread changes it.
    """

    def __init__(self) -> None:
        self._held: dict[ClaimRef, Execution] = {}
        self.running = 0
        """How many of them run code."""
        self._suspects = 0

    def __len__(self) -> int:
        return len(self._held)

    def add(self, execution: Execution) -> None:
        self._held[execution.claim] = execution
        self.running += 1
        self._suspects += execution.record.alone

    def ended(self, execution: Execution) -> None:
        """Its code is over; it is held until the broker has its outcome."""
        self.running -= 1
        self._suspects -= execution.record.alone

    def remove(self, executions: Iterable[Execution]) -> None:
        for execution in executions:
            self._held.pop(execution.claim, None)

    def snapshot(self) -> list[Execution]:
        """All that are held, copied in one step of the interpreter."""
        return list(self._held.values())

    def undecided(self) -> list[Execution]:
        """Those whose outcome is still open."""
        return [execution for execution in self.snapshot() if execution.outcome is None]

    def is_suspect_running(self) -> bool:
        """Whether a suspect runs here: then nothing may be claimed beside it."""
        return self._suspects > 0


def take_logs(executions: Iterable[Execution]) -> list[LogLine]:
    """The lines that these jobs have logged and that are not stored yet."""
    return [line for execution in executions for line in execution.context.log.take()]
