"""arq: `arq tests.benchmarks.peers.with_arq.Settings`, on uvloop, without results and logs of jobs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from functools import cache
from typing import Any

import uvloop
from arq import ArqRedis, create_pool
from arq.connections import RedisSettings

from tests.benchmarks import marks

BATCH = 20
QUIET = {"version": 1, "disable_existing_loggers": False}
"""A configuration of logging: warnings only."""
asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
redis_settings = RedisSettings.from_dsn(os.environ["BENCH_URL"])


async def mark(context: Any, number: int) -> None:
    await marks.mark_async(number)


async def nap(context: Any, number: int) -> None:
    await marks.nap_async(number)


class Settings:
    """A worker's."""

    functions = [mark, nap]
    redis_settings = redis_settings
    max_jobs = int(os.environ.get("BENCH_CONCURRENCY", "10"))
    poll_delay = float(os.environ.get("BENCH_POLL_DELAY", "0.5"))
    keep_result = 0
    log_results = False


@cache
def _pool() -> asyncio.Future[ArqRedis]:
    opening: asyncio.Future[ArqRedis] = asyncio.ensure_future(create_pool(redis_settings))
    return opening


async def put(task: str, numbers: Sequence[int]) -> None:
    pool = await _pool()
    for number in numbers:
        await pool.enqueue_job(task, number)


async def put_many(task: str, numbers: Sequence[int]) -> None:
    """arq has no call for many; 20 are under way at once."""
    pool = await _pool()
    for start in range(0, len(numbers), BATCH):
        part = numbers[start : start + BATCH]
        await asyncio.gather(*(pool.enqueue_job(task, number) for number in part))
