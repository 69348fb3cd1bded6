"""The logs of jobs."""

from __future__ import annotations

from msgspec.structs import replace

from mrq_core.contract.naming import log_position
from mrq_core.contract.queries import LogLine, LogPage


class JobLog:
    """The log of one job: lines by attempt and seq, up to a size in bytes."""

    def __init__(self) -> None:
        self._lines: dict[tuple[int, int], LogLine] = {}
        self._size = 0
        self._full = False

    def append(self, line: LogLine, max_size: int) -> None:
        """Adds the line. A note replaces the first line that does not fit; later lines are dropped."""
        key = (line.attempt, line.seq)
        if self._full or key in self._lines:
            return
        self._size += len(line.message.encode())
        if self._size > max_size:
            self._full = True
            note = f"the log ends here: it is limited to {max_size:,} bytes"
            line = replace(line, level="WARNING", message=note)
        self._lines[key] = line

    def page(self, cursor: str | None, limit: int) -> LogPage:
        """The lines after the cursor, which is the attempt and seq of the last line of the page before."""
        start = log_position(cursor)
        keys = [key for key in sorted(self._lines) if key > start][:limit]
        attempt, seq = keys[-1] if keys else start
        return LogPage(lines=tuple(self._lines[key] for key in keys), cursor=f"{attempt}.{seq}")
