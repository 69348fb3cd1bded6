"""Jobs are found and counted among 1,000,000 in 200 queues within bounds."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mrq_core.client.client import Client
from mrq_core.clock import SystemClock, from_ms
from mrq_core.config.sources import load_config
from mrq_core.contract.broker import Broker
from mrq_core.contract.codec import JsonObject
from mrq_core.contract.messages import (
    CHUNK,
    ChangeResult,
    ClaimRequest,
    NewJob,
    Outcome,
    Requeue,
    Settlement,
    Wanted,
)
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import JobRecord, Status
from mrq_core.ids import new_id
from tests import brokers
from tests.mongo import servers as mongo_servers
from tests.redis import servers as redis_servers

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(0)]

JOBS = int(os.environ.get("MRQ_TEST_MILLION", 1_000_000))
EVERY = 12
"""Every twelfth job fails."""
FAILED = len(range(0, JOBS, EVERY))
GROUPS = 20
TYPES = ("shop.errors.NoStock", "shop.errors.Unpaid", "ValueError", "http.Timeout")
SMALL, LARGE = 10, JOBS // 5
"""The numbers of jobs with one value of the search keys `user_id` and `country`."""
PAGE = APPLIED = 50
BOUND = 100.0
"""Milliseconds."""
QUEUES = [f"q{number:03}" for number in range(200)]
"""The queues of the jobs that do not fail."""
COUNTS_BOUNDS = {"sqlite": 20.0, "redis": 10.0, "mongo": 50.0, "redis+mongo": 10.0}
"""Milliseconds for the counts of all queues, by the arrangement."""
STEP_BOUND = 400.0
"""Milliseconds for a call that stops after 250 ms: a batch of jobs may be read after that time."""


def group_of(number: int) -> str:
    return f"shop.Order {TYPES[number % len(TYPES)]} shop:Order.part{number % GROUPS}"


def path_of(number: int) -> str:
    """One of 10 paths; the first queue has no job of the first path."""
    later = number // len(QUEUES)
    return f"shop.Task{1 + later % 9 if number % len(QUEUES) == 0 else later % 10}"


def queue_of(number: int) -> str:
    return QUEUES[number % len(QUEUES)]


def record_of(number: int) -> JobRecord:
    at = from_ms(SystemClock().now_ms())
    keys: JsonObject = {"user_id": number // SMALL, "country": f"c{number % (JOBS // LARGE)}"}
    return JobRecord(
        id=new_id(),
        path=path_of(number),
        params=keys,
        queue="failing" if number % EVERY == 0 else queue_of(number),
        queued_at=at,
        updated_at=at,
        search_keys=keys,
    )


def failure(number: int) -> Outcome:
    return Outcome(
        status=Status.FAILED,
        ttl=1e6,
        exception_type=TYPES[number % len(TYPES)],
        exception_message=f"no stock left of article {number} in the house of {number % 100}",
        error_group=group_of(number),
        traceback="Traceback (most recent call last):\n",
    )


def fill(broker: Broker, made: Callable[[int], JobRecord]) -> None:
    """Enqueues all jobs, and lets the jobs of the queue `failing` fail."""
    for start in range(0, JOBS, CHUNK):
        broker.enqueue([NewJob(record=made(number)) for number in range(start, start + CHUNK)])
    request = ClaimRequest(worker="w", wanted=(Wanted(name="failing"),), limit=200, lease=600.0)
    failed = 0
    while records := broker.claim(request).records:
        settlements = [
            Settlement(id=record.id, token=record.token or "", outcome=failure(failed + index))
            for index, record in enumerate(records)
        ]
        assert all(broker.settle(settlements))
        failed += len(records)
    assert failed == FAILED


@contextmanager
def filled(name: str, folder: Path, made: Callable[[int], JobRecord] = record_of) -> Iterator[Client]:
    """A client of a broker with all jobs, on servers that only this test uses."""
    redis = redis_servers.Server() if "redis" in name else None
    mongo = mongo_servers.Server() if "mongo" in name else None
    urls = [server.url for server in (redis, mongo) if server is not None] or [f"sqlite:///{folder}/jobs"]
    values = dict(zip(("broker", "store"), urls, strict=False))
    client = Client(load_config(values))
    try:
        client.broker.prepare()
        fill(client.broker, made)
        yield client
    finally:
        client.close()
        for server in (redis, mongo):
            if server is not None:
                server.stop()


def milliseconds(call: Callable[[], object], runs: int = 9) -> float:
    """The median time of a call."""
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


def found(broker: Broker, **wanted: Any) -> int:
    """The number of jobs on the first page of a search."""
    page = broker.find(JobFilter(**wanted))
    assert page.searched_until is None, "the search did not end within its time"
    return len(page.records)


def counted(broker: Broker, **wanted: Any) -> int:
    return broker.count(JobFilter(**wanted)).numbers[""]


def groups(broker: Broker, field: str) -> int:
    """The number of values by which jobs are counted."""
    return len(broker.count(JobFilter(), field).numbers)


def counted_in_steps(broker: Broker, **wanted: Any) -> tuple[int, float]:
    """The number of jobs that a count without totals and index finds, and the time of its calls in ms, which
    nine of ten do not exceed."""
    number, times, cursor = 0, [], None
    while True:
        began = time.perf_counter()
        counted = broker.count(JobFilter(**wanted), cursor=cursor)
        times.append(time.perf_counter() - began)
        number += counted.number
        cursor = counted.cursor
        if cursor is None:
            return number, sorted(times)[len(times) * 9 // 10] * 1000


def waiting_in(broker: Broker, queues: Sequence[str]) -> int:
    """The number of waiting jobs that one call of `counts` gives, all of them due."""
    found = broker.counts(queues)
    assert all(one.due == min(one.waiting, 10_000) for one in found)
    return sum(one.waiting for one in found)


def requeued(broker: Broker, group: str) -> int:
    """The number of jobs that one step of a bulk action changes. Afterwards they have no exception."""
    applied = broker.apply(JobFilter(error_groups=(group,)), Requeue(), limit=APPLIED)
    return applied.changes.get(ChangeResult.DONE, 0)


@pytest.mark.parametrize("name", brokers.NAMES)
def test_jobs_are_found_and_counted_among_a_million_within_bounds(name: str, tmp_path: Path) -> None:
    group, in_group = group_of(7), len(range(7, FAILED, GROUPS))
    user, country = {"user_id": 777}, {"country": "c3"}
    several = {"statuses": (Status.QUEUED,), "paths": (path_of(7),), "queues": (QUEUES[7],)}
    nothing = several | {"paths": ("shop.Task0",), "queues": (QUEUES[0],)}
    no_tree = several | {"queues": ("nothing/",)}
    in_queue = sum(1 for number in range(7, JOBS, len(QUEUES)) if number % EVERY)
    in_several = sum(
        1 for number in range(7, JOBS, len(QUEUES)) if number % EVERY and path_of(number) == path_of(7)
    )
    with filled(name, tmp_path) as client:
        broker = client.broker
        page = partial(found, broker)
        count = partial(counted, broker)
        calls: dict[str, tuple[Callable[[], int], int]] = {
            "find by a search key of 10 jobs": (lambda: page(search_keys=user), SMALL),
            "find by a search key of 200,000 jobs": (lambda: page(search_keys=country), PAGE),
            "find by two search keys": (lambda: page(search_keys=user | country), 2),
            "find by a word of 1 job": (lambda: page(error_words=("777",)), 1),
            "find by a word of 83,334 jobs": (lambda: page(error_words=("stock",)), PAGE),
            "find by three words": (lambda: page(error_words=("no", "stock", "777")), 1),
            "find by an error group": (lambda: page(error_groups=(group,)), PAGE),
            "find by the short name of a type": (lambda: page(exception_types=("NoStock",)), PAGE),
            "count of a search key of 10 jobs": (lambda: count(search_keys=user), SMALL),
            "count of a word of 1 job": (lambda: count(error_words=("777",)), 1),
            "count of an error group": (lambda: count(error_groups=(group,)), in_group),
            "count by error group": (lambda: groups(broker, "error_group"), GROUPS),
            "count by exception type": (lambda: groups(broker, "exception_type"), len(TYPES)),
            "find by status, path and queue, without a match": (lambda: page(**nothing), 0),
            "find by status, path and queue": (lambda: page(**several), min(PAGE, in_several)),
            "find by status, path and a tree that does not exist": (lambda: page(**no_tree), 0),
            "count by status, path and queue": (lambda: count(**several), in_several),
            "count by status, path and a tree that does not exist": (lambda: count(**no_tree), 0),
            "count by status": (lambda: groups(broker, "status"), 2),
            "count of a queue": (lambda: count(queues=(QUEUES[7],)), in_queue),
            "counts of 200 queues": (lambda: waiting_in(broker, QUEUES), JOBS - FAILED),
            "totals": (lambda: len(broker.totals().by_error_group), GROUPS),
        }
        figures = {}
        for what, (call, expected) in calls.items():
            assert call() == expected, what
            figures[what] = milliseconds(call)
        figures["requeue of 50 jobs of a group"] = milliseconds(partial(requeued, broker, group))
        number, took = counted_in_steps(broker, params={"country": "c3"}, since=from_ms(0))
        assert number == LARGE
        figures["a call of a count without an index"] = took
        for what, took in figures.items():
            print(f"{name}: {what}: {took:.1f} ms")
        bounds = {"a call of a count without an index": STEP_BOUND}
        bounds["counts of 200 queues"] = COUNTS_BOUNDS[name]
        slow = {what: took for what, took in figures.items() if took > bounds.get(what, BOUND)}
        assert slow == {}
