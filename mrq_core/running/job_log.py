"""The log lines of one job: how many are kept, and how they get there.

`JobLogHandler`, on the root logger, looks at which job is running in the current context and adds the line to
the `JobLog` of that job. Lines carry the attempt and a sequence number within it, so that storing them twice
does no harm.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from contextvars import ContextVar

from mrq_core.clock import from_ms, now_ms
from mrq_core.contract.plain import printable
from mrq_core.contract.queries import LogLine
from mrq_core.errors import on_one_line
from mrq_core.running.log_handlers import LocklessHandler, print_error
from mrq_core.running.log_lines import LOG_OF

_LATEST = 253_402_214_400
"""9999-12-31 in seconds since 1970."""
_LEVEL = 30
"""Characters of the name of a level that are kept."""
_LINE_MOST = 8_388_608
"""Bytes of a line that are kept. A document of MongoDB has room for twice as much."""
_PART_LEAST = 100
"""Bytes that a line which no longer fits is cut to, at least. With less room it is dropped."""
_LINE_COST = 64
"""Bytes that a line counts beside its text: its time, its level and its place. A job that logs in a tight
loop would otherwise make hundreds of thousands of lines, and other outcomes wait while they are stored."""
_NOTICE = "the log of this job is longer than MAX_LOG_SIZE: what follows is not kept"


class JobLog:
    """The log lines of one attempt that are not stored yet.

    Keeps about `max_size` bytes of the attempt; the rest is dropped, after a line that says so. A line stays
    here until it is stored, so that each thread that stores the outcome can store all lines first. Appending
    and reading are single steps of the interpreter, so no lock is needed.
    """

    __slots__ = ("_attempt", "_left", "_lines", "_seq", "job_id")

    def __init__(self, job_id: str, attempt: int, max_size: int) -> None:
        self.job_id = job_id
        self._attempt = attempt
        self._left = max_size
        self._seq = 0
        self._lines: deque[LogLine] | None = None  # most jobs log nothing

    def write(self, level: str, message: str, unix_ms: int) -> None:
        """Adds a line. Characters that UTF-8 cannot encode become escapes, and a long line loses its middle.
        Raises TypeError for what is no text, such as the name that a task has given to a level."""
        if self._left < 0:
            return
        text = printable(str.__str__(message))
        level = on_one_line(printable(str.__str__(level)[:_LEVEL]))
        size = len(text.encode())
        if size > _LINE_MOST:
            text = _without_middle(text, _LINE_MOST)
            size = len(text.encode())
        room = self._left - len(_NOTICE) - 2 * _LINE_COST
        self._left -= size + _LINE_COST
        if self._left < 0:
            if room >= _PART_LEAST:
                self._add(level, _without_middle(text, room), unix_ms)
            level, text = "WARNING", _NOTICE
        self._add(level, text, unix_ms)

    def _add(self, level: str, text: str, unix_ms: int) -> None:
        self._seq += 1
        self.keep(
            LogLine(
                job_id=self.job_id,
                attempt=self._attempt,
                seq=self._seq,
                at=from_ms(unix_ms),
                level=level,
                message=text,
            )
        )

    def keep(self, line: LogLine) -> None:
        """Adds a complete line, to be stored."""
        if self._lines is None:
            self._lines = deque()
        self._lines.append(line)

    def take_over(self, line: LogLine) -> None:
        """Adds a line that another process wrote to the log of this attempt. Later lines follow it."""
        self._seq = line.seq
        self._left -= len(line.message.encode()) + _LINE_COST
        self.keep(line)

    def lines(self) -> Sequence[LogLine]:
        """The lines that are not stored yet. Safe in any thread."""
        return list(self._lines) if self._lines else ()

    def drop(self, seq: int) -> None:
        """Forgets the lines up to this sequence number, which are stored. In the hub's thread only."""
        lines = self._lines
        while lines and lines[0].seq <= seq:
            lines.popleft()


def _without_middle(text: str, most: int) -> str:
    """The beginning and the end of the text, in at most this many bytes."""
    data = text.encode()
    if len(data) <= most:
        return text
    gap = f"\n[... {len(data) - most:,} bytes are left out ...]\n"
    tail = most // 4
    head = most - tail - len(gap)
    return data[:head].decode(errors="ignore") + gap + data[-tail:].decode(errors="ignore")


def _unix_ms(seconds: object) -> int:
    """The time of a record. Now for one that no clock has given."""
    if isinstance(seconds, int | float) and 0 <= seconds < _LATEST:
        return int(seconds * 1000)
    return now_ms()


current_log: ContextVar[JobLog | None] = ContextVar("mrq_log", default=None)
"""The log of the job that runs in the current context."""


class JobLogHandler(LocklessHandler):
    """Writes log lines that are made in the context of a job to the log of the job.

    A line that a handler, such as a MemoryHandler, has kept since another job is left out: the job in whose
    context it arrives has not written it.
    """

    def emit(self, record: logging.LogRecord) -> None:
        log = current_log.get()
        if log is None or record.__dict__.get(LOG_OF, log.job_id) != log.job_id:
            return
        try:
            log.write(record.levelname, self.format(record), _unix_ms(record.created))
        except Exception:  # a line that cannot be formatted must not fail the job
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        print_error(super().handleError, record)
