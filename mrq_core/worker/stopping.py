"""Stops a worker, gently or at once.

| request | what it does |
|---|---|
| first SIGINT, MAX_JOBS and the like, `mrq workers drain` | Running jobs finish. |
| SIGTERM, SIGHUP, `mrq workers stop` | Running jobs have STOP_GRACE seconds, and are then interrupted. |
| SIGINT after one of these, the death of the parent | Running jobs are interrupted at once. |
| `mrq workers stop --now` | The same. |

A worker with a parent gets the parent's commands instead of signals from a terminal: SIGINT only drains it.
After each, the worker claims nothing more. The process ends within `LEAVE_WITHIN` after an interrupt of the
jobs.
"""

from __future__ import annotations

import signal

from mrq_core.clock import monotonic
from mrq_core.running.logs import reopen_log_file
from mrq_core.worker.guards.guarded_log import GuardedLog
from mrq_core.worker.guards.native import Mailbox
from mrq_core.worker.guards.process_end import LEAVE_WITHIN, end_process_within
from mrq_core.worker.guards.signals import STOP_SIGNALS, SignalReader
from mrq_core.worker.interrupts import stop_interrupt
from mrq_core.worker.worker_state import WorkerState

ENDED_WITHIN, SETTLED_WITHIN = 1.5, 2.4
"""Seconds from the interrupt for jobs to end, and for the broker to accept their outcomes."""

_log = GuardedLog("mrq.worker")


