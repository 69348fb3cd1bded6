"""The text of exceptions in records: the frames of the task, and none of ours."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from mrq_core import Task, task
from mrq_core.config.settings import Config
from mrq_core.contract.codec import JsonObject
from mrq_core.contract.messages import Outcome
from mrq_core.contract.plain_tracebacks import error_type
from mrq_core.contract.terms import MESSAGE_LIMIT
from mrq_core.plugins.manager import Plugins
from mrq_core.worker.executing import Runner
from mrq_core.worker.guards.tracebacks import format_traceback, headline
from tests.worker.records import execution


class Odd(Exception):
    """Cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("cannot be shown")


class Fails(Task):
    def run(self, params: object) -> None:
        raise ValueError("from a class")


@task
def fails() -> None:
    try:
        raise LookupError("the cause")
    except LookupError as error:
        raise ValueError("from a function") from error


@task
def is_odd() -> None:
    raise Odd


def _parsed(text: str) -> object:
    return json.loads(text)


@task
def reads_json() -> None:
    _parsed("")


@task
def returns_what_cannot_be_stored() -> object:
    return object()


class Later(Task):
    async def run(self, params: JsonObject) -> int:
        return 1


@task
def says_much() -> None:
    raise ValueError("ä\0" * 10_000)


def ended(name: str) -> Outcome:
    config = Config()
    return Runner(config, Plugins(config)).run(execution(f"{__name__}.{name}").context)


def frames_of(text: str | None) -> list[str]:
    """Where each frame is: the file's name and the function's."""
    found = re.findall(r'^  File ".*/([^/]+)", line \d+, in (.+)$', text or "", re.MULTILINE)
    return [f"{file}:{function}" for file, function in found]


@pytest.mark.parametrize(("name", "function"), [("Fails", "run"), ("fails", "fails"), ("is_odd", "is_odd")])
def test_a_traceback_begins_with_the_frame_of_the_task(name: str, function: str) -> None:
    text = ended(name).traceback
    assert frames_of(text)[-1:] == [f"test_tracebacks.py:{function}"]
    assert {frame.partition(":")[0] for frame in frames_of(text)} == {"test_tracebacks.py"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("returns_what_cannot_be_stored", "result is of type object, which JSON cannot hold"),
        ("Later", "write def instead of async def, or store asyncio.run(value)"),
    ],
)
def test_a_result_that_cannot_be_stored_is_told_without_frames_of_mrq(name: str, said: str) -> None:
    text = ended(name).traceback or ""
    assert frames_of(text) == []
    assert said in text


def test_the_exception_before_has_its_own_traceback() -> None:
    outcome = ended("fails")
    assert (outcome.exception_type, frames_of(outcome.original_traceback)) == (
        "ValueError",
        ["test_tracebacks.py:fails"],
    )
    assert (outcome.original_traceback or "").endswith("LookupError: the cause\n")


def test_an_exception_that_cannot_be_shown_ends_its_job_all_the_same() -> None:
    outcome = ended("is_odd")
    assert outcome.exception_type == f"{__name__}.Odd"
    assert "<exception str() failed>" in (outcome.traceback or "")


def test_a_long_traceback_loses_its_middle() -> None:
    text = format_traceback(ValueError("a" * 100_000 + "the end"))
    assert text.startswith("ValueError: aaa")
    assert text.endswith("aaathe end\n")
    assert "\n  ... cut ...\n" in text
    assert len(text) < 81_000


def test_the_group_of_an_exception_is_its_task_its_type_and_the_frame_that_raised_it() -> None:
    path = f"{__name__}.reads_json"
    first, second = ended("reads_json"), ended("reads_json")
    assert first.exception_message == "Expecting value: line 1 column 1 (char 0)"
    assert first.error_group == f"{path} json.decoder.JSONDecodeError {__name__}:_parsed"
    assert second.error_group == first.error_group
    assert ended("fails").error_group == f"{__name__}.fails ValueError {__name__}:fails"
    assert ended("no_such_task").error_group == f"{__name__}.no_such_task mrq_core.errors.TaskNotFound"


def test_the_group_of_a_task_of_mrq_has_its_own_frame() -> None:
    path = "mrq_core.cli.demo_tasks.read_text"
    made = execution(path, text="print line", name="old")
    outcome = Runner(Config(), Plugins(Config())).run(made.context)
    assert outcome.error_group == f"{path} SyntaxError mrq_core.cli.demo_tasks:_facts"


def test_a_message_that_is_long_or_fails_is_bounded() -> None:
    assert len(ended("says_much").exception_message or "") == MESSAGE_LIMIT
    assert ended("is_odd").exception_message == "<exception str() failed>"


def noted(error: Exception, *notes: str) -> Exception:
    for note in notes:
        error.add_note(note)
    return error


def grouped() -> Exception:
    return ExceptionGroup("several", [ValueError("first"), noted(KeyError("second"), "a note")])


HEADLINES: dict[str, tuple[Callable[[], Exception], str]] = {
    "plain": (lambda: ValueError("bad"), "ValueError: bad"),
    "no message": (lambda: ValueError(), "ValueError"),
    "lines": (lambda: ValueError("first\nValueError: second\nthird"), "ValueError: first"),
    "notes": (lambda: noted(ValueError("bad"), "ValueError: a note", "another"), "ValueError: bad"),
    "group": (grouped, "ExceptionGroup: several (2 sub-exceptions)"),
    "module": (lambda: Odd(), f"{__name__}.Odd: <exception str() failed>"),
    "long": (lambda: ValueError("x" * 100_000), "ValueError: " + "x" * 50),
    "many": (lambda: ExceptionGroup("many", [ValueError("bad")] * 200),
             "ExceptionGroup: many (200 sub-exceptions)"),
    "syntax": (lambda: SyntaxError("bad", ("file", 1, 1, "ValueError: code")), "SyntaxError: bad"),
}  # fmt: skip


@pytest.mark.parametrize("is_raised", [True, False])
@pytest.mark.parametrize("name", HEADLINES)
def test_a_headline_is_the_type_and_the_first_line_of_the_message(name: str, is_raised: bool) -> None:
    make, expected = HEADLINES[name]
    error = make()
    if is_raised:
        try:
            try:
                raise noted(type(error)("an earlier one") if name == "plain" else LookupError("x"), "a note")
            except Exception as cause:
                raise error from cause
        except Exception as raised:
            error = raised
    found = headline(format_traceback(error), error_type(error))
    assert found.startswith(expected)
    assert found == expected or name == "long"


def test_a_headline_is_the_type_where_the_text_lacks_it() -> None:
    assert headline(None, "ValueError") == headline("cut", "ValueError") == "ValueError"
