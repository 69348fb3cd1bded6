"""Text for logs, terminals and messages, without characters that these cannot show."""

from __future__ import annotations

import re

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with lone surrogates, which UTF-8 cannot encode, and NUL written as escapes."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


def is_utf8(text: str) -> bool:
    """Whether UTF-8 can encode the text: it has no lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def without_controls(text: str) -> str:
    """The text as a terminal can print it. Control characters except line ends and tabs, characters that
    reorder text, and lone surrogates become escapes."""
    return _CONTROL.sub(_escape, text)


def on_one_line(text: str) -> str:
    """The text without line ends, tabs and characters that a terminal obeys."""
    if text.isprintable():
        return text
    return without_controls(" ".join(text.splitlines()).replace("\t", " "))


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
