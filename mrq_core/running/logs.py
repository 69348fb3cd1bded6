"""Where the log lines of a process go, and how that is put right after a task has configured logging.

Lines go to standard error or LOG_FILE, and those of jobs to their `JobLog` as well; what is logged outside of
a job goes to the terminal only.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from mrq_core.config.settings import Config
from mrq_core.contract.forked_code import forks
from mrq_core.contract.plain import printable
from mrq_core.contract.plain_tracebacks import is_odd, plain_traceback
from mrq_core.contract.signal_errors import raised_by_handler
from mrq_core.running.job_log import JobLogHandler, current_log
from mrq_core.running.later_handlers import go_on, tell
from mrq_core.running.log_handlers import FileHandler, TerminalHandler, recent
from mrq_core.running.log_lines import LOG_OF, checked_formatter, name_job
from mrq_core.running.nested_lines import limits_nesting

_PARTS = 3
"""The type, the exception and its traceback, as in `sys.exc_info`."""
_ours: list[logging.Handler] = []
"""The handlers of mrq on the root logger."""
_levels: list[int] = []
"""The levels of these handlers and of the root logger."""
_disabled: set[str] = set()
"""The loggers that were disabled before mrq set logging up."""
_set_up: dict[logging.Handler, tuple[Any, list[Any]]] = {}
"""The formatter and the filters of these handlers."""
_root = logging.getLogger()
_manager = _root.manager
_loggers = (_root, *map(logging.getLogger, ("mrq", "mrq.job", "mrq.plugins", "mrq.scheduler", "mrq.worker")))
"""The loggers that the worker and its jobs need."""
_own = _loggers[1:]
_own_levels: dict[logging.Logger, int] = {}
"""The levels of mrq's own loggers that no job may change for the others."""
_own_filters: dict[logging.Logger, list[Any]] = {}
"""The filters of these loggers."""
# The same in the form that an examination after each job reads fastest.
_expected: list[tuple[logging.Handler, int, list[Any], Any, int]] = []
_expected_loggers: list[tuple[logging.Logger, int, list[Any]]] = []
_NONE: list[logging.Handler] = []
_terminals: list[TerminalHandler] = []


def set_up_logging(config: Config, *, worker: str = "", follows_file: bool = False) -> None:
    """Sends logs to standard error or to LOG_FILE, and logs of jobs to their jobs. Names the job in each
    record of this process. Replaces earlier handlers of mrq. `worker`: the name in JSON, if this process
    is not the worker itself. `follows_file`: see `FileHandler`. With LOG_FILE, the main thread ignores
    SIGUSR1 from now on, whose default ends the process; a worker handles it later.

    Raises ConfigError for a format or a file that cannot be used.
    """
    formatter = checked_formatter(config.log_format, worker or config.worker_name(os.getpid()))
    handler: logging.Handler
    handler = FileHandler(config.log_file, follows=follows_file) if config.log_file else TerminalHandler()
    if config.log_file and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    root = logging.getLogger()
    for terminal in _terminals:
        terminal.close_copy()
    while _ours:
        root.removeHandler(_ours.pop())
    handler.setFormatter(formatter)
    if config.quiet:
        handler.setLevel(logging.WARNING)
    _ours.extend((handler, JobLogHandler()))
    for one in _ours:
        root.addHandler(one)
    root.setLevel(config.log_level)
    if logging.Logger.handle is handle_unstamped:
        setattr(logging.Logger, "handle", _handle)  # noqa: B010
    _levels[:] = [*(one.level for one in _ours), root.level]
    keep_own_settings(dict.fromkeys(_own, (-1, None)))
    _set_up.clear()
    _set_up.update({one: (one.formatter, list(one.filters)) for one in _ours})
    _expected[:] = [(one, one.level, list(one.filters), one.formatter, len(vars(one))) for one in _ours]
    _terminals[:] = [one for one in _ours if isinstance(one, TerminalHandler)]
    # A program that sets logging up by `dictConfig` in the config file hardly means the lines of mrq.
    for name in filter(_is_of_mrq, _disabled_loggers()):
        logging.getLogger(name).disabled = False
    _disabled.update(_disabled_loggers())


OwnSettings = Mapping[logging.Logger, tuple[int, list[Any] | None]]
"""Levels and filters of mrq's own loggers, that of tasks included."""


