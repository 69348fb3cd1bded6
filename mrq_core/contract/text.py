"""Text that UTF-8 can encode. `mrq_core.errors` has the functions for text on terminals."""

from __future__ import annotations


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
