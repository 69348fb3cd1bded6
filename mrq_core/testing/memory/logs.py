"""The log of one job."""

from __future__ import annotations

import re

from msgspec.structs import replace

from mrq_core.contract.messages import LogLine, LogPage
from mrq_core.errors import InvalidValue

_CURSOR = re.compile(r"(\d{1,18})\.(-1|\d{1,18})\Z", re.ASCII)


class JobLog:
    """Lines by attempt and seq, up to about a number of bytes."""

    def __init__(self) -> None:
        self._lines: dict[tuple[int, int], LogLine] = {}
        self._size = 0
        self._full = False

    def append(self, line: LogLine, max_size: int) -> None:
        """Keeps the line; the first one that does not fit becomes a note of that, later ones are dropped."""
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
        """The lines behind the cursor, which is the attempt and seq of the last line shown."""
        position = "0.-1" if cursor is None else cursor
        found = _CURSOR.match(position)
        if found is None:
            raise InvalidValue(
                f"cursor is {cursor!r}: expected one that came with a page of this log", path="cursor"
            )
        start = (int(found[1]), int(found[2]))
        keys = [key for key in sorted(self._lines) if key > start][:limit]
        if keys:
            position = f"{keys[-1][0]}.{keys[-1][1]}"
        return LogPage(lines=tuple(self._lines[key] for key in keys), cursor=position)
