"""Ends timers that a job has left: they end the process, or raise in the code of another job.

Those of the program, and of a module that is imported, stay: a profiler sets a timer then. The alarm of
SIGALRM belongs to the watchdog.
"""

from __future__ import annotations

import faulthandler
import functools
import signal
from typing import Any

from mrq_core.running.context import JobContext
from mrq_core.worker.guards.noted_calls import noted
from mrq_core.worker.guards.owners import is_any_in_task, owners

_TRACEBACK = -1
"""The timer of `faulthandler.dump_traceback_later`, which ends the process if it is told so."""
_set_by: dict[int, tuple[JobContext, ...]] = {}
"""The jobs that may have set timers, by timer."""
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
    jobs = owners.now()
    if jobs is None:
        _set_by.pop(timer, None)
    else:
        _set_by[timer] = jobs
        noted.were_made = True


def end_left_timers(*, is_alone: bool) -> None:
    """Ends the timers of jobs that have ended, and the alarm if no other job runs."""
    for timer, jobs in list(_set_by.items()):
        if is_alone or not is_any_in_task(jobs):
            del _set_by[timer]
            if timer == _TRACEBACK:
                faulthandler.cancel_dump_traceback_later()
            else:
                signal.setitimer(timer, 0)
    if is_alone and signal.getitimer(signal.ITIMER_REAL) != (0.0, 0.0):
        signal.setitimer(signal.ITIMER_REAL, 0)
