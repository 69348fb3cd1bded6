"""The attempt that runs the code of a job, as the client knows it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Protocol

from mrq_core.contract.record import JobRecord


class RunningAttempt(Protocol):
    """The attempt that runs this code, for the handle of the current job and for calls of the client."""

    record: JobRecord
    worker: object

    def set_progress(self, ratio: float) -> None: ...

    def shield_call(self) -> AbstractContextManager[None]: ...


current_attempt: ContextVar[RunningAttempt | None] = ContextVar("mrq_job", default=None)
"""The attempt that runs this code; set by the worker."""

_UNSHIELDED = nullcontext()


def whole_call() -> AbstractContextManager[None]:
    """Defers interrupts of the running job to the end of a call that changes something, for a second at most:
    a broker may write in several steps. An interrupt between two of them would leave the rest to a repair."""
    attempt = current_attempt.get()
    return _UNSHIELDED if attempt is None else attempt.shield_call()
