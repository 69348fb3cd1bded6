"""Interrupts jobs that are overdue or cancelled, or whose worker must stop.

A native thread checks all jobs ten times a second. For a job with a due interrupt it takes three steps:

1. It asks the hub to raise the interrupt in the job's greenlet: enough for a job that waits.
2. If the hub does not respond, a job keeps the processor: SIGALRM interrupts the main thread, and the
   handler raises the interrupt if the current greenlet is the job's. Both steps are repeated, because a
   task or a function in C may swallow the interrupt, or the task may be shielded for a while.
3. After a grace period the worker is given up (`giving_up.py`): the overdue job is settled by its interrupt,
   all others as interrupted, and the process exits. No job is lost; they are claimed again.

Time in which other code keeps the hub counts neither for the limits of a job nor for its grace
(`hub_time.py`).

A job in a separate process is interrupted by a message to that process, which does the first two steps
itself; after the grace period the process is killed (`solo/solo_jobs.py`).

Only the code of the task and of plugins around it is ever interrupted: see `JobContext.accept`.
"""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable, Collection, Sequence
from types import FrameType
from typing import Any

import gevent
from greenlet import getcurrent

from mrq_core.clock import monotonic
from mrq_core.errors import Interrupt, JobInterrupt
from mrq_core.running.context import current_context
from mrq_core.worker.executions import Execution, Executions
from mrq_core.worker.guards.blocked_calls import BlockedCalls
from mrq_core.worker.guards.guarded_log import GuardedLog
from mrq_core.worker.guards.native import Mailbox, NativeLoop, thread_id
from mrq_core.worker.guards.own_descriptors import own
from mrq_core.worker.guards.owners import mark_of
from mrq_core.worker.guards.shared_code import is_shared, may_hold_a_lock
from mrq_core.worker.guards.shared_signals import are_held_back, call_held_back
from mrq_core.worker.hub_time import HubTime

TICK = 0.1
GRACE = 5.0
"""Seconds from the first try to interrupt a job until the worker is given up for it."""
_GRACE_WHEN_STOPPING = 1.7
"""The same for a worker that was told to interrupt its jobs: the outcomes must be stored before the process
ends, `LEAVE_WITHIN` after the interrupt."""
_OUTSIDE_MOST = 10.0
"""Seconds. While a line of the worker about a job waits for a log handler, the job cannot be interrupted. So
long this counts as no time of the job."""
_HUB_TIME = 0.2
"""Seconds for the hub to respond before the signal is sent."""
_REPEAT = 1.0
_SOON_LEAST, _SOON_MOST = 0.001, 0.003
"""Seconds until the timer of the kernel sends the signal, at random."""

_log = GuardedLog("mrq.worker")


class _Tries:
    """The tries to interrupt one job, with monotonic times."""

    def __init__(self, first: float) -> None:
        self.first = first
        """The first try; later by the time in which other code has kept the hub."""
        self.seen = first
        """When it was examined last."""
        self.outside = 0.0
        """Seconds for which the code of the worker has run in place of the job's."""
        self.latest: float | None = None
        """The latest request to the hub."""
        self.has_reached = False
        """Whether the interrupt was raised in the job's greenlet since then."""
        self.has_signalled = False
        self.has_raised = False
        """Whether the handler of the signal has raised the interrupt."""


