"""Finds the examples in a page: its fenced blocks, and what each is for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

_FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,})(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)(?P=fence) *$", re.M | re.S
)
_TITLE = re.compile(r'title="([^"]+)"')
_BRACES = re.compile(r"\{([^}]*)\}")


class Block(NamedTuple):
    """A fenced block. `line` is where it begins in its page; a `fragment` is not run."""

    language: str
    body: str
    line: int
    title: str | None
    fragment: bool


def pages() -> list[Path]:
    """All pages of the documentation, and the README."""
    return [ROOT / "README.md", *sorted(DOCS.glob("**/*.md"))]


def name_of(page: Path) -> str:
    """The page's path in the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    for found in _FENCE.finditer(text):
        info = found["info"].strip()
        braces = _BRACES.search(info)
        classes = re.findall(r"\.([\w-]+)", braces[1]) if braces else []
        language = classes[0] if classes else info.partition(" ")[0]
        title = _TITLE.search(info)
        indent = len(found["indent"])
        body = "".join(line[indent:] if line.strip() else "\n" for line in found["body"].splitlines(True))
        yield Block(
            language=language,
            body=body,
            line=text.count("\n", 0, found.start()) + 1,
            title=title[1] if title else None,
            fragment="fragment" in classes,
        )


def prose(text: str) -> str:
    """The page without its fenced blocks, each replaced by as many empty lines."""
    return _FENCE.sub(lambda found: "\n" * found[0].count("\n"), text)


class Step(NamedTuple):
    """One command of a console block, what it has to print, and the exit code it has to have."""

    command: str
    expected: str
    code: int
    line: int


_EXIT = re.compile(r"\s+# exits with (\d+)\s*$")


def steps(block: Block) -> list[Step]:
    """The commands of a console block. Raises ValueError where output stands before the first one."""
    found: list[Step] = []
    for number, line in enumerate(block.body.splitlines(), start=block.line + 1):
        if line.startswith("$ "):
            code = _EXIT.search(line)
            command = _EXIT.sub("", line[2:])
            found.append(Step(command=command, expected="", code=int(code[1]) if code else 0, line=number))
        elif line.startswith("> "):
            found[-1] = found[-1]._replace(command=f"{found[-1].command}\n{line[2:]}")
        elif found:
            found[-1] = found[-1]._replace(expected=f"{found[-1].expected}{line}\n")
        else:
            raise ValueError(f"line {number} is the output of no command: {line!r}")
    return found


_VARYING = [
    (re.compile(r"\b[0-9a-f]{24}\b"), "<id>"),
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[.,]\d{3}Z?"), "<time>"),
    (re.compile(r"\b[a-z][\w-]*\.\d+\b", re.I), "<worker>"),
    (re.compile(r"(?<=[ =])/\S+(?=/(?:\.mrq/|mrq-config\.py))"), "<folder>"),
    (re.compile(r"\bseconds=\d+\.\d{3}\b"), "seconds=<duration>"),
    (re.compile("─+"), "─"),
]
"""What differs from run to run: ids, times, the names of workers, folders, durations, the width of tables."""
_DURATION = re.compile(r"\b\d+(?:\.\d+)? (?:ms|s|min)\b")
_HAS_DURATIONS = re.compile(r"<id>|^ +duration | paused for ")


def without_varying(text: str) -> str:
    """The output with placeholders for what differs from run to run; durations only in lines about a job."""
    for varying, placeholder in _VARYING:
        text = varying.sub(placeholder, text)
    return "\n".join(
        _DURATION.sub("<duration>", line) if _HAS_DURATIONS.search(line) else line
        for line in text.split("\n")
    )


def matches(expected: str, printed: str) -> bool:
    """Whether the output is the output that the page shows, except for ids, times and the like
    (`without_varying`).

    ``...`` stands for any number of lines if it is alone on its line, else for a part of the line. Spaces at
    the ends of lines do not count, and a run of spaces equals one space: the width of columns may differ.
    """
    expected, printed = without_varying(expected), without_varying(printed)
    parts = []
    for line in expected.rstrip().splitlines():
        if line.strip() == "...":
            parts.append(r"(?:[^\n]*\n)*?")
        else:
            text = re.escape(line.rstrip()).replace(r"\.\.\.", r"[^\n]*")
            parts.append(re.sub(r"(?:\\ )+", " +", text) + r"[ \t]*\n")
    stripped = printed.strip("\n")
    return re.fullmatch("".join(parts), stripped + "\n" if stripped else "") is not None
