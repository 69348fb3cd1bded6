"""Every error that mrq raises, in one tree.

A message says what was found, what was expected and what to do; attributes hold the facts.
Callers catch `MrqError`. The interrupts at the end of this file are not errors: they end the code of a
running task, and derive from `BaseException` so that a task's ``except Exception`` does not swallow them.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from typing import Any, TypeVar

_Kind = TypeVar("_Kind", bound=BaseException)


class MrqError(Exception):
    """The root of all errors of mrq. Errors with attributes can be copied and pickled too."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.args, dict(self.__dict__))


def _rebuilt(kind: type[_Kind], arguments: tuple[object, ...], facts: Mapping[str, object]) -> _Kind:
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    error.__dict__.update(facts)
    return error


# --- the words of messages -----------------------------------------------------------------

_SHOWN_MAX = 200
UNSEEN = (
    "\\xad\\u061c\\u180e\\u200b\\u200e\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb"
    "\\U000e0000-\\U000e007f"
)
"""Characters that reorder text or are invisible, for a set of a regular expression. U+200C and U+200D, which
join letters and emoji, are left out."""
_CONTROL = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f{UNSEEN}\ud800-\udfff]")
_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80


def shown(value: object) -> str:
    """The value for a message: its repr on one line, in at most 200 characters, without the passwords of
    URLs. Never raises an Exception, whatever `__repr__` does."""
    if type(value) is int and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    kind = type(value)
    try:
        text = _short.repr(value)
        if value.__class__ is not kind:  # a proxy, whose repr may be that of a plain value
            text = f"{text} of type {type_name(kind)}"
    except Exception:
        text = f"<a {type_name(kind)} whose repr fails>"
    return _on_one_line(text)


def type_name(kind: type) -> str:
    """The name of a class, whatever its metaclass makes of the attribute."""
    name: str = type.__dict__["__name__"].__get__(kind)
    return name


def shown_error(error: BaseException) -> str:
    """The type and the text of an exception for a message, under the same limits as `shown`. Never raises,
    because the exception may be one of a task or a plugin."""
    try:
        text = str.__str__(str(error))
    except BaseException:
        text = "<its text fails>"
    name = type_name(type(error))
    return _on_one_line(f"{name}: {text}" if text else name, 1000)


_LOGIN = re.compile(r"(://[^\s/?#@:\[\]'\"]*):(?!\*\*\*|\d*(?:[/?#,.;)\]\s'\"]|$))[^\s'\"]*")
"""A URL up to the colon before its password, and the password with the host behind it."""


def _on_one_line(text: str, most: int = _SHOWN_MAX) -> str:
    if "://" in text:
        text = _LOGIN.sub(r"\1:***", text)
    return on_one_line(shortened(text, most))


def shortened(text: str, most: int = _SHOWN_MAX) -> str:
    """The beginning of a text that has more characters than this."""
    return text if len(text) <= most else text[: most - 3] + "..."


def without_controls(text: str) -> str:
    """The text as a terminal can print it. Control characters except line ends and tabs, characters that
    reorder text or are invisible, and lone surrogates become escapes."""
    return _CONTROL.sub(_escape, text)


def on_one_line(text: str) -> str:
    """The text without line ends, tabs and characters that a terminal obeys."""
    if text.isprintable():
        return text
    return without_controls(" ".join(text.splitlines()).replace("\t", " "))


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code > 0xFFFF:
        return f"\\U{code:08x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


# --- configuration -----------------------------------------------------------------------


class ConfigError(MrqError):
    """The configuration is invalid. The command line exits with 2."""


class ImportFailed(ConfigError, ImportError):
    """Python cannot import a module of mrq, of a driver, or of a library that they need."""


class DriverNotFound(ConfigError):
    """No installed driver has the requested name or opens the requested URL."""

    def __init__(self, message: str, *, wanted: str, installed: tuple[str, ...]) -> None:
        super().__init__(message)
        self.wanted = wanted
        self.installed = installed


# --- values ------------------------------------------------------------------------------


class InvalidValue(MrqError, ValueError):
    """A value is invalid. `path` leads to it, such as ``params.users[3]``."""

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path


class ValueTooLarge(InvalidValue):
    """The encoded value exceeds its limit. Sizes are bytes."""

    def __init__(self, message: str, *, path: str, size: int, limit: int) -> None:
        super().__init__(message, path=path)
        self.size = size
        self.limit = limit


class InvalidQuery(InvalidValue):
    """A part of a query is invalid. `start` and `end` are its indexes in the text of the query;
    `suggestions` has names that it may mean."""

    def __init__(
        self, message: str, *, part: str, start: int, end: int, suggestions: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message, path="query")
        self.part = part
        self.start = start
        self.end = end
        self.suggestions = suggestions


