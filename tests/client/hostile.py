"""Tasks and values whose own code raises: their hash, their comparison, or the code of their metaclass."""

from __future__ import annotations

from typing import Any, NoReturn

from mrq_core.contract.codec import JsonObject
from mrq_core.tasks.options import TaskOptions
from mrq_core.tasks.task import Task, TaskFunction


def fail(*args: object, **more: object) -> NoReturn:
    raise RuntimeError("code of the value")


class WithoutHash(type):
    """A comparison without a hash: Python cannot hash the classes."""

    def __eq__(cls, other: object) -> bool:
        return cls is other


class FailingHash(type):
    __hash__ = fail


class FailingComparison(type):
    __eq__ = fail

    def __hash__(cls) -> int:
        return 1


class FailingNames(type):
    def __getattribute__(cls, name: str) -> Any:
        if name in ("__name__", "__qualname__", "__module__"):
            fail()
        return type.__getattribute__(cls, name)


class Unhashable(Task, metaclass=WithoutHash):
    queue = "odd"

    def run(self, params: JsonObject) -> None:
        return None


class FailsToHash(Task, metaclass=FailingHash):
    queue = "odd"

    def run(self, params: JsonObject) -> None:
        return None


class FailsToCompare(Task, metaclass=FailingComparison):
    queue = "odd"

    def run(self, params: JsonObject) -> None:
        return None


class Nameless(Task, metaclass=FailingNames):
    queue = "odd"

    def run(self, params: JsonObject) -> None:
        return None


class OddFunction(TaskFunction[[], None]):
    __hash__ = __eq__ = fail


def _function() -> None:
    return None


_function.__qualname__ = _function.__name__ = "function"
function = OddFunction(_function, TaskOptions(queue="odd"))

TASKS: dict[str, Any] = {
    "Unhashable": Unhashable,
    "FailsToHash": FailsToHash,
    "FailsToCompare": FailsToCompare,
    "Nameless": Nameless,
    "function": function,
}


class Value:
    """Fails to be hashed and compared, and to be called."""

    __hash__ = __eq__ = __call__ = fail


class Liar:
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        fail()


class Text(str):
    """A text that fails in all that Python and libraries do with it."""

    __hash__ = __eq__ = __ne__ = __lt__ = __len__ = __iter__ = __contains__ = fail
    upper = lower = strip = split = partition = startswith = endswith = encode = fail


class OfUnhashable(metaclass=WithoutHash):
    """An instance whose class cannot be hashed, as `isinstance` with an abstract class does."""


class OfFailing(metaclass=FailingHash):
    pass


class OfNameless(metaclass=FailingNames):
    def __repr__(self) -> str:
        fail()


VALUES: list[Any] = [Value(), Liar(), OfUnhashable(), OfFailing(), OfNameless(), OfFailing, OfNameless]
