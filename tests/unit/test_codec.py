"""Values that can be stored: what is kept, and each refusal with its path."""

from __future__ import annotations

import itertools
import json
import math
from collections import OrderedDict, UserDict
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrq_core.contract.codec import MAX_DEPTH, JsonValue, decode, encode, storable, storable_params
from mrq_core.contract.plain import printable
from mrq_core.errors import InvalidValue, MrqError, ValueTooLarge

LIMIT = 1_000_000
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**63), max_value=2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


class Colour(IntEnum):
    RED = 1


class Word(StrEnum):
    HI = "hi"


def check(value: object) -> JsonValue:
    return storable(value, name="params", max_size=LIMIT)


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


@given(VALUES)
def test_a_storable_value_comes_back_as_it_was(value: JsonValue) -> None:
    stored = decode(encode(check(value)))
    assert repr(stored) == repr(value)


@given(VALUES)
def test_what_is_encoded_is_json(value: JsonValue) -> None:
    assert json.loads(encode(check(value))) == value


def test_the_value_is_copied() -> None:
    inner: list[object] = [1]
    checked = check({"a": inner})
    inner.append(2)
    assert checked == {"a": [1]}


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ((1, (2,)), [1, [2]]),
        (OrderedDict(a=1), {"a": 1}),
        (UserDict({"a": (1,)}), {"a": [1]}),
        (Colour.RED, 1),
        (Word.HI, "hi"),
        ({Word.HI: 1}, {"hi": 1}),
    ],
)
def test_what_is_like_a_json_value_is_stored_as_one(value: object, stored: JsonValue) -> None:
    checked = check(value)
    assert checked == stored
    assert repr(checked) == repr(stored)


def numbers() -> Iterator[int]:
    yield 1


class Thing:
    pass


@pytest.mark.parametrize(
    ("value", "path", "says"),
    [
        ({"a": {1, 2}}, "params.a", "sorted(value)"),
        ({"a": frozenset()}, "params.a", "sorted(value)"),
        ({"a": [0, b"x"]}, "params.a[1]", "base64"),
        ({"a": {"b": [[], [Thing()]]}}, "params.a.b[1][0]", "Thing"),
        ({"at": datetime(2025, 1, 1, tzinfo=UTC)}, "params.at", "isoformat"),
        ({"on": date(2025, 1, 1)}, "params.on", "isoformat"),
        ({"price": Decimal("1.5")}, "params.price", "str(value)"),
        ({"id": UUID(int=1)}, "params.id", "str(value)"),
        ({"g": numbers()}, "params.g", "list(value)"),
        ({"f": len}, "params.f", "builtin_function"),
        ({"x": math.nan}, "params.x", "finite"),
        ([math.inf], "params[0]", "finite"),
        ([-math.inf], "params[0]", "finite"),
        ({"n": 2**63}, "params.n", "is an integer of 64 bits: expected -2**63 to 2**63 - 1"),
        ({"n": -(2**63) - 1}, "params.n", "64 bits"),
        ({"n": 10**10_000}, "params.n", "64 bits"),
        ({"a": {1: 2}}, "params.a", "string keys"),
        ({None: 2}, "params", "string keys"),
        ({b"k": 2}, "params", "string keys"),
        ({"a": {"x\0y": 1}}, "params.a", "NUL"),
        ({"t": "a\ud800"}, "params.t", "surrogate"),
        ({"\udfff": 1}, "params.'\\udfff'", "surrogate"),
        (1j, "params", "complex"),
    ],
)
def test_anything_else_is_refused_with_the_path_to_it(value: object, path: str, says: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        check(value)
    assert caught.value.path == path
    assert says in str(caught.value)
    assert isinstance(caught.value, MrqError)


def test_an_error_can_be_printed_whatever_was_refused() -> None:
    for value in ({"\ud800": 1}, {"k\ud800": Thing()}, {1: 2}, "\ud800"):
        with pytest.raises(InvalidValue) as caught:
            check(value)
        printable(str(caught.value)).encode("utf-8")


def test_values_may_nest_so_deep_and_no_deeper() -> None:
    assert check(nested(MAX_DEPTH)) == nested(MAX_DEPTH)
    with pytest.raises(InvalidValue, match="levels deep"):
        check(nested(MAX_DEPTH + 1))


def test_a_value_that_contains_itself_is_refused() -> None:
    value: list[Any] = []
    value.append({"again": value})
    with pytest.raises(InvalidValue, match="contains itself") as caught:
        check(value)
    assert len(caught.value.path) <= 80


def test_the_size_counts_encoded_bytes() -> None:
    assert storable("ü" * 5, name="result", max_size=12) == "ü" * 5
    with pytest.raises(ValueTooLarge) as caught:
        storable("ü" * 6, name="result", max_size=12)
    assert (caught.value.size, caught.value.limit, caught.value.path) == (14, 12, "result")


@pytest.mark.parametrize("value", [None, [], [("a", 1)], "{}", 1])
def test_params_have_to_be_a_dict(value: object) -> None:
    with pytest.raises(InvalidValue) as caught:
        storable_params(value, max_size=LIMIT)
    assert caught.value.path == "params"


def test_params_may_be_any_mapping() -> None:
    assert storable_params(UserDict({"a": 1}), max_size=LIMIT) == {"a": 1}


@given(st.text(st.characters()))
def test_printable_text_can_be_encoded_and_has_no_nul(text: str) -> None:
    printed = printable(text)
    printed.encode("utf-8")
    assert "\0" not in printed


@given(TEXTS.filter(lambda text: "\0" not in text))
def test_printable_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


class Endless(list[int]):
    """A list whose iteration does not end."""

    def __iter__(self) -> Iterator[int]:
        return itertools.repeat(1)


class EndlessMapping(dict[str, int]):
    """A dict with other items each time, without an end."""

    def items(self) -> Any:
        return ((str(number), number) for number in itertools.count())


def doubled(value: object, times: int) -> object:
    """A small object that is large as JSON."""
    for _ in range(times):
        value = [value, value]
    return value


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "value",
    [
        doubled([0] * 10, 50), doubled({"k": 1}, 50), doubled("x" * 1_000_000, 40), {"v": Endless()},
        EndlessMapping(), ["x" * 1_000_000] * 1_000_000, ("y" * 5000,) * 100_000,
    ],
    ids=["list", "dict", "text", "endless", "endless mapping", "texts", "tuple"],
)  # fmt: skip
def test_a_value_beyond_the_limit_is_refused_before_it_is_walked_through(value: object) -> None:
    with pytest.raises(ValueTooLarge, match=r"^result takes more than 1,000,000 bytes as JSON") as caught:
        storable(value, name="result", max_size=1_000_000)
    assert caught.value.limit == 1_000_000


def test_a_value_with_as_many_bytes_as_the_limit_is_stored() -> None:
    value = [1] * 499
    assert storable(value, name="result", max_size=999) == value
    with pytest.raises(ValueTooLarge, match=r"result takes 999 bytes as JSON, and the limit is 998"):
        storable(value, name="result", max_size=998)