def own_settings() -> OwnSettings:
    """The levels and filters that mrq's own loggers have now."""
    return {one: (one.level, list(one.filters) if type(one.filters) is list else None) for one in _own}


def keep_own_settings(before: OwnSettings) -> None:
    """Notes the settings that differ from `before`, so that `restore_logging` keeps them."""
    for logger, (level, filters) in own_settings().items():
        earlier_level, earlier_filters = before[logger]
        if type(level) is int and level != earlier_level:
            _own_levels[logger] = level
        # By identity: a task may have given its filter another `__eq__`.
        if filters is not None and (
            earlier_filters is None or list(map(id, filters)) != list(map(id, earlier_filters))
        ):
            _own_filters[logger] = filters
    _expected_loggers[:] = [(one, level, _own_filters.get(one, [])) for one, level in _own_levels.items()]


handle_unstamped = logging.Logger.handle
"""The method of the standard library."""


@limits_nesting
def _handle(logger: logging.Logger, record: logging.LogRecord) -> None:
    """Names the job in each record, for all handlers. No filter or record factory could: tasks
    remove the former, and the latter would refuse a caller's `extra` with the same name. A handler that
    raises keeps the line from no other, and the error from the caller, except in a child that it has forked:
    the child ends with the error."""
    process = forks()
    try:
        stamp(record)
        handle_unstamped(logger, record)
    except Exception as error:
        if forks() != process or raised_by_handler(error) is not None:
            raise
        hand_on(logger, record, error)
        tell(error)


def stamp(record: logging.LogRecord) -> None:
    """Names in a record the job that runs, and the job to whose log it belongs, unless it has them."""
    name_job(record)
    if record.exc_info and record.exc_text is None:
        _keep_odd_exception(record)
    if LOG_OF not in record.__dict__:
        log = current_log.get()
        record.__dict__[LOG_OF] = log and log.job_id


def _keep_odd_exception(record: logging.LogRecord) -> None:
    """Gives a record the text of an exception that formatters may not be able to read."""
    info: object = record.exc_info
    if type(info) is tuple and len(info) == _PARTS:
        error = info[1]
        if issubclass(type(error), BaseException) and is_odd(error):
            record.exc_text = plain_traceback(error).rstrip()


def reopen_log_file() -> None:
    """Opens LOG_FILE again, after a program has renamed it. In any thread. Raises OSError."""
    for handler in _ours:
        if isinstance(handler, FileHandler):
            handler.reopen()


def recent_log(most: int) -> str:
    """The latest log lines of this process, up to 500 lines and about `most` characters. In any thread."""
    lines: list[str] = []
    size = 0
    for line in reversed(recent.copy()):  # a copy is one step of the interpreter
        size += len(line) + 1
        if size > most:
            break
        lines.append(printable(line))
    return "\n".join(reversed(lines))


def are_handlers_ours(logger: logging.Logger) -> bool:
    """Whether a logger below the root logger sends its lines to the handlers of mrq only, which never
    wait."""
    if len(_root.handlers) > len(_ours):
        return False
    one: logging.Logger | None = logger
    while one is not None and one is not _root:
        if one.handlers or one.filters:
            return False
        one = one.parent
    return not _root.filters


def leave_to_others(logger: logging.Logger) -> bool:
    """Keeps later lines from the handlers of mrq. False: it has no others, and keeps them."""
    if are_handlers_ours(logger):
        return False
    _root.handlers = [handler for handler in _root.handlers if handler not in _ours]
    return True


def hand_on(
    logger: logging.Logger, record: logging.LogRecord, error: BaseException, *, only_ours: bool = False
) -> None:
    """Gives a line to the handlers after the one that has raised this error. Never raises."""
    go_on(logger, record, error, _ours, only_ours=only_ours)


def handle_alone(record: logging.LogRecord) -> None:
    """Gives a line to the handlers of mrq, and to no other handler."""
    for handler in _ours:
        if record.levelno >= handler.level:
            handler.handle(record)


