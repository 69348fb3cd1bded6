"""How numbers, sizes, durations and values look on a page."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from markupsafe import escape

from mrq_core.clock import period_words, span_words
from mrq_core.contract.codec import JsonValue
from mrq_core.operations.explaining.reasons import quoted
from mrq_core.operations.views import seconds

_UNITS = ("B", "KB", "MB", "GB", "TB")
_SHORT = ((1_000_000_000, "G"), (1_000_000, "M"), (10_000, "k"))


def number(value: float | None) -> str:
    """``1,234,567``; an empty text for None."""
    return "" if value is None else f"{value:,.0f}"


def short_number(value: float | None) -> str:
    """``1,234``, ``12.3k``, ``4.5M``."""
    if value is None:
        return ""
    for size, unit in _SHORT:
        if abs(value) >= size:
            return f"{value / (1000 if unit == 'k' else size):.3g}{unit}"
    return number(value)


def rate(value: float | None) -> str:
    """A rate per second: ``0.25/s``, ``12/s``."""
    return "" if value is None else f"{value:,.0f}/s" if value >= 10 else f"{value:.2g}/s" if value else "0/s"


def percent(value: float | None) -> str:
    """A ratio as ``12 %``; below one percent ``0.3 %``."""
    if value is None:
        return ""
    return f"{value * 100:.0f} %" if value == 0 or value >= 0.0095 else f"{value * 100:.1g} %"


def size(value: float | None) -> str:
    """A number of bytes: ``12 KB``, ``3.4 MB``."""
    if value is None:
        return ""
    for unit in _UNITS:
        if abs(value) < 1000 or unit == _UNITS[-1]:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("the last unit has no upper bound")


def relative(value: float) -> str:
    """A number of seconds from now: ``3 min ago``, ``in 2 h``, ``now``."""
    words = seconds(abs(value)) if abs(value) >= 1 else "now"
    return words if words == "now" else f"in {words}" if value > 0 else f"{words} ago"


def json_text(value: JsonValue) -> str:
    """The value as indented JSON, exact for integers of 64 bits."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


class Bounded(NamedTuple):
    """The first characters of a text, and the number of characters that are left out."""

    text: str
    left_out: int


def bounded(value: str, most: int = 20_000) -> Bounded:
    """The first characters of a text: a page has room for some of a megabyte."""
    return Bounded(value[:most], max(0, len(value) - most))


def json_line(value: JsonValue) -> str:
    """The value as JSON on one line."""
    return msgspec.json.encode(value).decode()


def json_source(value: JsonValue) -> str:
    """The value as JSON text for a field that a person edits. Characters that a page shows as escapes are
    escapes of JSON, so that the text means the same value."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    if all(letter.isprintable() or letter == "\n" for letter in text):
        return text
    return "".join(one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in text)


FILTERS: dict[str, Callable[..., Any]] = {
    "number": number,
    "short_number": short_number,
    "rate": rate,
    "percent": percent,
    "size": size,
    "duration": seconds,
    "period": period_words,
    "span": span_words,
    "json_text": json_text,
    "bounded": bounded,
    "shell": quoted,
    "json_line": json_line,
    "exact": escape,
}
