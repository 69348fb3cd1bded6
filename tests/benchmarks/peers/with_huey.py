"""Huey, on Redis or on SQLite, without results."""

from __future__ import annotations

import os
from collections.abc import Sequence

from huey import RedisHuey, SqliteHuey

from tests.benchmarks import marks

url = os.environ["BENCH_URL"]
if url.startswith("redis:"):
    huey = RedisHuey("bench", url=url, results=False)
else:
    fsync = {"": None, "0": False}[os.environ["BENCH_FSYNC"]]
    huey = SqliteHuey("bench", filename=url, results=False, fsync=fsync)
TASKS = {"mark": huey.task(name="mark")(marks.mark), "nap": huey.task(name="nap")(marks.nap)}


def put(task: str, numbers: Sequence[int]) -> None:
    for number in numbers:
        TASKS[task](number)


put_many = put
"""Huey has no call for many: its `map` is this loop."""