class ScheduleNotFound(InvalidValue):
    """No schedule has this name."""


class ScheduleExists(InvalidValue):
    """Another schedule has this name."""


class InvalidParams(MrqError, ValueError):
    """The params do not fit the arguments of the task."""


# --- tasks -------------------------------------------------------------------------------


class TaskError(MrqError):
    """A job's path does not lead to a task. Nothing of the task ran."""

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path


class TaskNotFound(TaskError):
    """The module, or the name in the module, does not exist."""


class TaskImportFailed(TaskError):
    """The module exists, and its import raised an exception."""


class NotATask(TaskError):
    """The path leads to an object that is neither a Task subclass nor a decorated function."""


# --- jobs --------------------------------------------------------------------------------


class JobError(MrqError):
    """An operation on one job is impossible."""

    def __init__(self, message: str, *, job_id: str) -> None:
        super().__init__(message)
        self.job_id = job_id


class JobNotFound(JobError):
    """No job has this id: it never existed, was removed, or has expired."""

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"no job has the id {job_id!r}: it never existed, was removed, or has expired", job_id=job_id
        )


class RequestFailed(MrqError):
    """A worker refused a request, or did not answer in time."""


class ChangeRefused(JobError):
    """The job's status does not allow this change, or the job has changed since the caller read it."""


class ChangedMeanwhile(MrqError):
    """The thing has changed since the caller read it. Nothing was done."""


class RepeatRefused(MrqError):
    """A request came with the key of an earlier one that has not ended, or that asked for something else."""


class WaitRefused(JobError):
    """A job waits for itself, and would wait for ever."""


class WaitTimeout(JobError, TimeoutError):
    """The job did not end within the timeout of a wait."""


class ClaimLost(JobError):
    """The lease of a claim expired while its job was running, and the job must not run again."""


class ProcessDied(JobError):
    """The own process of a job died before the job's code had ended."""


class MemoryLimitExceeded(MrqError):
    """A job used more memory than its task allows, and its process was killed."""


class NoCurrentJob(MrqError):
    """A function that needs a running job was called outside a job."""


# --- brokers -----------------------------------------------------------------------------


class BrokerError(MrqError):
    """The broker could not complete an operation. The message is one line: it may contain a text of the
    server, from which control characters are escaped."""

    def __init__(self, message: str = "") -> None:
        super().__init__(on_one_line(message))


class BrokerUnavailable(BrokerError):
    """The broker is unreachable, locked, full or read-only. The same call may be repeated later."""


class CallRefused(BrokerUnavailable):
    """The broker answers, and refuses this call: it is full or read-only, or the user lacks a right. Other
    calls may succeed."""


class BrokerLost(CallRefused):
    """This process cannot use the broker again, because of what other code in it has done. Another process
    can."""


class BrokerCorrupt(BrokerError):
    """Stored data cannot be read. Repeating the call does not help; an operator must repair the data."""


class JobDamaged(BrokerCorrupt):
    """The stored data of one job cannot be read. A driver sets the job aside and repeats the call; see
    `mrq_core.drivers.damage`."""

    def __init__(self, message: str, *, job_id: str) -> None:
        super().__init__(message)
        self.job_id = job_id


class RecordTooLarge(BrokerError):
    """The record of a job, with its params and its result, is larger than the broker can store. Repeating the
    call does not help."""


class SchemaTooNew(BrokerError):
    """A newer version of mrq upgraded the stored data, and this version may no longer use them."""

    def __init__(self, message: str, *, found: int, supported: int) -> None:
        super().__init__(message)
        self.found = found
        self.supported = supported


class NotSupported(BrokerError):
    """The configured driver does not offer this part of the contract."""


# --- interrupts --------------------------------------------------------------------------


class Interrupt(BaseException):
    """Ends the code of a running task, from outside or at the request of the task."""

    asked_by: tuple[str, int] | None = None
    """The attempt whose code asked for the interrupt: the id of the job, and the number of its claim."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.args, dict(self.__dict__))


class TimeoutInterrupt(Interrupt):
    """The job ran longer than its timeout."""


class JobInterrupt(Interrupt):
    """The worker has to stop."""


class CancelInterrupt(Interrupt):
    """The job was cancelled with an interrupt."""


class AbortInterrupt(Interrupt):
    """The task called abort_current_job()."""


class RetryInterrupt(Interrupt):
    """The task called retry_current_job(). None means: as the task's options say. Delays are seconds."""

    def __init__(
        self, *, delay: float | None = None, max_retries: int | None = None, queue: str | None = None
    ) -> None:
        super().__init__("the task asked to be retried")
        self.delay = delay
        self.max_retries = max_retries
        self.queue = queue
