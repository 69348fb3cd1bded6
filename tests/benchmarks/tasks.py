"""mrq's application: the same tasks and the same two functions as those of its peers, `peers/with_*.py`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from mrq_core.client.client import Client
from mrq_core.config.sources import load_config
from mrq_core.contract.codec import JsonObject
from mrq_core.tasks.task import Task
from tests.benchmarks import marks


class Mark(Task):
    """Returns a small result, which is stored."""

    def run(self, params: JsonObject) -> int:
        marks.mark(_number(params))
        return 1


class Nap(Task):
    """Waits, and returns a small result, which is stored."""

    def run(self, params: JsonObject) -> int:
        marks.nap(_number(params))
        return 1


TASKS = {"mark": f"{__name__}.Mark", "nap": f"{__name__}.Nap"}


def put(task: str, numbers: Sequence[int]) -> None:
    for number in numbers:
        _client().queue_job(TASKS[task], {"number": number})


def put_many(task: str, numbers: Sequence[int]) -> None:
    _client().queue_jobs(TASKS[task], ({"number": number} for number in numbers))


@cache
def _client() -> Client:
    return Client(load_config())


def _number(params: JsonObject) -> int:
    number = params["number"]
    assert isinstance(number, int)
    return number
