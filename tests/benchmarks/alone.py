"""What is measured of mrq alone: the bytes of a job, and the cost of a claim as the queue grows."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pymongo
import redis

from mrq_core.client.client import Client
from mrq_core.contract.messages import ClaimRequest, Outcome, Settlement, Wanted
from mrq_core.contract.record import JobRecord, Status
from tests.benchmarks import solo
from tests.benchmarks.ours import Arrangement, client_of, started
from tests.benchmarks.tasks import TASKS
from tests.benchmarks.workloads import Figures

BATCH = 50
_TTL_SECONDS = 86_400.0


def sizes(arrangement: Arrangement, scale: float) -> Figures:
    """Bytes that a job takes, waiting and ended: on the disk, or in the memory of a Redis server."""
    jobs = max(int(20_000 * scale), 1_000)
    with _folder() as folder, started(arrangement, folder) as environ, client_of(environ) as client:
        empty = _used(environ)
        client.queue_jobs(TASKS["mark"], ({"number": n} for n in range(jobs)))
        waiting = _used(environ)
        while records := _claim(client):
            _settle(client, records, Outcome(status=Status.SUCCESS, result=1, ttl=_TTL_SECONDS))
        return {
            "a waiting job (bytes)": (waiting - empty) / jobs,
            "an ended job (bytes)": (_used(environ) - empty) / jobs,
        }


def claim_cost(arrangement: Arrangement, scale: float) -> Figures:
    """Microseconds a job of claiming 50 of 1k, 100k and 1M, each in a broker of its own, in turns."""
    numbers = sorted({max(int(1_000_000 * scale) // part, 1_000) for part in (1_000, 10, 1)})
    with contextlib.ExitStack() as stack:
        clients = {}
        for number in numbers:
            environ = stack.enter_context(started(arrangement, stack.enter_context(_folder())))
            clients[number] = stack.enter_context(client_of(environ))
            clients[number].queue_jobs(TASKS["mark"], ({"number": n} for n in range(number)))
        times: dict[int, list[float]] = {number: [] for number in numbers}
        for turn in range(110):
            for number, client in clients.items():
                begun = time.perf_counter()
                records = _claim(client)
                seconds = time.perf_counter() - begun
                assert len(records) == BATCH
                _settle(client, records, Outcome(status=Status.QUEUED, delay=0.0))
                if turn >= 10:  # the first ones also load scripts and pages
                    times[number].append(seconds)
    return {
        f"claim, {number:,} queued (µs a job)": statistics.median(times[number]) / BATCH * 1e6
        for number in numbers
    }


def solo_cost(arrangement: Arrangement, scale: float) -> Figures:
    """What solo jobs cost."""
    with _folder() as folder:
        return solo.solo(arrangement, scale, folder)


ALONE: dict[str, Callable[[Arrangement, float], Figures]] = {
    "sizes": sizes, "claim": claim_cost, "solo": solo_cost,
}  # fmt: skip


def _claim(client: Client) -> tuple[JobRecord, ...]:
    request = ClaimRequest(worker="bench", wanted=(Wanted(name="default"),), limit=BATCH, lease=60.0)
    return client.broker.claim(request).records


def _settle(client: Client, records: Sequence[JobRecord], outcome: Outcome) -> None:
    client.broker.settle([Settlement(id=r.id, token=r.token or "", outcome=outcome) for r in records])


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mrq-bench-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def _used(environ: Mapping[str, str]) -> int:
    """What the jobs take, in all places together."""
    file = Path(environ["MRQ_SQLITE"])
    used = sum(part.stat().st_size for part in file.parent.glob(f"{file.name}*"))
    if "MRQ_REDIS" in environ:
        with redis.Redis.from_url(environ["MRQ_REDIS"]) as server:
            used += int(dict(server.info("memory"))["used_memory"])
    if "MRQ_MONGODB" in environ:
        with pymongo.MongoClient[dict[str, Any]](environ["MRQ_MONGODB"]) as server:
            server.admin.command("fsync")
            told = server.get_default_database().command("dbStats")
            used += int(told["storageSize"] + told["indexSize"])
    return used
