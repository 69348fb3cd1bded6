"""Each peer at its best sensible settings, and what it promises at them.

Sensible is what its documentation advises for many short jobs, and what an application can live with.
Nothing is stored that can be left out, and messages are acknowledged as they are by default.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from tests.benchmarks.peers import places
from tests.benchmarks.systems import System

_HERE = "tests.benchmarks.peers"
_NOTHING = "nothing"
_LOST = "lost: it leaves the queue before it runs"

_RQ = System(
    name="RQ",
    store="redis",
    application=f"{_HERE}.with_rq",
    requires=("rq>=3.0", "redis[hiredis]"),
    command=("python", "-m", f"{_HERE}.with_rq", "Worker"),
    opened=partial(places.on_redis, unfinished=places.of_rq),
    concurrency=1,
    part=0.0125,
    settings="`Worker`, which forks for each job; in bulk: `enqueue_many`",
    keeps="the job with its result, for 500 seconds; without that it is slower",
    killed="failed, when its heartbeat is late; run again only if it has retries",
    cannot={"naps": "one job at a time"},
)
_CELERY = System(
    name="Celery",
    store="redis",
    application=f"{_HERE}.with_celery",
    requires=("celery[redis,gevent]>=5.7", "redis[hiredis]"),
    command=(
        *("celery", "--app", f"{_HERE}.with_celery", "worker", "--loglevel", "ERROR"),
        *("--concurrency", "{concurrency}", "--hostname", "bench{index}@%h", "-O", "fair"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
    ),
    opened=partial(places.on_redis, unfinished=places.of_celery),
    environ={"BENCH_PREFETCH": "16"},
    concurrency=8,
    part=0.05,
    settings="`worker_prefetch_multiplier=16`, `task_ignore_result`, without gossip, mingle and heartbeat; "
    "in bulk: one producer for all",
    keeps=_NOTHING,
    killed="lost once it has started, as it is acknowledged before; others are delivered again after an hour",
)
_DRAMATIQ = System(
    name="Dramatiq",
    store="redis",
    application=f"{_HERE}.with_dramatiq",
    requires=("dramatiq[redis,gevent]>=2.2", "redis[hiredis]"),
    command=(f"{_HERE}.with_dramatiq", "--processes", "1", "--threads", "{concurrency}"),
    opened=partial(places.on_redis, unfinished=places.of_dramatiq),
    environ={"dramatiq_queue_prefetch": "200"},
    concurrency=16,
    part=0.3,
    settings="`dramatiq_queue_prefetch=200`, one process, default middleware; in bulk: a group",
    keeps=_NOTHING,
    killed="run again, when its worker has been silent for a minute",
)
_HUEY = System(
    name="Huey",
    store="redis",
    application=f"{_HERE}.with_huey",
    requires=("huey>=3.5", "redis[hiredis]", "gevent"),
    command=(
        *("huey.bin.huey_consumer", f"{_HERE}.with_huey.huey", "-w", "{concurrency}"),
        *("--quiet", "--no-periodic"),
    ),
    opened=partial(places.on_redis, unfinished=places.of_huey),
    concurrency=1,
    part=0.4,
    settings="`results=False`, no periodic tasks; it has no call for many",
    keeps=_NOTHING,
    killed=_LOST,
)
_SAQ = System(
    name="SAQ",
    store="redis",
    application=f"{_HERE}.with_saq",
    requires=("saq[redis,hiredis]>=0.26", "typing-extensions", "uvloop"),
    command=("saq", f"{_HERE}.with_saq.settings"),
    opened=partial(places.on_redis, unfinished=places.of_saq),
    concurrency=20,
    part=0.1,
    settings="`concurrency` 20, `ttl=-1`, uvloop; in bulk: 20 under way at once",
    keeps=_NOTHING,
    killed="aborted, when a sweep finds it after its timeout; run again only if it has retries",
)
_TASKIQ = System(
    name="taskiq",
    store="redis",
    application=f"{_HERE}.with_taskiq",
    requires=("taskiq>=0.13", "taskiq-redis>=1.2", "redis[hiredis]", "uvloop"),
    command=(
        *("taskiq", "worker", f"{_HERE}.with_taskiq:broker", "--workers", "1", "--no-parse"),
        *("--max-async-tasks", "{concurrency}", "--max-prefetch", "100", "--log-level", "WARNING"),
    ),
    opened=partial(places.on_redis, unfinished=places.of_taskiq_list),
    concurrency=100,
    part=0.15,
    settings="no result backend, one worker, `--max-async-tasks 100 --max-prefetch 100 --no-parse`, uvloop; "
    "in bulk: ten under way at once",
    keeps=_NOTHING,
    killed=_LOST,
)
_ARQ = System(
    name="arq",
    store="redis",
    application=f"{_HERE}.with_arq",
    requires=("arq>=0.28", "redis[hiredis]", "uvloop"),
    command=("arq", f"{_HERE}.with_arq.Settings", "--custom-log-dict", f"{_HERE}.with_arq.QUIET"),
    opened=partial(places.on_redis, unfinished=places.of_arq),
    environ={"BENCH_POLL_DELAY": "0.01"},
    concurrency=100,
    part=0.15,
    settings="`max_jobs` 100, `poll_delay` 0.01 s, `keep_result=0`, uvloop; in bulk: 20 under way at once",
    keeps=_NOTHING,
    killed="run again, after its timeout of five minutes",
)


def _celery(pool: str, concurrency: int, what: str) -> System:
    return replace(
        _CELERY,
        name=f"Celery, {pool}",
        command=(*_CELERY.command, "--pool", pool),
        concurrency=concurrency,
        settings=f"{what}; {_CELERY.settings}",
        cannot={"naps": f"as many at a time as there are processes: {concurrency}"}
        if pool == "prefork"
        else {},
    )


def _dramatiq(program: str, kind: str, threads: int) -> System:
    return replace(
        _DRAMATIQ,
        name=f"Dramatiq, {kind}",
        command=(program, *_DRAMATIQ.command),
        concurrency=threads,
        settings=f"`{program}`, {threads} {kind}, {_DRAMATIQ.settings}",
    )


def _huey(kind: str, workers: int) -> System:
    patched = ("gevent.monkey", "--module") if kind == "greenlet" else ()
    return replace(
        _HUEY,
        name=f"Huey, {kind}s",
        command=("python", "-m", *patched, *_HUEY.command, "-k", kind),
        concurrency=workers,
        settings=f"{workers} {kind}{'s' if workers > 1 else ''}; {_HUEY.settings}",
    )


def _huey_on_sqlite(name: str, fsync: str, what: str) -> System:
    threads = _huey("thread", 1)
    return replace(
        threads,
        name=name,
        store="sqlite",
        command=(*threads.command, "--delay", "0.01", "--max-delay", "0.1"),
        opened=partial(places.on_sqlite, table="task"),
        environ={"BENCH_FSYNC": fsync},
        settings=f"{threads.settings}; polls after 0.01 to 0.1 s; {what}",
    )


PEERS = (
    _RQ,
    replace(
        _RQ,
        name="RQ, no fork",
        command=(*_RQ.command[:-1], "SimpleWorker"),
        part=0.1,
        settings="`SimpleWorker`, which runs jobs itself; in bulk: `enqueue_many`",
    ),
    _celery("prefork", 2, "two processes and their parent"),
    _celery("gevent", 50, "50 greenlets"),
    _celery("threads", 8, "8 threads"),
    _dramatiq("dramatiq-gevent", "greenlets", 50),
    _dramatiq("dramatiq", "threads", 16),
    _huey("greenlet", 50),
    _huey("thread", 1),
    _huey_on_sqlite("Huey on SQLite", "", "waits for the disk at each change, as by default"),
    _huey_on_sqlite("Huey on SQLite, unsafe", "0", "`fsync=False`: a power failure may damage the file"),
    _SAQ,
    replace(
        _TASKIQ,
        name="taskiq, list",
        environ={"BENCH_BROKER": "ListQueueBroker"},
        settings=f"`ListQueueBroker`, {_TASKIQ.settings}",
    ),
    replace(
        _TASKIQ,
        name="taskiq, stream",
        environ={"BENCH_BROKER": "RedisStreamBroker"},
        opened=partial(places.on_redis, unfinished=places.of_taskiq_stream),
        settings=f"`RedisStreamBroker`, {_TASKIQ.settings}",
        keeps="the message: the stream grows, unless a limit is set",
        killed="run again, by default after ten minutes",
    ),
    _ARQ,
)
