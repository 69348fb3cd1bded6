"""SAQ: `saq tests.benchmarks.peers.with_saq.settings`, on uvloop; a job is forgotten when it has ended."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

import uvloop
from saq import Queue

from tests.benchmarks import marks

FORGET = -1
BATCH = 1000
asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
queue = Queue.from_url(os.environ["BENCH_URL"])


async def mark(context: Any, *, number: int) -> None:
    await marks.mark_async(number)


async def nap(context: Any, *, number: int) -> None:
    await marks.nap_async(number)


settings = {
    "queue": queue,
    "functions": [mark, nap],
    "concurrency": int(os.environ.get("BENCH_CONCURRENCY", "10")),
}


async def put(task: str, numbers: Sequence[int]) -> None:
    for number in numbers:
        await queue.enqueue(task, number=number, ttl=FORGET)


async def put_many(task: str, numbers: Sequence[int]) -> None:
    """SAQ has no call for many; 20 are under way at once, its own limit."""
    for start in range(0, len(numbers), BATCH):
        part = numbers[start : start + BATCH]
        await asyncio.gather(*(queue.enqueue(task, number=number, ttl=FORGET) for number in part))
