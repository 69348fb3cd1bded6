"""Celery: results are ignored, messages are acknowledged before their task runs, as by default."""

from __future__ import annotations

import os
from collections.abc import Sequence

from celery import Celery

from tests.benchmarks import marks

app = Celery("bench", broker=os.environ["BENCH_URL"])
app.conf.update(
    task_ignore_result=True,
    worker_disable_rate_limits=True,
    worker_prefetch_multiplier=int(os.environ.get("BENCH_PREFETCH", "4")),
    broker_connection_retry_on_startup=True,
)
TASKS = {"mark": app.task(marks.mark, name="mark"), "nap": app.task(marks.nap, name="nap")}


def put(task: str, numbers: Sequence[int]) -> None:
    for number in numbers:
        TASKS[task].delay(number)


def put_many(task: str, numbers: Sequence[int]) -> None:
    """Celery has no call for many; the nearest is one producer for all."""
    with app.producer_pool.acquire(block=True) as producer:
        for number in numbers:
            TASKS[task].apply_async((number,), producer=producer)
