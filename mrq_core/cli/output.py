"""What commands print: tables and texts for people, JSON for programs, and notes on standard error.

Whatever comes from jobs is printed as text: it is never taken for markup, and control characters,
which a terminal would obey, are shown as escapes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mrq_core.cli.terminal import result_output
from mrq_core.contract.codec import JsonValue
from mrq_core.errors import UNSEEN, without_controls

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_JSON_CONTROL = re.compile(rf"[\x7f-\x9f{UNSEEN}\ud800-\udfff]")
_WIDE = 10_000
_CUT = frozenset({"task", "queue", "error"})
_WHOLE = frozenset({"id", "status", "age", "duration", "driver", "plugin", "state", "running"})
_SHORTEST_CUT, _SHORTEST_FOLDED = 6, 20
"""The widths below which a column is no longer readable."""
STATUS_STYLES = {
    "success": "green",
    "failed": "bold red",
    "timeout": "red",
    "maxretries": "red",
    "lost": "red",
    "started": "cyan",
    "retry": "yellow",
    "interrupt": "yellow",
    "queued": "blue",
    "cancel": "dim",
    "abort": "dim",
}


def program() -> str:
    """How the user calls this program: by its name where the shell finds it, else by its path."""
    called = sys.argv[0]
    if shutil.which("mrq") or not called.endswith("mrq"):
        return "mrq"
    try:
        path = os.path.relpath(called)
    except OSError:  # the working directory was deleted
        return called
    return path if len(path) < len(called) else called


def console(*, stderr: bool = False) -> Console:
    """A console on the current stream. Outside a terminal lines are not wrapped."""
    from rich.console import Console

    stream = sys.stderr if stderr else result_output()
    return Console(
        file=stream, width=None if stream.isatty() else _WIDE, markup=False, highlight=False, emoji=False
    )


def safe(text: str) -> str:
    """The text with control characters as escapes; line ends and tabs stay."""
    return without_controls(text.replace("\r\n", "\n"))


def safe_line(text: str) -> str:
    """The same in one line: line ends are escapes, too."""
    return safe(text).replace("\n", "\\n").replace("\t", "\\t")


def say(text: str, style: str | None = None) -> None:
    """Prints a line of the command's result."""
    console().print(safe(text), style=style, soft_wrap=True)


def note(text: str) -> None:
    """Prints a remark on standard error, where it does not mix with the result."""
    console(stderr=True).print(safe(text), style="dim", soft_wrap=True)


@contextmanager
def told_until_then(done: Callable[[], str]) -> Iterator[None]:
    """For work in steps: if an error or an interrupt ends it, prints what the earlier steps have done, if
    anything."""
    try:
        yield
    except BaseException:
        if text := done():
            note(f"Until then: {text}.")
        raise


def complain(text: str) -> None:
    """Prints an error on standard error."""
    console(stderr=True).print(f"mrq: {safe(text)}", style="red", soft_wrap=True)


def complain_traceback() -> None:
    """Prints the traceback of the current exception on standard error."""
    print(safe(traceback.format_exc()), file=sys.stderr, end="")


def print_json(value: JsonValue, *, indent: int | None = 2) -> None:
    """Prints a value for programs. The JSON is valid in every encoding and has no control characters."""
    text = json_text(value, indent=indent, is_ascii=not can_show("\u20ac\U0001f600"))
    print(text, file=result_output())


def json_text(value: JsonValue, *, indent: int | None = 2, is_ascii: bool = False) -> str:
    """The value as JSON. The escapes of JSON replace control characters, and with `is_ascii` all others."""
    text = json.dumps(value, indent=indent, ensure_ascii=is_ascii)
    return _JSON_CONTROL.sub(_json_escape, text)


def _json_escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\u{code:04x}" if code <= 0xFFFF else json.dumps(found[0])[1:-1]


def can_show(text: str) -> bool:
    """Whether standard output can encode this text."""
    try:
        text.encode(getattr(result_output(), "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _table(columns: Sequence[str], lines: Sequence[Sequence[object]]) -> RenderableType:
    """A table. Numbers stand on the right; the column ``status`` is coloured.

    Where a terminal is too narrow, tasks, queues and errors are cut; ids and the like never are.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for index, name in enumerate(columns):
        is_number = bool(lines) and all(isinstance(line[index], int | float) for line in lines)
        made.add_column(
            name,
            justify="right" if is_number else "left",
            overflow=("ellipsis" if can_show("…") else "crop") if name in _CUT else "fold",
            no_wrap=name in _WHOLE,
        )
    for line in lines:
        cells = [Text(safe_line(str(cell))) for cell in line]
        for name, cell in zip(columns, cells, strict=True):
            if name == "status":
                cell.stylize(STATUS_STYLES.get(cell.plain, ""))
        made.add_row(*cells)
    return made


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints a table. On a terminal that is too narrow for it, prints a paragraph for each row."""
    to = console()
    lines = [[cell if cell is not None else "" for cell in row] for row in rows]
    if to.is_terminal and _least_width(columns, lines) > to.width:
        indent = max(map(len, columns))
        for line in lines:
            for name, cell in zip(columns, line, strict=True):
                if cell != "":
                    to.print(f"{name:<{indent}} {safe_line(str(cell))}", soft_wrap=True)
            to.print()
    else:
        to.print(_table(columns, lines))


def _least_width(columns: Sequence[str], lines: Sequence[Sequence[object]]) -> int:
    """The width below which the table would cut ids, or break words."""
    widths = [max((len(str(line[index])) for line in lines), default=0) for index in range(len(columns))]
    most = [_SHORTEST_CUT if name in _CUT else _SHORTEST_FOLDED for name in columns]
    return sum(
        width + 2 if name in _WHOLE else min(width, least) + 2
        for name, width, least in zip(columns, widths, most, strict=True)
    )


def counted(number: int, noun: str) -> str:
    """``1 job``, ``1,200 jobs``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