class Stopping:
    """The requests to stop. `is_stopping`: claim nothing more; `is_killing`: also interrupt running jobs.

    Signals arrive in a native thread; the hub, that thread and the watchdog's set the flags.
    """

    def __init__(self, state: WorkerState, *, has_parent: bool = False) -> None:
        self._has_parent = has_parent
        self.is_stopping = False
        self.is_killing = False
        self._is_leaving = False
        self._state = state
        self._grace = state.config.stop_grace
        self._grace_ends: float | None = None
        self._interrupted_at: float | None = None
        self.task_fault = ""
        """What a task has done for which the worker stops. Jobs that do not end within STOP_GRACE then lose
        their claims, and are not interrupted: the job that does it each time comes to run solo."""
        self._mailbox: Mailbox[str] = Mailbox(self._announce)
        self._reader = SignalReader(self._receive)

    @property
    def signals(self) -> tuple[signal.Signals, ...]:
        """SIGINT, SIGTERM and SIGHUP, and SIGUSR1 if there is a LOG_FILE."""
        return (*STOP_SIGNALS, signal.SIGUSR1) if self._state.config.log_file else STOP_SIGNALS

    def handle_signals(self) -> None:
        """Takes over `signals`."""
        self._reader.start(self.signals)

    def restore_signals(self, *, ignores_later: bool = False) -> None:
        """Restores the earlier handlers, or ignores later signals because the process exits."""
        self._reader.stop(ignores_later=ignores_later)
        self._mailbox.close()

    def stop(self, why: str) -> None:
        """Lets running jobs finish and claims nothing more, as after a first SIGINT."""
        if not self.is_stopping:
            _log.info("worker.stopping name=%s: %s", self._state.name, why)
        self.is_stopping = True
        self._state.wake.set()

    def ask(self, *, is_drain: bool, by: str = "a request") -> None:
        """Stops for an operator or the parent: as a first SIGINT to drain, and otherwise as a SIGTERM. May be
        called in any thread."""
        if not is_drain:
            self._start_grace(monotonic(), f"the worker was told to stop by {by}")
        self.is_stopping = True
        self._mailbox.send(f"worker.stopping on {by}: {self._plan()}")

    def interrupt(self, why: str) -> None:
        """Interrupts running jobs at once. May be called in any thread."""
        self._interrupt(monotonic())
        self.is_stopping = True
        self._mailbox.send(f"worker.stopping on {why}: {self._plan()}")

    def plan(self, *, is_drain: bool, is_now: bool = False) -> str:
        """What `ask`, or with `is_now` `interrupt`, will do, as a sentence."""
        if is_now:
            return "the worker claims nothing more, and interrupts its running jobs now"
        if is_drain:
            return "the worker claims nothing more, finishes its running jobs, and ends"
        return f"the worker claims nothing more, and interrupts its running jobs after {self._grace:g} s"

    def stop_within_grace(self, why: str) -> None:
        """Stops as after SIGTERM, because of what a task has done: jobs that run on after STOP_GRACE lose
        their claims, see `task_fault`. Has no effect after the first call."""
        if self._grace_ends is None:
            self.task_fault = why
            self._start_grace(monotonic(), why)
            self.stop(why)

    def check(self, now: float) -> None:
        """Interrupts running jobs if the grace after SIGTERM is over. The watchdog calls this often."""
        if self.is_killing:  # again: the watchdog may have postponed a limit at the same moment
            for execution in self._state.executions.undecided():
                execution.interrupt_from(now, stop_interrupt)
        elif self.is_stopping and not self._is_leaving and self._is_claiming_idly():
            self._is_leaving = True
            end_process_within(LEAVE_WITHIN, 0, "the worker was told to stop, and held no job")
        elif self._grace_ends is not None and now >= self._grace_ends:
            self._interrupt(now)
            self._mailbox.send(f"worker.interrupting name={self._state.name}: STOP_GRACE is over")

    def _is_claiming_idly(self) -> bool:
        """Whether the worker holds no job, and a claim is under way, which a broker may keep for long."""
        return self._state.status == "spawn" and not len(self._state.executions)

    def is_past(self, seconds: float) -> bool:
        """Whether running jobs were interrupted these seconds ago, or earlier."""
        return self._interrupted_at is not None and monotonic() > self._interrupted_at + seconds

    def _receive(self, signum: int) -> None:
        """In the thread that reads signals."""
        if signum == signal.SIGUSR1:
            self._mailbox.send(_reopen_log_file())
            return
        now = monotonic()
        name = signal.Signals(signum).name
        if signum == signal.SIGINT:
            if self.is_stopping and not self._has_parent:
                self._interrupt(now)
        else:
            self._start_grace(now, f"the worker was told to stop by {name}")
        self.is_stopping = True
        self._mailbox.send(f"worker.stopping on {name}: {self._plan()}")

    def _unstored(self) -> str:
        """A sentence on the jobs whose outcomes no broker has accepted. Empty: there are none."""
        number = self._state.executions.unsettled
        if not number:
            return ""
        return (
            f"outcomes that are not stored: {number}; their jobs run again, or fail if they are at_most_once"
        )

    def _start_grace(self, now: float, why: str) -> None:
        if self._grace_ends is None:
            self._grace_ends = now + self._grace
            end_process_within(self._grace + LEAVE_WITHIN, 0, why, loss=self._unstored)
            if not self._grace:
                self._interrupt(now)

    def _interrupt(self, now: float) -> None:
        if self.is_killing:
            return
        self._interrupted_at = now
        self.is_killing = True
        end_process_within(LEAVE_WITHIN, 0, "the worker was told to interrupt its jobs", loss=self._unstored)
        # The watchdog also reaches a job that blocks the hub.
        for execution in self._state.executions.undecided():
            execution.interrupt_from(now, stop_interrupt)

    def _plan(self) -> str:
        if self.is_killing:
            return "interrupting what runs"
        if self._grace_ends is not None:
            plan, again = f"what runs has {self._grace:g} s to finish", "; SIGINT interrupts it at once"
        else:
            plan, again = "finishing what runs", "; again to interrupt it"
        return plan if self._has_parent else plan + again

    def _announce(self, line: str) -> None:
        self._state.wake.set()
        _log.info("%s", line)


def _reopen_log_file() -> str:
    """Opens LOG_FILE again, in any thread, and returns the line that says so."""
    try:
        reopen_log_file()
    except OSError as error:
        return f"log.not_reopened: LOG_FILE cannot be opened ({error}); the earlier file gets the lines"
    return "log.reopened on SIGUSR1"
