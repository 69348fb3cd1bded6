"""Ends timers that a job has left: they end the process, or raise in the code of another job.

Those of a module or of the program stay: a profiler sets a timer when it is imported or started. The alarm of
SIGALRM belongs to the watchdog.
"""

from __future__ import annotations

import faulthandler
import functools
import signal
from typing import Any

from mrq_core.running.context import JobContext, current_context
from mrq_core.worker.guards.noted_calls import noted

_TRACEBACK = -1
"""The timer of `faulthandler.dump_traceback_later`, which ends the process if it is told so."""
_owners: dict[int, JobContext] = {}
"""The jobs that have set timers, by timer."""
_are_noted = False


def note_timers() -> None:
    """Notes which job sets a timer, from now on. The functions do what they did before. Has no effect after
    the first call."""
    global _are_noted
    if _are_noted:
        return
    _are_noted = True
    dump_later, set_timer = faulthandler.dump_traceback_later, signal.setitimer

    @functools.wraps(dump_later)
    def note_dump(*arguments: Any, **named: Any) -> None:
        _note(_TRACEBACK)
        dump_later(*arguments, **named)

    @functools.wraps(set_timer)
    def note_timer(which: Any, *arguments: Any) -> Any:
        if which != signal.ITIMER_REAL:
            _note(which)
        return set_timer(which, *arguments)

    setattr(faulthandler, "dump_traceback_later", note_dump)  # noqa: B010
    setattr(signal, "setitimer", note_timer)  # noqa: B010


def _note(timer: int) -> None:
    context = current_context.get()
    if context is not None and context.in_code and context.loaded is not None:  # else it is imported
        _owners[timer] = context
        noted.were_made = True
    else:
        _owners.pop(timer, None)


def end_left_timers(*, is_alone: bool) -> None:
    """Ends the timers of jobs that have ended, and the alarm if no other job runs."""
    for timer, owner in list(_owners.items()):
        if is_alone or not owner.in_code:
            del _owners[timer]
            if timer == _TRACEBACK:
                faulthandler.cancel_dump_traceback_later()
            else:
                signal.setitimer(timer, 0)
    if is_alone and signal.getitimer(signal.ITIMER_REAL) != (0.0, 0.0):
        signal.setitimer(signal.ITIMER_REAL, 0)
