"""Descriptions of tasks: what they have, and that hostile tasks do no harm."""

import enum
from typing import Annotated, Any, Literal

import msgspec
import pytest

from mrq_core import Task, task
from mrq_core.config.sources import load_config
from mrq_core.contract.messages import Limit
from mrq_core.tasks.describing import LARGEST, ArgumentDescription, TaskDescription, describe
from mrq_core.tasks.loading import resolve_options
from mrq_core.tasks.task import path_of
from tests.client import described as late_tasks


class Colour(enum.Enum):
    RED = 1


class Order(msgspec.Struct):
    id: int
    lines: list[str]


@task(
    queue="mail", timeout=30, retry_on=(ConnectionError,), searchable=("to",), limits={"api": Limit(rate=5)}
)
def send(
    to: str,
    order: Order,
    copies: int = 1,
    colour: Colour = Colour.RED,
    kind: Literal["a", 2] = "a",
    tags: tuple[str, ...] | None = None,
    api_token: str = "hush",
    limit: Annotated[int, msgspec.Meta(ge=1)] = 5,
    anything: Any = object,
    **more: Any,
) -> None:
    """Sends a mail.

    Twice, if needed.
    """


class Import(Task):
    """Imports a file."""

    isolate = True
    every = 60

    def run(self, params: Any) -> None:
        pass


def described(one: Any, **more: Any) -> TaskDescription:
    task_class = getattr(one, "task_class", one)
    return describe(resolve_options(path_of(one), task_class, load_config()), **more)


def arguments_of(one: Any, **more: Any) -> dict[str, ArgumentDescription]:
    return {argument.name: argument for argument in described(one, **more).arguments or ()}


def test_a_function_is_described_with_its_arguments() -> None:
    task = described(send, version="1.2")
    assert (task.path, task.version, task.takes_more) == (f"{__name__}.send", "1.2", True)
    assert task.doc == "Sends a mail.\n\nTwice, if needed."
    assert task.file == __file__
    assert task.line > 1
    found = arguments_of(send)
    assert [argument.name for argument in found.values() if argument.required] == ["to", "order"]
    assert {name: argument.type for name, argument in found.items()} == {
        "to": "str", "order": "Order", "copies": "int", "colour": "Colour", "kind": '"a" | 2',
        "tags": "tuple[str, ...] | None", "api_token": "str", "limit": "int", "anything": "any",
    }  # fmt: skip
    assert found["limit"].schema == {"type": "integer", "minimum": 1}
    assert found["order"].schema is not None
    assert "lines" in str(found["order"].schema)
    assert (found["copies"].default, found["colour"].default_text) == (1, "Colour.RED")
    assert (found["tags"].default, found["tags"].default_text) == (None, None)
    assert (found["api_token"].default, found["anything"].default_text) == ("***", "object")


def test_options_are_the_resolved_options() -> None:
    options = described(send).options
    assert (options["queue"], options["timeout"], options["retry_on"]) == ("mail", 30, ["ConnectionError"])
    assert options["searchable"] == ["to"]
    assert options["limits"] == {"api": {"concurrency": None, "rate": 5.0, "per": 1.0}}
    assert options["max_retries"] == load_config().default_job_max_retries
    imported = described(Import)
    assert (imported.arguments, imported.doc) == (None, "Imports a file.")
    assert (imported.options["isolate"], imported.options["every"]) == (True, 60)
    assert (imported.file, imported.line > 1) == (__file__, True)


def test_annotations_that_are_text_are_evaluated_only_if_asked() -> None:
    words = {name: argument.type for name, argument in arguments_of(late_tasks.late).items()}
    assert words == {"number": "int", "names": "list[str] | None"}
    assert arguments_of(late_tasks.late)["number"].schema is None
    assert arguments_of(late_tasks.late, evaluates=True)["number"].schema == {"type": "integer"}
    assert arguments_of(late_tasks.late)["number"].schema == {"type": "integer"}, "a job has run since"
    for evaluates in (False, True):
        assert arguments_of(late_tasks.missing, evaluates=evaluates)["price"].type == "Decimal"


HOSTILE = """
def hostile(*arguments):
    raise SystemExit("hostile")

class Hostile:
    __repr__ = __str__ = __bool__ = __eq__ = __hash__ = __iter__ = __len__ = __getattr__ = hostile
    __class__ = property(hostile)

class HostileText(str):
    __getitem__ = __len__ = encode = isascii = hostile

class Meta(type):
    __repr__ = __str__ = __eq__ = __getattr__ = hostile
    __hash__ = type.__hash__

class Odd(metaclass=Meta):
    pass

def work(one: Hostile() = Hostile(), two=HostileText("x"), three=[Hostile()], four=Odd, five: Odd = 5):
    pass
"""


def test_hostile_values_are_described_by_their_types() -> None:
    scope: dict[str, Any] = {"__name__": __name__}
    exec(HOSTILE, scope)
    found = arguments_of(task(scope["work"]))
    assert {name: argument.default_text for name, argument in found.items()} == {
        "one": "<Hostile>", "two": "<HostileText>", "three": "<list>", "four": "Odd", "five": None,
    }  # fmt: skip
    assert (found["one"].type, found["five"].type, found["five"].default) == ("Hostile", "Odd", 5)
    made = type("Made", (Task,), {"__doc__": scope["Hostile"](), "__module__": __name__})
    assert described(made).doc == ""


def test_a_description_is_bounded() -> None:
    source = ", ".join(f"argument_{number}: 'int' = 'default {number} {'x' * 150}'" for number in range(500))
    scope: dict[str, Any] = {}
    exec(f"def work({source}):\n    pass", scope)
    work = scope["work"]
    work.__module__, work.__doc__ = __name__, "word\0 " * 1_000_000
    found = described(task(work))
    assert len(msgspec.json.encode(found)) <= LARGEST
    assert 0 < len(found.doc) <= 2000
    assert found.arguments
    assert "the task has 500 arguments; the first 100 are shown" in found.notices
    assert "the defaults are left out" in found.notices


def test_deep_and_large_defaults_are_cut_or_named() -> None:
    endless: list[Any] = []
    endless.append(endless)

    scope: dict[str, Any] = {"__name__": __name__, "endless": endless}
    source = "one=endless, two={'a': ['x' * 10_000]}, three=float('nan'), four=2**70, five=(1, 2)"
    exec(f"def work({source}):\n    pass", scope)
    found = arguments_of(task(scope["work"]))
    assert found["one"].default_text == "<list>"
    assert found["two"].default == {"a": ["x" * 200]}
    assert (found["three"].default_text, found["four"].default_text) == ("<float>", "<int>")
    assert found["five"].default == [1, 2]


@pytest.mark.parametrize("doc", [None, 5])
def test_a_doc_that_is_no_text_is_left_out(doc: object) -> None:
    assert described(type("Made", (Task,), {"__doc__": doc, "__module__": __name__})).doc == ""
