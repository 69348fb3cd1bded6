"""Keeps the errors of log handlers from the code that logs, and hostile exceptions from the hub.

Handlers, filters, formatters and record factories belong to users and tasks: they may raise anything, and
standard error may be closed. A worker must store outcomes and renew leases all the same, and a handler that
one job has installed must not fail another job. A handler that blocks is interrupted in the worker's
greenlets; then only the handlers of mrq get lines for a while.
"""

from __future__ import annotations

import logging
import os
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import Context
from math import inf
from typing import Any

import gevent
from gevent._hub_local import get_hub_if_exists

from mrq_core.clock import monotonic
from mrq_core.contract.exception_fields import frames_of
from mrq_core.contract.forked_code import forks
from mrq_core.contract.plain_tracebacks import error_type, is_odd, plain_traceback
from mrq_core.errors import shown, shown_error
from mrq_core.running import logs
from mrq_core.running.context import current_context
from mrq_core.running.later_handlers import tell
from mrq_core.running.nested_lines import limits_nesting
from mrq_core.worker.guards.logging_lock import guard_logging_locks

_CALLER = 2
"""The frame that a log line names: the caller of this module."""
_PATIENCE = 5.0
"""Seconds for which the worker waits for the log handlers of one line."""
_BLOCKED = 1.0
"""Seconds. A handler that takes longer and is then interrupted blocks."""
_LEFT_OUT = 60.0
"""Seconds for which a handler that blocks gets no lines, nor do other handlers that mrq did not install."""
_SHOWN = 500
"""Characters of an error that are shown."""
_REPORTS_MOST, _REPORTS_SPAN = 20, 10.0
"""The most reports of a SystemError of the hub in these seconds."""


class GuardedLog(logging.LoggerAdapter[logging.Logger]):
    """Logs like the logger of this name. Never raises, and waits for handlers that block for `_PATIENCE`.
    Where the record factory of a task fails, only the handlers of mrq get the line."""

    def __init__(self, name: str) -> None:
        super().__init__(logging.getLogger(name), {})

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        limit = None
        try:
            if self.logger.isEnabledFor(level):
                limit = _start_limit()
                info = kwargs.get("exc_info")
                if isinstance(info, BaseException):
                    info = (type(info), info, frames_of(info))
                elif info:
                    info = sys.exc_info()
                file, line, function, _ = self.logger.findCaller(False, _CALLER)
                self._handle((file, line), level, msg, args, info, function, {})
        except BaseException:
            pass
        finally:
            if limit is not None:
                limit.close()

    def tell(
        self,
        level: int,
        text: str,
        values: tuple[object, ...],
        extra: Mapping[str, object],
        error: BaseException | None = None,
        traceback: str | None = None,
    ) -> None:
        """Logs like `log` at half its cost: without the caller's line. `error`: an exception of a task, which
        log handlers get as `exc_info`. Its text is `traceback`, because formatting the exception calls
        code of the task, and may take for ever."""
        limit = None
        try:
            logger = self.logger
            if not logger.isEnabledFor(level):
                return
            if not logs.are_handlers_ours(logger):
                limit = _start_limit()
            info: Any = None if error is None else (type(error), error, frames_of(error))
            self._handle((__file__, 0), level, text, values, info, "tell", extra, traceback)
        except BaseException:
            pass
        finally:
            if limit is not None:
                limit.close()

    def warn_of_change(self, text: str, *values: object) -> None:
        """Warns of what a task has done to the process. Not in the log of the job that ends just now: one
        that ran beside it, or before it, may have done it."""
        ended = current_context.get()
        if ended is not None:
            text += " (found at the end of job %s, %s)"
            values = (*values, ended.record.id, ended.record.path)
        Context().run(self.warning, text, *values)

    def _handle(
        self,
        place: tuple[str, int],
        level: int,
        text: object,
        values: tuple[object, ...],
        info: Any,
        function: str,
        extra: Mapping[str, object],
        traceback: str | None = None,
    ) -> None:
        """Makes the record, and gives it to the handlers."""
        logger, exc_text = self.logger, traceback and traceback.rstrip("\n")
        try:
            record: object = logger.makeRecord(
                logger.name, level, *place, text, values, info, function, extra
            )
        except BaseException:
            record = None
        if not isinstance(record, logging.LogRecord):  # the record factory of a task has failed
            record = logging.LogRecord(logger.name, level, *place, text, values, info, function)
            record.exc_text = exc_text
            vars(record).update(extra)
            logs.stamp(record)
            logs.handle_alone(record)
        else:
            record.exc_text = exc_text
            logger.handle(record)


