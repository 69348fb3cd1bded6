"""Dramatiq with its default middleware, which stores no results."""

from __future__ import annotations

import os
from collections.abc import Sequence

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from tests.benchmarks import marks

dramatiq.set_broker(RedisBroker(url=os.environ["BENCH_URL"]))
TASKS = {
    "mark": dramatiq.actor(marks.mark, actor_name="mark"),
    "nap": dramatiq.actor(marks.nap, actor_name="nap"),
}


def put(task: str, numbers: Sequence[int]) -> None:
    for number in numbers:
        TASKS[task].send(number)


def put_many(task: str, numbers: Sequence[int]) -> None:
    """A group; Dramatiq sends its messages one by one."""
    dramatiq.group([TASKS[task].message(number) for number in numbers]).run()
