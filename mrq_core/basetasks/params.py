"""Reads the params of maintenance tasks. `mrq run` gives texts, which are converted as for typed tasks.

What does not fit raises InvalidParams, as with typed tasks: one sentence that names the param.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import msgspec

from mrq_core.clock import from_ms
from mrq_core.config.secrets import hide_secrets
from mrq_core.contract.codec import JsonObject, fault_in, parsed
from mrq_core.contract.naming import MAX_SECONDS
from mrq_core.contract.plain import number_of, text_of
from mrq_core.errors import InvalidParams, InvalidValue, shown


@contextmanager
def reading_params() -> Iterator[None]:
    """For checks that are shared with other callers: turns their InvalidValue into InvalidParams."""
    try:
        yield
    except InvalidValue as error:
        raise InvalidParams(str(error)) from error


def refuse_others(params: JsonObject, *names: str) -> None:
    """Raises InvalidParams for a param with another name."""
    for name in params:
        if name not in names:
            raise InvalidParams(f"{shown(name)} is no param: expected some of {', '.join(names)}")


def is_dry(params: JsonObject) -> bool:
    """The param `dry_run`: a boolean, 1 or 0, or the text of one of them. Raises InvalidParams."""
    value = params.get("dry_run", False)
    try:
        return msgspec.convert(value, bool, strict=False)
    except msgspec.ValidationError:
        raise InvalidParams(f"dry_run is {shown(value)}: expected true or false") from None


def seconds_in(params: JsonObject, name: str, default: float) -> float:
    """A param that is a duration in seconds, as a number or its text. Raises InvalidParams."""
    value = params.get(name, default)
    seconds = _number_in(value)
    if seconds is None or not 0 <= seconds <= MAX_SECONDS:
        raise InvalidParams(f"{name} is {shown(value)}: expected seconds, from 0 to {MAX_SECONDS:.0e}")
    return seconds


def moment_in(params: JsonObject, name: str) -> datetime | None:
    """A param that is a time: Unix seconds, also as text, or ISO 8601 with a zone. Raises InvalidParams."""
    value = params.get(name)
    if value is None:
        return None
    try:
        seconds = _number_in(value)
        if seconds is not None:
            return from_ms(round(seconds * 1000))
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        if moment is not None and moment.tzinfo is not None:
            return moment
    except (ValueError, OverflowError):
        pass
    raise InvalidParams(
        f"{name} is {shown(value)}: expected Unix seconds, or a time such as '2026-01-31T12:00:00+00:00'"
    )


def texts_in(params: JsonObject, name: str) -> tuple[str, ...]:
    """A param that is a text with one or more values between commas, or a list of values. Raises
    InvalidParams, also for an empty list and an empty value: without them a filter matches more jobs."""
    value = params.get(name)
    if value is None:
        return ()
    items = value if isinstance(value, list) else (text_of(value) or "").split(",")
    texts = [text_of(item) or "" for item in items]
    if not isinstance(value, list):
        texts = [text.strip() for text in texts]
    if not texts or not all(texts):
        raise InvalidParams(f"{name} is {shown(value)}: expected text, or a list of texts")
    return tuple(dict.fromkeys(texts))


def object_in(params: JsonObject, name: str) -> JsonObject:
    """A param that is a JSON object with a value, or the text of one; empty if it is not given. Raises
    InvalidParams, and InvalidValue for a key that is given twice."""
    value = given = params.get(name)
    if isinstance(given, str):
        try:
            value = parsed(given, name=name)
        except msgspec.DecodeError as error:
            raise InvalidParams(f"{name} is not valid JSON: {fault_in(given, error)}") from error
    if given is None:
        return {}
    if not isinstance(value, dict) or not value:
        raise InvalidParams(
            f"{name} is {shown(hide_secrets('', value))}: expected a JSON object with a value, because an "
            "empty one matches all jobs"
        )
    return value


def _number_in(value: object) -> float | None:
    """The number, also of a text. None: it is no number."""
    number = number_of(value)
    if number is None and isinstance(value, str):
        try:
            return msgspec.convert(value, float, strict=False)
        except msgspec.ValidationError:
            return None
    return number
