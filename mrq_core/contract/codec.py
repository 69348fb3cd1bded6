"""Values that can be stored: the JSON values, checked and copied.

Params and results are dicts with string keys, lists, strings, 64-bit integers, finite floats,
booleans and None. A tuple is stored as a list. Anything else is refused, with the path to the
value, so that a job has the same record on every broker.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import msgspec

from mrq_core.contract.plain import is_mapping, names_of_class
from mrq_core.contract.signal_errors import raised_by_handler
from mrq_core.errors import InvalidValue, ValueTooLarge, shown, shown_error, type_name

if TYPE_CHECKING:
    JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
    _Path: TypeAlias = "str | tuple[_Path, object]"
    """The path to a value, which becomes text only for an error."""
else:
    JsonValue = Any  # msgspec cannot read a recursive alias
JsonObject: TypeAlias = dict[str, JsonValue]
T = TypeVar("T")

MAX_DEPTH = 64
"""The deepest nesting of values. MongoDB allows 100 levels for a whole document."""

_LONG = 4096
"""Characters of a text that is counted, because a value may have the same text many times."""
_LONGEST_PATH = 80
"""The most characters of a path to a value, or of a key in it, in a message."""

_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1
_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[JsonValue] = msgspec.json.Decoder()
_object_decoder: msgspec.json.Decoder[JsonObject] = msgspec.json.Decoder(dict)

_HINTS = {
    "datetime": "store value.isoformat() or value.timestamp()",
    "date": "store value.isoformat()",
    "Decimal": "store str(value) or float(value)",
    "UUID": "store str(value)",
    "ObjectId": "store str(value)",
    "set": "store sorted(value)",
    "frozenset": "store sorted(value)",
    "bytes": "store base64.b64encode(value).decode()",
    "generator": "store list(value)",
    "coroutine": "write def instead of async def, or store asyncio.run(value)",
}


def encode(value: JsonValue) -> bytes:
    """Encodes a value that `storable` returned as JSON, in UTF-8."""
    return _encoder.encode(value)


def decode(data: bytes | str) -> JsonValue:
    """Decodes a value that `encode` wrote."""
    return _decoder.decode(data)


def decode_object(data: bytes | str) -> JsonObject:
    """Decodes a dict that `encode` wrote, such as params."""
    return _object_decoder.decode(data)


def parsed(text: str, *, name: str) -> JsonValue:
    """Decodes JSON that a user typed. Errors call the value by `name`.

    Raises msgspec.DecodeError for a text that is not JSON, and InvalidValue for JSON that no job can store or
    that names a key of an object twice.
    """
    try:
        value = _decoder.decode(text)
        refuse_repeated_keys(text, name=name)
        return value
    except RecursionError:
        reason = f"is nested more than {MAX_DEPTH} levels deep: store it flatter"
    except msgspec.ValidationError:
        reason = "has a number that 64 bits cannot hold: store it as a string"
    except msgspec.DecodeError:
        if not _is_json(text):
            raise
        reason = "has a lone surrogate, which UTF-8 cannot hold: store the bytes it came from in base64"
    raise InvalidValue(f"{name} {reason}", path=name)


def fault_in(text: str, error: msgspec.DecodeError) -> str:
    """Where a text is no JSON, by position. Does not repeat the text, which may have secrets."""
    fault = str(error)
    return fault if "(byte " in fault else f"{fault} (after {len(text.encode(errors='replace')):,} bytes)"


def refuse_repeated_keys(text: str, *, name: str) -> None:
    """Raises InvalidValue, which calls the value by `name`, for JSON with an object that names a key twice.
    Decoders keep the last value of such a key."""

    def refuse(pairs: list[tuple[str, object]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise InvalidValue(
                    f"{name} has the key {shown(key)} twice: expected each key once", path=name
                )
            seen.add(key)

    if '"' in text:
        json.loads(text, object_pairs_hook=refuse, parse_int=str, parse_float=str)


def _is_json(text: str) -> bool:
    """Whether the text is JSON by its grammar, which allows the escapes of lone surrogates."""
    try:
        json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(constant: str) -> JsonValue:
    """Refuses NaN and Infinity, which are not JSON."""
    raise ValueError(constant)


def copied(value: JsonObject) -> JsonObject:
    """A deep copy of a stored dict."""
    return _object_decoder.decode(_encoder.encode(value))


def is_equal(one: JsonValue, other: JsonValue) -> bool:
    """Compares JSON values: true differs from 1, unlike in Python, and 1 equals 1.0."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_equal(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_equal, one, other))
    return one == other


def has_values(stored: JsonValue, wanted: JsonObject) -> bool:
    """Whether a stored dict contains these names with these values."""
    return isinstance(stored, dict) and all(
        name in stored and is_equal(stored[name], value) for name, value in wanted.items()
    )