def _start_limit() -> gevent.Timeout | None:
    """A timeout for handlers that wait. None: the hub, or a thread without a hub, cannot wait with gevent."""
    hub = get_hub_if_exists()
    if hub is None or gevent.getcurrent() is hub:
        return None
    return gevent.Timeout.start_new(_PATIENCE)


def guard_loggers() -> None:
    """Makes all loggers of this process catch what handlers raise, because the libraries of brokers log too.
    Standard error gets the first error. In the code of a job only `Exception` is caught: anything else may be
    an interrupt of the job, or a timeout that the job has set itself. No job keeps the locks of logging."""
    guard_logging_locks()
    if logging.Logger.handle is not _handle:
        setattr(logging.Logger, "handle", _handle)  # noqa: B010


def may_report(kind: object) -> bool:
    """Whether an exception of the hub may be printed or logged. A loop without its descriptors raises
    SystemError for ever, and would fill the disk."""
    if kind is not SystemError:
        return True
    now = monotonic()
    if len(_reports) == _REPORTS_MOST and now - _reports[0] < _REPORTS_SPAN:
        return False
    _reports.append(now)
    return True


def guard_hub() -> None:
    """Makes the hub survive exceptions that it cannot print: a task that waits for a thread would wait for
    ever. Standard error may be closed, and an exception may raise when it is formatted."""
    hub: Any = gevent.get_hub()
    unguarded, handle = hub.print_exception, hub.handle_error

    def print_exception(context: object, kind: object, value: object, frames: object) -> None:
        if not may_report(kind):
            return
        try:
            unguarded(context, kind, value, frames)
        except BaseException as error:
            _write(f"mrq: an exception of a greenlet cannot be printed: {shown_error(error)[:_SHOWN]}\n")

    def handle_error(context: object, kind: Any, value: Any, frames: object) -> None:
        if not (issubclass(type(value), BaseException) and is_odd(value)):
            handle(context, kind, value, frames)
        elif issubclass(type(value), hub.SYSTEM_ERROR):
            hub.handle_system_error(type(value), value)
        elif not issubclass(type(value), hub.NOT_ERROR):
            _write(f"{plain_traceback(value)}{shown(context)} failed with {error_type(value)}\n")

    hub.print_exception, hub.handle_error = print_exception, handle_error


_handle_unguarded = logs.handle_unstamped
_reports: deque[float] = deque(maxlen=_REPORTS_MOST)
"""The times of the latest reports of a SystemError."""
_left_out_until = 0.0
"""The monotonic time until which only the handlers of mrq get lines."""


@limits_nesting
def _handle(logger: logging.Logger, record: logging.LogRecord) -> None:
    started, process = monotonic(), forks()
    try:
        logs.stamp(record)
        if started < _left_out_until:
            logs.handle_alone(record)
        else:
            _handle_unguarded(logger, record)
    except BaseException as error:
        if forks() != process and current_context.get() is not None:
            raise  # in a child that a handler has forked: it ends with the error
        is_ordinary = issubclass(type(error), Exception)
        if not is_ordinary and monotonic() - started > _BLOCKED:
            _leave_out_handlers()
        logs.hand_on(logger, record, error, only_ours=not is_ordinary)
        if not is_ordinary and current_context.get() is not None:
            raise
        tell(error)


@contextmanager
def other_handlers_left_out() -> Iterator[None]:
    """Only the handlers of mrq get lines, in all threads."""
    global _left_out_until
    before, _left_out_until = _left_out_until, inf
    try:
        yield
    finally:
        _left_out_until = before


def _leave_out_handlers() -> None:
    """Keeps lines from handlers that mrq did not install, because one of them blocks."""
    global _left_out_until
    _left_out_until = monotonic() + _LEFT_OUT
    logging.getLogger("mrq.worker").warning(
        "log.blocks: a log handler did not return, or its lock was not released. For %g s only the handlers "
        "of mrq get lines",
        _LEFT_OUT,
    )


def _write(line: str) -> None:
    try:
        os.write(2, line.encode(errors="backslashreplace"))
    except OSError:
        pass
