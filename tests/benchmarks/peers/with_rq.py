"""RQ: `python -m tests.benchmarks.peers.with_rq Worker`, or `SimpleWorker`, which does not fork.

This module is loaded before the worker forks, as RQ's documentation advises. Jobs are kept for 500 seconds,
as by default: `result_ttl=0`, which removes them at once, is slower.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import rq
from redis import Redis
from rq import Queue

from tests.benchmarks import marks

BATCH = 1000
TASKS = {"mark": marks.mark, "nap": marks.nap}
connection = Redis.from_url(os.environ["BENCH_URL"])
queue = Queue(connection=connection)


def put(task: str, numbers: Sequence[int]) -> None:
    for number in numbers:
        queue.enqueue(TASKS[task], number)


def put_many(task: str, numbers: Sequence[int]) -> None:
    for start in range(0, len(numbers), BATCH):
        part = numbers[start : start + BATCH]
        queue.enqueue_many([Queue.prepare_data(TASKS[task], (number,)) for number in part])


if __name__ == "__main__":
    getattr(rq, sys.argv[1])([queue], connection=connection).work(logging_level="ERROR")