def storable(value: object, *, name: str, max_size: int) -> JsonValue:
    """A deep copy of the value that consists of JSON values.

    Errors call the value by `name` (``params``, ``result``); `max_size` limits its encoded size in bytes.
    Raises InvalidValue or ValueTooLarge, whose `size` is the least that the value may have if it has more
    values than the limit has bytes.
    """
    try:
        # Each value takes at least a byte: what is larger than the limit is not walked through.
        checked = _checked(value, name, 0, [max_size])
    except _TooMany:
        raise ValueTooLarge(
            f"{name} takes more than {max_size:,} bytes as JSON, which is the limit: "
            "store the data elsewhere and pass a reference to it",
            path=name,
            size=max_size + 1,
            limit=max_size,
        ) from None
    except (InvalidValue, MemoryError):
        raise
    except Exception as error:  # code of a subclass of dict, list, str or a number
        if raised_by_handler(error) is not None:
            raise
        raise InvalidValue(
            f"{name} cannot be read, reading it raised {shown_error(error)}: expected JSON values", path=name
        ) from error
    size = len(_encoder.encode(checked))
    if size > max_size:
        raise ValueTooLarge(
            f"{name} takes {size:,} bytes as JSON, and the limit is {max_size:,}: "
            "store the data elsewhere and pass a reference to it",
            path=name,
            size=size,
            limit=max_size,
        )
    return checked


def storable_params(value: object, *, max_size: int) -> JsonObject:
    """A deep copy of the params of a job. Raises InvalidValue unless they are a storable dict."""
    if not is_mapping(value):
        raise InvalidValue(
            f"params is of type {_type_name(value)}: expected a dict of named values", path="params"
        )
    checked = storable(value, name="params", max_size=max_size)
    assert isinstance(checked, dict)
    return checked


class _TooMany(Exception):
    """More values than the limit has bytes."""


def _checked(value: object, path: _Path, depth: int, room: list[int]) -> JsonValue:
    """`room` has one item: how many more values there may be."""
    kind = type(value)
    if value is None or kind is bool:
        return value  # type: ignore[return-value]
    if isinstance(value, str):
        if str.__len__(value) > _LONG:
            _take(str.__len__(value), room)
        if kind is str and value.isascii():
            return value
        return _checked_text(str.__str__(value), path)
    if isinstance(value, int):
        if kind is not int:
            value = int.__int__(value)  # the methods of a subclass may tell another number
        if not _INT_MIN <= value <= _INT_MAX:
            where = _text_of(path)
            raise InvalidValue(
                f"{where} is an integer of {value.bit_length()} bits: expected -2**63 to 2**63 - 1, "
                "or 64 bits with the sign; store it as a string",
                path=where,
            )
        return value
    if isinstance(value, float):
        if kind is not float:
            value = float.__float__(value)
        if not math.isfinite(value):
            where = _text_of(path)
            raise InvalidValue(
                f"{where} is {float(value)}: expected a finite number; store None or a string instead",
                path=where,
            )
        return value
    if depth >= MAX_DEPTH:
        where = _text_of(path)
        raise InvalidValue(
            f"{where} is nested more than {MAX_DEPTH} levels deep (or contains itself): store it flatter",
            path=where,
        )
    if isinstance(value, (dict, Mapping)):
        pairs = value.items() if kind is dict else _first_of(value.items(), room)
        _take(len(pairs), room)
        return {checked_key(key, path): _checked(item, (path, key), depth + 1, room) for key, item in pairs}
    if isinstance(value, (list, tuple)):
        items = value if kind is list else _first_of(value, room)
        _take(len(items), room)
        return [_checked(item, (path, index), depth + 1, room) for index, item in enumerate(items)]
    hint = _HINTS.get(type_name(kind))
    where = _text_of(path)
    raise InvalidValue(
        f"{where} is of type {_type_name(value)}, which JSON cannot hold: expected None, a bool, an int, "
        f"a float, a str, a list or a dict" + (f"; {hint}" if hint else ""),
        path=where,
    )


def _take(number: int, room: list[int]) -> None:
    """Makes room for as many values, or as many characters of a text."""
    room[0] -= number
    if room[0] < 0:
        raise _TooMany


def _first_of(values: Iterable[T], room: list[int]) -> list[T]:
    """The values of a container with other code than Python's, which may not end."""
    return list(islice(values, room[0] + 1))


def _checked_text(text: str, path: _Path) -> str:
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        where = _text_of(path)
        raise InvalidValue(
            f"{where} has a lone surrogate at character {error.start}, which UTF-8 cannot hold: "
            "store the bytes it came from in base64",
            path=where,
        ) from error
    return text


def checked_key(key: object, path: _Path) -> str:
    """The key of a dict at this path as a plain text. Raises InvalidValue for a key that JSON cannot hold."""
    if type(key) is str and key.isascii() and "\0" not in key:
        return key
    if not isinstance(key, str):
        where = _text_of(path)
        raise InvalidValue(
            f"{where} has the key {shown(key)} of type {_type_name(key)}: expected string keys", path=where
        )
    text = str.__str__(key)
    if "\0" in text:
        where = _text_of(path)
        raise InvalidValue(f"{where} has the key {shown(text)}, which contains a NUL character", path=where)
    return _checked_text(text, (path, shown(text)))


def _text_of(path: _Path) -> str:
    """The path as text: ``params.items[3]``. A long path or key is cut."""
    parts: list[str] = []
    while isinstance(path, tuple):
        path, step = path
        if type(step) is int:
            parts.append(f"[{step}]")
        else:
            key = str.__str__(step) if isinstance(step, str) else shown(step)
            parts.append(f".{key}" if len(key) <= _LONGEST_PATH and key.isprintable() else f".{shown(key)}")
    text = path + "".join(reversed(parts))
    return text if len(text) <= _LONGEST_PATH else f"{text[: _LONGEST_PATH - 3]}..."


def _type_name(value: object) -> str:
    module, name = names_of_class(type(value))
    return name if module == "builtins" else f"{module}.{name}"