class Watchdog:
    """The thread, the mailbox through which it reaches the hub, and the signal handler.

    `give_up` ends the worker for a job that does not end; None: for other code that keeps the hub. `tick` is
    called ten times a second with the monotonic time, and `is_killing` says whether all jobs are interrupted
    because the worker stops. `hub_time`: None in a process of a single job.
    """

    def __init__(
        self,
        executions: Executions,
        *,
        give_up: Callable[[Execution | None], None],
        tick: Callable[[float], None],
        is_killing: Callable[[], bool],
        hub_time: HubTime | None = None,
    ) -> None:
        self._executions = executions
        self._give_up = give_up
        self._tick = tick
        self._is_killing = is_killing
        self._hub_time = hub_time
        self._tries: dict[Execution, _Tries] = {}
        self._mailbox: Mailbox[Execution] = Mailbox(self._raise_in_greenlet)
        self._unblocked: Mailbox[None] = Mailbox(_tell_unblocked)
        self._blocked = BlockedCalls()
        self._main_thread = 0
        self._timer: tuple[float, float] | None = None
        """The timer of a task that was replaced: its monotonic time, and its interval."""
        self._random = random.Random()
        self._loop = NativeLoop(self._check, first_pause=TICK, finish=lambda: None)

    def start(self) -> None:
        """Starts the thread. Must be called in the main thread, where signals arrive."""
        self._main_thread = thread_id()
        signal.signal(signal.SIGALRM, self._on_alarm)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        self._loop.start()

    def stop(self) -> None:
        """Ends the thread soon. The process no longer reacts to SIGALRM."""
        self._loop.stop()
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        self._mailbox.close()
        self._unblocked.close()
        if self._hub_time is not None:
            self._hub_time.close()

    def _check(self) -> float:
        # Nothing may release the GIL before the interrupts: code in C would take it again for a while, and
        # the job that keeps the processor could not be told any more.
        now = monotonic()
        self._give_timer_back(now)
        undecided = self._executions.undecided()
        kept_waiting = self._examine_hub(now, undecided)
        for execution in undecided:
            interrupt = execution.interrupt_at(now)
            if interrupt is not None and execution not in kept_waiting:
                self._push(execution, interrupt, now)
        for execution in undecided:
            if execution.process is not None:
                execution.process.examine(now)
        for execution in [tried for tried in self._tries if tried.outcome is not None]:
            del self._tries[execution]
        self._unblock()
        if are_held_back():
            signal.pthread_kill(self._main_thread, signal.SIGALRM)
        self._tick(now)
        return TICK

    def _unblock(self) -> None:
        """Ends calls that wait in the system because a task has made descriptors of the worker blocking. A
        signal makes such a call try again, now with the error that its caller expects."""
        threads = self._blocked.unblock()
        if own.unblock():
            threads.add(self._main_thread)
        for thread in threads:
            signal.pthread_kill(thread, signal.SIGALRM)
        if threads:
            self._unblocked.send(None)

    def _examine_hub(self, now: float, undecided: Sequence[Execution]) -> Collection[Execution]:
        """The jobs that cannot be interrupted because other code keeps the hub: prolongs their grace. No job
        while the worker stops: it ends in time whatever keeps the hub."""
        hub_time = self._hub_time
        if hub_time is None:
            return ()
        kept_waiting = hub_time.examine(now, self._main_thread, undecided)
        if self._is_killing():
            return ()
        if hub_time.wants_to_know:
            signal.pthread_kill(self._main_thread, signal.SIGALRM)
        if hub_time.is_over:
            hub_time.charge()
            self._give_up(None)
        for execution in self._tries.keys() & kept_waiting.keys():
            self._tries[execution].first += kept_waiting[execution]
        return kept_waiting

    def _push(self, execution: Execution, interrupt: Interrupt, now: float) -> None:
        if execution.process is not None:
            execution.process.interrupt(interrupt, now)
            return
        running = None if self._hub_time is None else self._hub_time.running
        tries = self._tries.get(execution)
        if tries is None:
            tries = self._tries[execution] = _Tries(now)
        passed, tries.seen = now - tries.seen, now
        is_stop = isinstance(interrupt, JobInterrupt) and self._is_killing()  # not a lost claim
        if not (is_stop or execution.context.in_code) and tries.outside < _OUTSIDE_MOST:
            tries.outside += passed
            tries.first += passed
        is_over = now - tries.first > (_GRACE_WHEN_STOPPING if is_stop else GRACE)
        # Where code in C holds the GIL, one look may come seconds after the other.
        if is_over and (is_stop or tries.has_reached or tries.has_signalled):
            # While the worker stops, all jobs are over at once: the one that keeps the hub is the reason.
            self._give_up(running if is_stop and running is not None else execution)
            return
        waits = None if tries.latest is None else now - tries.latest
        is_stuck = waits is not None and waits > _HUB_TIME and not tries.has_reached
        if waits is None or waits > _REPEAT:
            tries.latest, tries.has_reached = now, False
            self._mailbox.send(execution)
        if running is execution or is_stuck:
            tries.has_signalled = True
            if tries.has_raised:
                self._signal_at_random(now)
            else:
                signal.pthread_kill(self._main_thread, signal.SIGALRM)

    def _signal_at_random(self, now: float) -> None:
        """Sends the signal while the main thread runs.

        Some functions in C drop what a handler raises, such as `int` while it makes the text of its error. A
        loop that calls one gives the GIL to this thread in one place only, so that it would always meet a
        signal of this thread in that function.
        """
        soon = self._random.uniform(_SOON_LEAST, _SOON_MOST)
        left, interval = signal.setitimer(signal.ITIMER_REAL, soon)
        if left and self._timer is None:
            self._timer = now + left, interval

    def _give_timer_back(self, now: float) -> None:
        if self._timer is not None:
            (at, interval), self._timer = self._timer, None
            signal.setitimer(signal.ITIMER_REAL, max(at - now, _SOON_LEAST), interval)

    def _raise_in_greenlet(self, execution: Execution) -> None:
        """In the hub: throws the interrupt into the waiting greenlet of the job."""
        interrupt = execution.interrupt_at(monotonic())
        if execution.outcome is not None or interrupt is None or execution.greenlet is None:
            return
        if execution.context.accept(interrupt, id(execution.greenlet)):
            self._note_reached(execution)
            gevent.Greenlet.throw(execution.greenlet, interrupt)  # the class may be another one

    def _on_alarm(self, signum: int, frame: FrameType | None) -> None:
        """In the main thread, between two instructions of the greenlet that keeps the processor."""
        if may_hold_a_lock(frame):
            return  # the watchdog will signal again
        execution = self._current()
        hub_time = self._hub_time
        if execution is None:
            # The greenlet may be one of a library that serves other jobs, too. It is interrupted if it was
            # found to keep the hub.
            execution = self._origin()
            if hub_time is not None and execution is not hub_time.running:
                if hub_time.wants_to_know and frame is not None:
                    hub_time.tell(frame, execution)
                call_held_back(frame)
                return
        if hub_time is not None and hub_time.wants_to_know and frame is not None:
            hub_time.tell(frame, execution)
        keeps_hub = hub_time is None or hub_time.running is execution
        if execution is not None and (keeps_hub or not is_shared(frame)):  # else the hub raises it soon
            interrupt = execution.interrupt_at(monotonic())
            if interrupt is not None and execution.context.accept(interrupt, threading.get_ident()):
                self._note_reached(execution)
                if (tries := self._tries.get(execution)) is not None:
                    tries.has_raised = True
                raise interrupt
        call_held_back(frame)

    def _note_reached(self, execution: Execution) -> None:
        tries = self._tries.get(execution)
        if tries is not None:
            tries.has_reached = True

    def _current(self) -> Execution | None:
        """The job whose code runs now: by its greenlet, because the code may have entered another context, or
        by a greenlet of a library that returns to it; or by the context in a greenlet that the job has
        started."""
        undecided = self._executions.undecided()
        here: Any = getcurrent()
        while here is not None:
            for execution in undecided:
                if execution.greenlet is here:
                    return execution
            here = here.parent
        context = current_context.get()
        return next((one for one in undecided if one.context is context), None)

    def _origin(self) -> Execution | None:
        """The job from whose greenlet the greenlet or the thread comes that runs."""
        mark = mark_of(getcurrent())
        if mark is None:
            return None
        return next((one for one in self._executions.undecided() if mark_of(one.greenlet) is mark), None)


def _tell_unblocked(_: None) -> None:
    _log.warning("descriptor.unblocked: a task had made connections or pipes of the worker blocking")
