"""The errors: they survive a copy and a pickle, and show any value in bounded length."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest

from mrq_core import errors
from mrq_core.errors import MrqError, on_one_line, shown, shown_error, without_controls


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Recursive:
    def __repr__(self) -> str:
        return repr(self)


class Long(list[int]):
    def __repr__(self) -> str:
        return "\udc00\n\0" * 100_000


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


ARGUMENTS: dict[str, Any] = {
    "path": "params.n", "size": 5, "limit": 3, "wanted": "x", "installed": ("a",), "job_id": "a" * 24,
    "found": 2, "supported": 1, "part": "status", "start": 1, "end": 2, "suggestions": ("status",),
}  # fmt: skip
KINDS = [kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, MrqError)]


def example(kind: type[MrqError]) -> MrqError:
    names = list(inspect.signature(kind.__init__).parameters)
    facts = {name: ARGUMENTS[name] for name in names if name in ARGUMENTS}
    made: MrqError = kind(**facts) if names[1] in facts else kind("the message", **facts)
    made.add_note("a note")
    return made


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("redis://:hush@h", "redis://:***"),
        (
            "(see mongodb://me:hush@h1:1,h2/x), then http://h:80/a:b",
            "(see mongodb://me:*** then http://h:80/a:b",
        ),
        ("redis://:***@h:1, http://[::1]:5, unix:///a:b", "redis://:***@h:1, http://[::1]:5, unix:///a:b"),
    ],
)
def test_messages_show_no_passwords_of_urls(text: str, safe: str) -> None:
    assert shown(text) == repr(safe)
    assert shown_error(ValueError(text)) == f"ValueError: {safe}"


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_survives_a_pickle_and_a_copy(kind: type[MrqError]) -> None:
    error = example(kind)
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(other) is kind
        assert (str(other), other.args, vars(other)) == (str(error), error.args, vars(error))
        assert other.__notes__ == ["a note"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        ("it's", '"it\'s"'),
        ("a\nb\0\udcff", r"'a\nb\x00\udcff'"),
        (2**70, str(2**70)),
        pytest.param(10**100_000, "an integer of 332193 bits", id="huge"),
        ({"a": [1, {2}]}, "{'a': [1, {2}]}"),
        ([1, 2, 3, 4, 5, 6, 7, 8], "[1, 2, 3, 4, 5, 6, ...]"),
        (float("nan"), "nan"),
    ],
)
def test_a_value_is_shown_as_python_writes_it(value: object, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize(
    "value",
    [Unshowable(), [Unshowable()], {Unshowable(): 1}, Recursive(), Long(), "x" * 10**7, b"x" * 10**7,
     [["x" * 1000] * 1000] * 1000, {n: n for n in range(10_000)}, 2**255],
)  # fmt: skip
def test_any_value_is_shown_on_one_line_of_bounded_length(value: object) -> None:
    text = shown(value)
    assert 0 < len(text) <= 1000
    assert "\n" not in text
    assert "\0" not in text
    text.encode()


def test_an_error_without_a_text_is_shown_too() -> None:
    assert shown_error(ValueError("bad\nvalue")) == "ValueError: bad value"
    assert shown_error(KeyError()) == "KeyError"
    assert shown_error(Unspeakable()) == "Unspeakable: <its text fails>"
    assert len(shown_error(ValueError("x" * 10**6))) == 1000


def test_no_text_for_people_holds_what_they_cannot_see() -> None:
    unseen = (
        *("\xad", "\u061c", "\u180e", "\u200b", "\u200e", "\u200f", "\u2060", "\u2064", "\u206f", "\ufeff"),
        *("\u202a", "\u202e", "\u2066", "\u2069", "\ufff9", "\U000e0041", "\x1b", "\x9b", "\udcff"),
    )
    for letter in unseen:
        code = ord(letter)
        escape = f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
        assert without_controls(f"a{letter}b\n") == f"a{escape}b\n"
        assert on_one_line(f"a{letter}b") == f"a{escape}b"
    for text in ("größe\t\n", "می\u200cشود", "👨\u200d👩\u200d👧", "❤\ufe0f", "שלום"):
        assert without_controls(text) == text


@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_interrupt_keeps_its_facts_in_a_copy(again: Any) -> None:
    interrupt = errors.RetryInterrupt(delay=3.0, max_retries=2, queue="mail")
    interrupt.asked_by = ("a" * 24, 1)
    copied = again(interrupt)
    assert (type(copied), copied.args, vars(copied)) == (
        errors.RetryInterrupt,
        interrupt.args,
        vars(interrupt),
    )
