"""Finds the attempt that asked for an abort or a retry.

`abort_current_job` and `retry_current_job` raise interrupts that name the attempt that called them. A future,
a pool or a cache may pass such an interrupt on to another job.
"""

from __future__ import annotations

from collections.abc import Callable

from mrq_core.errors import AbortInterrupt, RetryInterrupt
from mrq_core.running.context import JobContext

_MOST_MEMBERS = 1000
"""Exceptions of a group that are read."""
# By the base class itself: a class of the task may have attributes of these names.
_values_of: Callable[[BaseException], dict[str, object]] = vars(BaseException)["__dict__"].__get__
_members_of: Callable[[BaseException], tuple[BaseException, ...]]
_members_of = vars(BaseExceptionGroup)["exceptions"].__get__


def asked_by_another(context: JobContext, error: BaseException) -> tuple[str, int] | None:
    """The other attempt, of this or of another job, whose code asked for the interrupt that this is."""
    asked = _asked_by(error)
    return None if asked == context.attempt else asked


def wish_in(context: JobContext, error: BaseException) -> BaseException:
    """The interrupt for which this attempt asked, if the error is a group of such interrupts and of nothing
    else, as an asyncio.TaskGroup makes it. Else the error itself."""
    wish, waiting = error, [error]
    for _ in range(_MOST_MEMBERS):
        if not waiting:
            return wish
        one = waiting.pop()
        if issubclass(type(one), BaseExceptionGroup):
            waiting += reversed(_members_of(one)[:_MOST_MEMBERS])
        elif _asked_by(one) != context.attempt:
            return error
        elif wish is error:
            wish = one
    return error


def _asked_by(error: BaseException) -> tuple[str, int] | None:
    if not issubclass(type(error), AbortInterrupt | RetryInterrupt):
        return None
    match _values_of(error).get("asked_by"):
        case (str() as job, int() as claim):
            return job, claim
    return None
