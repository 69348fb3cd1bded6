"""The formats of log lines: text for people, and JSON for programs.

No message of a task forges a line. In text, control characters become escapes, and the further lines of a
message or a traceback are indented. In JSON, each record is one line.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from mrq_core.client.attempt import current_attempt
from mrq_core.contract.plain import printable
from mrq_core.contract.plain_tracebacks import text_of_error
from mrq_core.errors import ConfigError, on_one_line, shown, shown_error, type_name, without_controls

JSON = "json"
"""The value of LOG_FORMAT for one JSON object a line."""
NO_JOB = "-"
"""The attribute `job` of a line that no job logged."""
_INDENT = "\n    "
_MOST_BITS = 4096
"""Of an integer that is written as a number. Python refuses to write very large ones."""
_OURS = ("mrq", "mrq.")
LOG_OF = "_mrq_log"
"""The attribute of a record with the id of the job to whose log it belongs. None: of no job."""
_NAMES = ("levelname", "name", "job")
"""Attributes of records to which tasks can give any text."""


def name_job(record: logging.LogRecord) -> None:
    """Sets the attribute `job` of a record to the id of the job that runs, unless the caller has set it."""
    if "job" not in record.__dict__:
        attempt = current_attempt.get()
        record.job = NO_JOB if attempt is None else attempt.record.id


def legible(record: logging.LogRecord, error: Exception) -> logging.LogRecord:
    """A record for one that cannot be formatted. Its text says why, and where it was logged."""
    reason, message, arguments = shown_error(error), shown(record.msg), shown(record.args)
    place = on_one_line(f"{_text(record.pathname)}:{_text(record.lineno)}")
    text = f"a line that cannot be formatted ({reason}): {message} with {arguments}, logged at {place}"
    made = logging.LogRecord(_text(record.name), logging.INFO, "", 0, text, None, None)
    made.levelno, made.levelname = record.levelno, _text(record.levelname)
    name_job(made)
    return made


def own_line(formatter: logging.Formatter, message: str) -> str:
    """An error of the worker as a line of the log, for one who cannot use a logger."""
    record = logging.LogRecord("mrq.worker", logging.ERROR, "", 0, message, None, None)
    name_job(record)
    return formatter.format(record)


def checked_formatter(format: str, worker: str) -> logging.Formatter:
    """The formatter of LOG_FORMAT. `worker`: the name of this process in JSON. Raises ConfigError."""
    if format.strip().lower() == JSON:
        return JsonFormatter(worker)
    sample = logging.LogRecord("mrq", logging.INFO, __file__, 1, "sample", None, None)
    name_job(sample)
    try:
        formatter = TextFormatter(format)
        formatter.format(sample)
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"LOG_FORMAT is {format!r}, which logging cannot use ({error}): expected json, or a format such "
            "as '%(asctime)s %(levelname)s %(message)s'"
        ) from error
    return formatter


class TextFormatter(logging.Formatter):
    """Makes every log line safe for a terminal. The format keeps its control characters, such as colours."""

    _second = (0, "")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """The local time. The text of a second is kept, because a busy worker logs many lines in it."""
        if datefmt is not None:
            return super().formatTime(record, datefmt)
        second, text = self._second
        if second != int(record.created):
            second = int(record.created)
            text = time.strftime(self.default_time_format, time.localtime(second))
            self._second = (second, text)
        return f"{text},{int(record.msecs):03d}"

    def format(self, record: logging.LogRecord) -> str:
        cached = record.exc_text  # other handlers use this text unchanged
        record.exc_text = None if cached is None else _indented(cached, is_block=True)
        try:
            return printable(super().format(record))
        finally:
            record.exc_text = cached

    def formatMessage(self, record: logging.LogRecord) -> str:
        values, message = vars(record), record.message
        record.message = _indented(message)
        odd = {name: text for name in _NAMES if isinstance(text := values.get(name), str)
               and not text.isprintable()}  # fmt: skip
        values.update((name, on_one_line(text)) for name, text in odd.items())
        try:
            return super().formatMessage(record)
        finally:
            record.message = message
            values.update(odd)

    def formatException(self, ei: Any) -> str:
        return _indented(super().formatException(ei), is_block=True)

    def formatStack(self, stack_info: str) -> str:
        return _indented(super().formatStack(stack_info), is_block=True)


def _indented(text: str, *, is_block: bool = False) -> str:
    """The text without control characters, with its second and later lines indented; with `is_block` all."""
    if text.isprintable() and not is_block:
        return text
    lines = without_controls(text).rstrip("\n").replace("\n", _INDENT)
    return f"{_INDENT[1:]}{lines}" if is_block else lines


class JsonFormatter(logging.Formatter):
    """Makes one JSON object of each record.

    `time`, `level`, `logger` and `event` are always there. `event` is the message; of a line of mrq the name
    of the event, such as `job.failed`, and then `message` is the message. `job`, `task`, `queue` and
    `attempt` are those of the running job. `exception` has `type`, `message` and `traceback`. Further values
    that the caller passed as `extra` are in `extra`.
    """

    def __init__(self, worker: str) -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        line = self._line(record)
        extra = {name: value for name, value in vars(record).items() if name not in _USUAL}
        if extra:
            line["extra"] = {_text(name): _plain(value) for name, value in extra.items()}
        return json.dumps(line, ensure_ascii=True, allow_nan=False)

    def _line(self, record: logging.LogRecord) -> dict[str, Any]:
        message = printable(record.getMessage())
        name = message.partition(" ")[0].removesuffix(":")
        is_name = "." in name and name.replace(".", "_").isidentifier()
        is_event = is_name and str(record.name).startswith(_OURS)
        milliseconds = int(record.created * 1000)
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(milliseconds // 1000))
        line: dict[str, Any] = {
            "time": f"{moment}.{milliseconds % 1000:03d}Z",
            "level": _text(record.levelname),
            "logger": _text(record.name),
            "event": name if is_event else message,
        }
        if is_event:
            line["message"] = message
        job = getattr(record, "job", NO_JOB)
        if job != NO_JOB:
            line["job"] = _plain(job)
        attempt = current_attempt.get()
        if attempt is not None and attempt.record.id == job:
            running = attempt.record
            line |= {"task": running.path, "queue": running.queue, "attempt": running.claims}
        line["worker"] = self._worker
        duration = vars(record).get("duration")
        if isinstance(duration, float) and duration - duration == 0:
            line["duration"] = round(duration, 6)
        if record.exc_info or record.exc_text:
            line["exception"] = self._exception(record)
        if record.stack_info:
            line["stack"] = _text(record.stack_info)
        return line

    def _exception(self, record: logging.LogRecord) -> dict[str, str]:
        told = vars(record)
        kind, message = told.get("error_type"), told.get("error_message")
        error = record.exc_info[1] if record.exc_info else None
        if kind is None and error is not None:
            kind, message = type_name(type(error)), text_of_error(error)
        text = record.exc_text or (self.formatException(record.exc_info) if record.exc_info else "")
        return {name: _text(value) for name, value in
                (("type", kind or ""), ("message", message or ""), ("traceback", text))}  # fmt: skip


_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {
    *("message", "asctime", "taskName", LOG_OF, "job", "duration", "error_type", "error_message")
}


def _plain(value: object) -> Any:
    """A value of JSON: numbers, truth values and null as they are, and the text of any other object."""
    kind = type(value)
    if value is None or kind is bool:
        return value
    if isinstance(value, int) and kind is int and value.bit_length() <= _MOST_BITS:
        return value
    if isinstance(value, float) and kind is float and value - value == 0:
        return value
    return _text(value)


def _text(value: object) -> str:
    """The text of an object, or what stands for it where its code raises: a line is written all the same."""
    try:
        return printable(str.__str__(str(value)))
    except Exception:
        return f"<a {type(value).__name__} whose text fails>"