def is_logging_intact() -> bool:
    """Whether logs still go where `set_up_logging` has sent them. Costs little: called after each job."""
    try:
        handlers = _root.handlers
        # Those of mrq are examined below.
        if type(handlers) is not list or (len(handlers) != len(_expected) and not _are_usable(handlers)):
            return False
        for handler, level, filters, formatter, number in _expected:
            if (
                handler.level != level
                or len(handler.__dict__) != number
                or handler.filters != filters
                or handler.formatter is not formatter
                or handler.lock is not None
                or handler not in handlers
            ):
                return False
        for logger, level, filters in _expected_loggers:
            if (
                logger.level != level
                or logger.filters != filters
                or logger.disabled
                or not logger.propagate
                or (logger.handlers != _NONE and not _are_usable(logger.handlers))
            ):
                return False
        for terminal in _terminals:
            if terminal.stream is not terminal.own_stream:
                return False
        return not (
            _manager.disable
            or (_levels and _root.level != _levels[-1])
            or _root.disabled
            or type(_root.filters) is not list
            or logging.root is not _root
            or logging.Logger.manager is not _manager
        )
    except Exception:  # a task has set other values, or a handler compares itself
        return False


def restore_logging() -> None:
    """Sends logs again where `set_up_logging` has sent them, after a task or a plugin has configured logging
    for itself.

    Leaves the handlers of a task, and the levels and filters of its loggers, as far as logging can use them.
    The levels and filters of mrq's own loggers are those of the start, or of the import of a task.
    """
    if logging.root is not _root:
        setattr(logging, "root", _root)  # noqa: B010
    logging.Logger.manager = _manager
    for logger in _loggers:
        handlers = getattr(logger, "handlers", None)
        if not _are_usable(handlers):
            logger.handlers = _usable(handlers)
        if type(getattr(logger, "filters", None)) is not list:
            logger.filters = []
        logger.propagate = True
    for handler, level in zip(_ours, _levels, strict=False):
        _restore_handler(handler, level)
    _expected[:] = [(*one[:-1], len(vars(one[0]))) for one in _expected]  # a task may add attributes
    if _manager.disable:
        logging.disable(logging.NOTSET)
    if _levels and _root.level != _levels[-1]:
        _root.setLevel(_levels[-1])
    for logger, level in _own_levels.items():
        if logger.level != level:
            logger.setLevel(level)
    for logger, filters in _own_filters.items():
        logger.filters = list(filters)
    if any(logger.disabled for logger in _loggers):  # dictConfig disables all loggers that there are
        for name in _disabled_loggers() - _disabled:
            logging.getLogger(name).disabled = False
        for logger in _loggers:
            logger.disabled = False


@contextmanager
def logging_kept() -> Iterator[None]:
    """While code of users is loaded: logs go on as `set_up_logging` has set them up. Levels and filters that
    the code gives to mrq's own loggers stay."""
    before = own_settings()
    try:
        yield
    finally:
        keep_own_settings(before)
        with suppress(Exception):  # an object of the code, such as a handler that compares itself
            restore_logging()


def _restore_handler(handler: logging.Handler, level: int) -> None:
    if not any(one is handler for one in _root.handlers):
        _root.handlers.insert(0, handler)  # before a handler of a task, which may raise
    for name in list(vars(handler)):
        if callable(getattr(type(handler), name, None)):  # a task has replaced a method, such as `emit`
            delattr(handler, name)
    if handler.level != level:
        handler.setLevel(level)
    handler.formatter, filters = _set_up[handler]
    if handler.filters != filters:
        handler.filters = list(filters)
    handler.lock = None
    if isinstance(handler, TerminalHandler):
        handler.restore_stream()
    if isinstance(handler, FileHandler):
        handler.restore()


def _are_usable(handlers: Any) -> bool:
    """Whether these are a list of handlers, each with a level."""
    if type(handlers) is not list:
        return False
    for one in handlers:
        if not issubclass(type(one), logging.Handler) or type(getattr(one, "level", None)) is not int:
            return False
    return True


def _usable(found: Any) -> list[logging.Handler]:
    """The handlers in the object that a task has put in the place of a list, each with a level."""
    kind: Any = next((kind for kind in (list, tuple, set) if issubclass(type(found), kind)), None)
    members = () if kind is None else kind.__iter__(found)  # that of a subclass is code of the task
    handlers = [one for one in members if issubclass(type(one), logging.Handler)]
    for handler in handlers:
        if type(getattr(handler, "level", None)) is not int:
            handler.level = logging.NOTSET
    return handlers


def _is_of_mrq(name: str) -> bool:
    return name == "mrq" or name.startswith("mrq.")


def _disabled_loggers() -> set[str]:
    loggers = list(_manager.loggerDict.items())
    return {name for name, one in loggers if isinstance(one, logging.Logger) and one.disabled}
