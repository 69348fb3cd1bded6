"""The measurements of mrq: each takes an empty folder, and returns named figures."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pymongo
import redis

from mrq_core.client import Client
from mrq_core.config_sources import load_config
from mrq_core.handles import Job
from mrq_core.job import JobRecord, Outcome, Status
from mrq_core.messages import ClaimRequest, JobFilter, Settlement, Wanted
from mrq_core.operations.workers import list_workers
from tests.mongo.servers import Server as MongoServer
from tests.redis.servers import Server as RedisServer

Figures = dict[str, float]
NOTHING = "tests.benchmarks.tasks.Nothing"
NOW = "tests.benchmarks.tasks.Now"
NAP = "tests.benchmarks.tasks.nap"
BATCH = 50


BROKERS: dict[str, tuple[str, ...]] = {
    "sqlite": (),
    "redis": ("--appendonly", "no"),
    "redis with AOF": ("--appendonly", "yes", "--appendfsync", "everysec"),
    "mongo": ("--wiredTigerCacheSizeGB", "1"),
    "mongo with w=1": ("--wiredTigerCacheSizeGB", "1"),
}
"""By name: the options of its server. What is measured is the same on each."""
_WEAK = "?w=1&journal=false"
"""Writes that the primary has in its memory, and nothing more, are acknowledged."""


@contextlib.contextmanager
def opened(folder: Path, broker: str = "sqlite") -> Iterator[Client]:
    """A client of an empty broker. A server is started for it, and ended."""
    with contextlib.ExitStack() as stack:
        url = f"sqlite:///{folder}/bench.sqlite3"
        if broker != "sqlite":
            start = MongoServer if broker.startswith("mongo") else RedisServer
            server = start(*BROKERS[broker], folder=folder)
            stack.callback(server.kill)
            url = server.url + (_WEAK if broker == "mongo with w=1" else "")
        client = Client(load_config({"broker": url}, environ={}))
        client.broker.prepare()
        stack.callback(client.close)
        yield client


@contextlib.contextmanager
def worker(client: Client, folder: Path, *flags: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process at its ordinary settings; ended by SIGTERM if it does not end by itself."""
    command = [
        sys.executable,
        "-m",
        "mrq_core.cli",
        "worker",
        "--broker",
        client.config.broker,
        "--quiet",
        *flags,
    ]
    process = subprocess.Popen(command, cwd=os.getcwd())
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(30)


