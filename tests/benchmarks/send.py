"""`python -m tests.benchmarks.send APPLICATION HOW TASK NUMBER`: enqueues jobs, and prints what that took.

An application is a module with two functions, `put(task, numbers)` and `put_many(task, numbers)`: one job
after the other, and by the fastest call that its system has for many. Either may be a coroutine.

Runs in the environments of the peers: the standard library, and nothing else.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from tests.benchmarks import marks

WARM_UP = 10
"""Jobs that are enqueued before the clock starts: they open connections and load scripts."""
PAUSE_SECONDS = 0.03
"""After which an idle worker has gone back to waiting; this is no synchronisation."""
PATIENCE_SECONDS = 60.0

Put = Callable[[str, Sequence[int]], None]


def one_by_one(put: Put, task: str, number: int) -> float:
    """Seconds for so many jobs, without those of the warm-up, which come first."""
    put(task, range(WARM_UP))
    started = time.perf_counter()
    put(task, range(WARM_UP, WARM_UP + number))
    return time.perf_counter() - started


def latency(put: Put, task: str, number: int) -> list[float]:
    """Seconds from before the enqueue of a job to its start on an idle worker, one job at a time."""
    sent = []
    for n in range(WARM_UP + number):
        time.sleep(PAUSE_SECONDS)
        sent.append(time.monotonic())
        put(task, [n])
        _until_run(n + 1)
    ran = {mark.number: mark.at for mark in marks.read(marks.the_file())}
    return [ran[n] - sent[n] for n in range(WARM_UP, WARM_UP + number)]


def _until_run(number: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while marks.count(marks.the_file()) < number:
        if time.monotonic() > deadline:
            raise TimeoutError(f"job {number} has not run within {PATIENCE_SECONDS:g} s")
        time.sleep(0.001)


def _plain(runner: asyncio.Runner, put: Callable[..., Any]) -> Put:
    """The function, or the coroutine as a function that runs it in one loop."""
    if not asyncio.iscoroutinefunction(put):
        return put
    return lambda task, numbers: runner.run(put(task, numbers))


def main() -> None:
    application = importlib.import_module(sys.argv[1])
    how, task, number = sys.argv[2], sys.argv[3], int(sys.argv[4])
    with asyncio.Runner() as runner:
        found: float | list[float]
        if how == "one_by_one":
            found = one_by_one(_plain(runner, application.put), task, number)
        elif how == "in_bulk":
            found = one_by_one(_plain(runner, application.put_many), task, number)
        else:
            found = latency(_plain(runner, application.put), task, number)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
