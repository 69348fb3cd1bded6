"""Ends attempts that have run too long, were cancelled, or must make way for a stopping worker.

A native thread looks at all attempts ten times a second. For one that is due it goes through
three steps:

1. It asks the hub to raise the interrupt in the job's greenlet: enough for a job that waits.
2. If the hub does not get to it, a job is keeping the CPU: SIGALRM interrupts the main thread, and
   its handler raises the interrupt if the greenlet it lands in belongs to the job. Both steps
   are repeated, because a task may swallow what is raised in it.
3. After a grace the worker is given up: the overdue attempt is settled as what it is, all others
   as interrupted, and the process exits. No job is lost by that; they are claimed again.

Only the task's own code is ever interrupted: see `JobContext.accept`.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import FrameType

from mrq_core.context import current_context
from mrq_core.errors import Interrupt, TimeoutInterrupt
from mrq_core.worker.attempts import Attempt, Attempts
from mrq_core.worker.native import Mailbox, NativeLoop, thread_id

TICK = 0.1
GRACE = 5.0
"""Seconds between the time an attempt is due to end and the time the worker is given up for it."""
_HUB_TIME = 0.2
"""Seconds that the hub is given before the signal is tried."""
_REPEAT = 1.0


class Watchdog:
    """The thread, the mailbox through which it reaches the hub, and the signal handler.

    `give_up(attempt)` is called in the native thread for an attempt that nothing else has ended;
    it does not return.
    """

    def __init__(self, attempts: Attempts, give_up: Callable[[Attempt], None]) -> None:
        self._attempts = attempts
        self._give_up = give_up
        self._asked: dict[Attempt, float] = {}
        self._reached: set[Attempt] = set()
        self._mailbox: Mailbox[Attempt] = Mailbox(self._raise_in_greenlet)
        self._main_thread = 0
        self._loop = NativeLoop(self._look, first_pause=TICK, finish=lambda: None)

    def start(self) -> None:
        """Starts the thread. Must be called in the main thread, where signals arrive."""
        self._main_thread = thread_id()
        signal.signal(signal.SIGALRM, self._on_alarm)
        self._loop.start()

    def stop(self) -> None:
        """Ends the thread soon. The process no longer reacts to SIGALRM."""
        self._loop.stop()
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        self._mailbox.close()

    def _look(self) -> float:
        now = time.monotonic()
        for attempt in self._attempts.undecided():
            if attempt.interrupt_at is not None and now >= attempt.interrupt_at:
                self._push(attempt, now, now - attempt.interrupt_at)
        for attempt in [a for a in self._asked if a.outcome is not None]:
            self._asked.pop(attempt, None)
            self._reached.discard(attempt)
        return TICK

    def _push(self, attempt: Attempt, now: float, overdue: float) -> None:
        asked = self._asked.get(attempt)
        if overdue > GRACE:
            self._give_up(attempt)
        elif asked is None or (attempt in self._reached and now - asked > _REPEAT):
            self._asked[attempt] = now
            self._reached.discard(attempt)
            self._mailbox.send(attempt)
        elif attempt not in self._reached and now - asked > _HUB_TIME:
            signal.pthread_kill(self._main_thread, signal.SIGALRM)

    def _raise_in_greenlet(self, attempt: Attempt) -> None:
        """In the hub: throws the interrupt into the job's greenlet, where it waits."""
        if attempt.outcome is not None or attempt.interrupt is None or attempt.greenlet is None:
            return
        if attempt.context.accept(attempt.interrupt):
            self._reached.add(attempt)
            attempt.greenlet.throw(attempt.interrupt)

    def _on_alarm(self, signum: int, frame: FrameType | None) -> None:
        """In the main thread, between two instructions of whatever greenlet keeps the CPU."""
        context = current_context.get()
        if context is None:
            return
        now = time.monotonic()
        for attempt in self._attempts.undecided():
            if attempt.context is context:
                due = attempt.interrupt_at is not None and now >= attempt.interrupt_at
                if due and attempt.interrupt is not None and context.accept(attempt.interrupt):
                    self._reached.add(attempt)
                    raise attempt.interrupt
                return


def timeout_interrupt(seconds: float) -> Interrupt:
    """The interrupt of a job that ran longer than that."""
    return TimeoutInterrupt(f"the job ran longer than its timeout of {seconds:g} s")