def enqueue(folder: Path, jobs: int, broker: str = "sqlite") -> Figures:
    """Jobs a second that one thread enqueues, one by one and in batches of 1,000."""
    with opened(folder, broker) as client:
        singles = max(jobs // 20, 100)
        started = time.perf_counter()
        for n in range(singles):
            client.queue_job(NOTHING, {"n": n})
        one_by_one = singles / (time.perf_counter() - started)
        started = time.perf_counter()
        client.queue_jobs(NOTHING, ({"n": n} for n in range(jobs)))
        in_bulk = jobs / (time.perf_counter() - started)
        return {
            f"{broker}: enqueue, one by one (jobs/s)": one_by_one,
            f"{broker}: enqueue, in bulk (jobs/s)": in_bulk,
        }


def drain(folder: Path, jobs: int, processes: int = 1, broker: str = "sqlite") -> Figures:
    """Jobs a second from the first start to the last end, by the times in their records."""
    with opened(folder, broker) as client:
        empty = _size(folder, client)
        client.queue_jobs(NOTHING, ({"n": n} for n in range(jobs)))
        size = _size(folder, client) - empty
        with contextlib.ExitStack() as stack:
            workers = [
                stack.enter_context(worker(client, folder, "--greenlets", str(BATCH), "--burst"))
                for _ in range(processes)
            ]
            for process in workers:
                process.wait(600)
        records = list(_all(client))
        assert len(records) == jobs, f"{len(records)} of {jobs} jobs are there"
        assert all(record.status is Status.SUCCESS and record.result == 1 for record in records)
        seconds = (max(map(_ended, records)) - min(map(_started, records))).total_seconds()
        how = f"{processes} process{'es' if processes > 1 else ''} of {BATCH} greenlets"
        figures = {f"{broker}: drain, {how} (jobs/s)": jobs / seconds}
        if processes == 1:
            figures[f"{broker}: a waiting job (bytes)"] = size / jobs
            figures[f"{broker}: an ended job (bytes)"] = (_size(folder, client) - empty) / jobs
        return figures


def latency(folder: Path, jobs: int, broker: str = "sqlite") -> Figures:
    """From the enqueue to the start on an idle worker, one job at a time, by the task's own mark."""
    waits = []
    with opened(folder, broker) as client, worker(client, folder):
        Job(client.queue_job(NOTHING), client=client).wait(60)
        for _ in range(jobs):
            time.sleep(0.03)  # the worker has gone back to waiting; this is no synchronisation
            before = time.time()
            record = Job(client.queue_job(NOW), client=client).wait(60)
            assert isinstance(record.result, float)
            waits.append((record.result - before) * 1000)
    ordered = sorted(waits)
    return {
        f"{broker}: latency, p50 (ms)": statistics.median(ordered),
        f"{broker}: latency, p99 (ms)": ordered[int(len(ordered) * 0.99) - 1],
    }


def naps(folder: Path, jobs: int, broker: str = "sqlite") -> Figures:
    """Jobs that sleep 0.1 s on 100 greenlets: as near to jobs / 100 * 0.1 s as can be."""
    with opened(folder, broker) as client:
        client.queue_jobs(NAP, ({"seconds": 0.1} for _ in range(jobs)))
        with worker(client, folder, "--greenlets", "100", "--burst") as process:
            process.wait(600)
        records = list(_all(client))
        seconds = (max(map(_ended, records)) - min(map(_started, records))).total_seconds()
        return {
            f"{broker}: {jobs} jobs that sleep 0.1 s, 100 greenlets (s)": seconds,
            f"{broker}: {jobs} jobs that sleep 0.1 s, against the ideal (ratio)": seconds
            / (jobs / 100 * 0.1),
        }


def memory(folder: Path, jobs: int, broker: str = "sqlite") -> Figures:
    """What an idle worker with 50 greenlets takes, after it has run some jobs."""
    with (
        opened(folder, broker) as client,
        worker(client, folder, "--greenlets", "50", "--report-interval", "0.2") as process,
    ):
        for job in client.queue_jobs(NOTHING, ({} for _ in range(200))):
            Job(job, client=client).wait(60)
        while not list_workers(client.broker):
            time.sleep(0.05)
        return {f"{broker}: memory, an idle worker (MB)": psutil.Process(process.pid).memory_info().rss / 1e6}


def claim_cost(folder: Path, jobs: int, broker: str = "sqlite") -> Figures:
    """Microseconds a job of claiming 50 of 1k, 100k and 1M, each in a broker of its own, in turns."""
    sizes = sorted({max(jobs // part, 1_000) for part in (1_000, 10, 1)})
    with contextlib.ExitStack() as stack:
        clients = {}
        for size in sizes:
            (own := folder / str(size)).mkdir()
            clients[size] = stack.enter_context(opened(own, broker))
            clients[size].queue_jobs(NOTHING, ({} for _ in range(size)))
        times: dict[int, list[float]] = {size: [] for size in sizes}
        for turn in range(110):
            for size, client in clients.items():
                seconds = _claim_seconds(client)
                if turn >= 10:  # the first ones also load scripts and pages
                    times[size].append(seconds)
    return {
        f"{broker}: claim, {size:,} queued (µs a job)": statistics.median(times[size]) / BATCH * 1e6
        for size in sizes
    }


def _claim_seconds(client: Client) -> float:
    """Of one claim; the jobs are given back."""
    request = ClaimRequest(worker="bench", wanted=(Wanted(name="default"),), limit=BATCH, lease=60.0)
    started = time.perf_counter()
    claimed = client.broker.claim(request)
    seconds = time.perf_counter() - started
    assert len(claimed.records) == BATCH
    back = Outcome(status=Status.QUEUED, delay=0.0)
    client.broker.settle([Settlement(id=r.id, token=r.token or "", outcome=back) for r in claimed.records])
    return seconds


def _all(client: Client) -> Iterator[JobRecord]:
    cursor: str | None = None
    while True:
        page = client.broker.find(JobFilter(), cursor=cursor, limit=1000)
        yield from page.records
        cursor = page.cursor
        if cursor is None:
            return


def _started(record: JobRecord) -> datetime:
    assert record.started_at is not None
    return record.started_at


def _ended(record: JobRecord) -> datetime:
    assert record.ended_at is not None
    return record.ended_at


def _size(folder: Path, client: Client) -> int:
    """What the broker takes: on the disk, or in the server's memory."""
    if client.config.broker.startswith("redis"):
        with redis.Redis.from_url(client.config.broker) as server:
            return int(dict(server.info("memory"))["used_memory"])
    if client.config.broker.startswith("mongo"):
        with pymongo.MongoClient[dict[str, Any]](client.config.broker) as server:
            server.admin.command("fsync")
            told = server.get_default_database().command("dbStats")
            return int(told["storageSize"] + told["indexSize"])
    return sum(file.stat().st_size for file in folder.glob("bench.sqlite3*"))
