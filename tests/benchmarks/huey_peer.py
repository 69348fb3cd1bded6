"""Huey on SQLite, the peer of the embedded broker: the same work, at its best sensible settings.

Huey keeps a task and its result until the result is read; it has no records, indexes or logs.
The consumer uses threads or greenlets, whichever is asked for; results are stored.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.ours import Figures

_APPLICATION = """
import os
from huey import SqliteHuey

huey = SqliteHuey("bench", filename=os.environ["BENCH_HUEY"], results=True)


@huey.task()
def nothing(n):
    return 1
"""


def drain(folder: Path, jobs: int, kind: str = "greenlet") -> Figures:
    """Tasks a second from the first result to the last."""
    with _application(folder) as application:
        for n in range(jobs):
            application.nothing(n)
        storage = application.huey.storage
        command = [sys.executable, "-m", "huey.bin.huey_consumer", "huey_bench_application.huey",
                   "-k", kind, "-w", "50" if kind == "greenlet" else "4", "--quiet"]  # fmt: skip
        consumer = subprocess.Popen(
            command, cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            first = _until(storage, 1)
            last = _until(storage, jobs)
        finally:
            consumer.terminate()
            consumer.wait(30)
    return {f"Huey on SQLite, drain, {kind}s (jobs/s)": jobs / (last - first)}


def enqueue(folder: Path, jobs: int) -> Figures:
    """Tasks a second that one thread enqueues; Huey has no call for many at once."""
    with _application(folder) as application:
        started = time.perf_counter()
        for n in range(jobs):
            application.nothing(n)
        return {"Huey on SQLite, enqueue, one by one (jobs/s)": jobs / (time.perf_counter() - started)}


@contextlib.contextmanager
def _application(folder: Path) -> Iterator[Any]:
    (folder / "huey_bench_application.py").write_text(_APPLICATION)
    os.environ["BENCH_HUEY"] = str(folder / "huey.sqlite3")
    sys.path.insert(0, str(folder))
    try:
        import huey_bench_application  # type: ignore[import-not-found]

        yield huey_bench_application
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("huey_bench_application", None)


def _until(storage: Any, results: int) -> float:
    deadline = time.monotonic() + 600
    while storage.result_store_size() < results:
        if time.monotonic() > deadline:
            raise RuntimeError(f"Huey has not stored {results} results within 600 s")
        time.sleep(0.01)
    return time.monotonic()
