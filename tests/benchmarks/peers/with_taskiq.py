"""taskiq on uvloop, with the broker that `BENCH_BROKER` names, without results."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from functools import cache

import taskiq_redis
import uvloop

from tests.benchmarks import marks

BATCH = 10
asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
broker = getattr(taskiq_redis, os.environ["BENCH_BROKER"])(os.environ["BENCH_URL"])
TASKS = {
    "mark": broker.task(task_name="mark")(marks.mark_async),
    "nap": broker.task(task_name="nap")(marks.nap_async),
}


@cache
def _started() -> asyncio.Future[None]:
    starting: asyncio.Future[None] = asyncio.ensure_future(broker.startup())
    return starting


async def put(task: str, numbers: Sequence[int]) -> None:
    await _started()
    for number in numbers:
        await TASKS[task].kiq(number)


async def put_many(task: str, numbers: Sequence[int]) -> None:
    """taskiq has no call for many; ten are under way at once."""
    await _started()
    for start in range(0, len(numbers), BATCH):
        part = numbers[start : start + BATCH]
        await asyncio.gather(*(TASKS[task].kiq(number) for number in part))
