"""Keeps the time limits of jobs from containing time in which other code kept the hub.

Code that computes, such as an observer or another job, keeps the hub: a job that waits cannot go on, and
cannot be interrupted. The watchdog asks the hub to respond ten times a second. While the hub does not, each
job except the one that runs gets that time back.

Code in C that holds the GIL keeps the watchdog, too: its next look is late. The job that runs then is mostly
the one that called that code, but another one may have come first. So it gets the time back like the others,
unless the late look before has found the same job.

The frames of a greenlet that a library has made, such as those of SQLAlchemy's asyncio, or of a thread, do
not lead to the code of the job. A signal asks such code once for which job it runs (`wants_to_know`, `tell`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import Context
from types import CodeType, FrameType

from mrq_core.frames import current_frames, reading_frames
from mrq_core.running.context import current_context
from mrq_core.running.helpers import run_in
from mrq_core.worker.executions import Execution
from mrq_core.worker.guards.native import Mailbox

_RESPONDS_WITHIN = 0.2
"""Seconds. A hub that responds later is kept."""
_LOOKS_WITHIN = 0.3
"""Seconds between two looks of the watchdog. A later one is late."""
_IDLE = 1.0
"""Seconds between two questions to the hub of a worker that runs no job."""
_STRANGERS_MOST = 30.0
"""Seconds for which code outside of jobs may keep the hub; then the worker is given up."""
_STEP_MOST = 1.0
"""Seconds that one examination counts at most: the system may have stopped the process."""


class HubTime:
    """The questions to the hub, and the time for which it has not responded.

    `job_code`: the function that runs a job, with a local variable `execution`.
    """

    def __init__(self, job_code: Callable[..., object]) -> None:
        self._job_code: CodeType = getattr(job_code, "__code__")  # noqa: B009
        self._mailbox: Mailbox[float] = Mailbox(self._respond)
        self._asked_at = self._answered_at = self._counted_to = 0.0
        self._looked_at: float | None = None
        self.running: Execution | None = None
        """The job that the latest look has found running in a hub that does not respond."""
        self._suspect: Execution | None = None
        """The job that the latest late look has found running."""
        self.wants_to_know = False
        """Whether the latest look has found code of which it does not know whether a job runs it."""
        self._told: tuple[int, Execution | None] | None = None
        """The outermost frame of such code, by its id, and the job. None: nothing was told since the hub
        responded last; the id may be that of another frame by now."""
        self._kept_by_strangers = 0.0
        self._postponed: dict[Execution, float] = {}
        """The seconds by which the limits of jobs were postponed since the hub responded last."""

    def close(self) -> None:
        """Asks the hub no more."""
        self._mailbox.close()

    @property
    def is_over(self) -> bool:
        """Whether code outside of jobs has kept the hub for so long that the worker must be given up."""
        return self._kept_by_strangers > _STRANGERS_MOST

    def examine(self, now: float, main_thread: int, undecided: Sequence[Execution]) -> dict[Execution, float]:
        """Postpones the limits of the jobs that wait while other code keeps the hub. Returns these jobs with
        the seconds that they get back. Called by the watchdog, in its thread."""
        pause = 0.0 if self._looked_at is None else now - self._looked_at
        self._looked_at = now
        self.running = None
        self.wants_to_know = False
        responds = self._answered_at >= self._asked_at
        is_late = pause > _LOOKS_WITHIN
        if responds:
            self._kept_by_strangers = 0.0
            self._postponed = {}
            self._told = None
            self._counted_to = now - pause if is_late else now
            if undecided or now - self._asked_at > _IDLE:
                self._asked_at = now
                self._mailbox.send(now)
        if not is_late and (responds or now - self._asked_at <= _RESPONDS_WITHIN):
            return {}
        seconds, self._counted_to = now - self._counted_to, now
        self.running = self._running_in(main_thread, undecided)
        if self.running is not None:
            self._kept_by_strangers = 0.0
        elif not responds:
            self._kept_by_strangers += min(seconds, _STEP_MOST)
        keeping = self.running
        if is_late:
            keeping, self._suspect = self.running if self.running is self._suspect else None, self.running
        waiting = {one: min(seconds, now - one.started) for one in undecided if one is not keeping}
        for execution, lost in waiting.items():
            execution.postpone(lost)
            self._postponed[execution] = self._postponed.get(execution, 0.0) + lost
        return waiting

    def charge(self) -> None:
        """Undoes what was postponed since the hub responded last: one of these jobs may have left the code
        that keeps the hub."""
        for execution, seconds in self._postponed.items():
            execution.postpone(-seconds)

    def tell(self, frame: FrameType, execution: Execution | None) -> None:
        """Says which job runs the code of this frame. In the main thread."""
        while frame.f_back is not None:
            frame = frame.f_back
        self._told = (id(frame), execution)

    def _respond(self, asked_at: float) -> None:
        """In the hub."""
        self._answered_at = asked_at

    @reading_frames
    def _running_in(self, main_thread: int, undecided: Sequence[Execution]) -> Execution | None:
        """The job whose code runs in the main thread now, also in another greenlet. None: other code."""
        outermost = 0
        frame: FrameType | None = current_frames().get(main_thread)
        while frame is not None:
            if frame.f_code is self._job_code:
                return frame.f_locals.get("execution")
            if frame.f_code is run_in.__code__:
                context: Context = frame.f_locals["context"]
                job = context.get(current_context)
                return next((execution for execution in undecided if execution.context is job), None)
            outermost = id(frame)
            frame = frame.f_back
        if self._told is not None and self._told[0] == outermost:
            return self._told[1]
        self.wants_to_know = bool(undecided)
        return None
