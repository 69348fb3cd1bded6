"""Waiting until something may be due, and what is new for a worker.

An enqueue leaves as many tokens as it has jobs in the wake-up lists of the queue and of each tree that it is
in, where workers that wait for just that name take them. What was there before, and what becomes due by time
alone, is looked up first.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from mrq_broker_redis.asking import wanted_as_list
from mrq_broker_redis.connection import Connection
from mrq_core.contract.messages import PollResult, Versions, Wanted
from mrq_core.contract.naming import raw_kind

DUE = b"1"
"""The token of a job that is due. Others are about jobs that will be, and say how long to wait at most."""


def wait(connection: Connection, wanted: Sequence[Wanted], timeout: float) -> bool:
    """See `Broker.wait`.

    A lease that had ended before the call does not wake: the claim has told of it, and a worker
    that is not idle could do nothing but ask again.
    """
    deadline = time.monotonic() + timeout
    rows = wanted_as_list(wanted)
    queues = [[*row, _kind(one.name)] for row, one in zip(rows, wanted, strict=True)]
    is_simple = not any(one.exclude or one.name.endswith("/") for one in wanted)
    keys = sorted({connection.key(f"wake:{one.name}") for one in wanted})
    began_ms = -1
    while True:
        now, due = connection.run("due", [queues, began_ms], repeatable=True)
        now_ms = int(now)
        began_ms = now_ms if began_ms < 0 else began_ms
        seconds = deadline - time.monotonic()
        if due is not None:
            if int(due) <= now_ms:
                return True
            seconds = min(seconds, (int(due) - now_ms) / 1000)
        if seconds <= 0:
            return False
        if keys:
            token = connection.wait_for(keys, seconds)
            if token == DUE and is_simple:
                return True
        else:
            time.sleep(min(seconds, connection.wait_most))


def _kind(name: str) -> str | bool:
    kind = raw_kind(name)
    return False if kind is None else str(kind)


# --- pauses and interrupts --------------------------------------------------------------------------


def poll(connection: Connection, worker: str, versions: Versions) -> PollResult:
    """See `Broker.poll`. Two look-ups in one round trip when there is nothing new."""

    def look(client: Any) -> list[Any]:
        pipeline = client.pipeline(transaction=False)
        pipeline.get(connection.key("pauses:n"))
        pipeline.zrangebyscore(
            connection.key(f"sig:{worker}"), f"({versions.signals}", "+inf", withscores=True
        )
        answers: list[Any] = pipeline.execute()
        return answers

    number, found = connection.use(look)
    pauses = int(number or 0)
    signals = [(job_id.decode(), int(score)) for job_id, score in found]
    return PollResult(
        versions=Versions(pauses=pauses, signals=signals[-1][1] if signals else versions.signals),
        paused=None if pauses == versions.pauses else paused(connection),
        interrupts=tuple(job_id for job_id, _ in signals),
    )


def set_paused(connection: Connection, queues: Sequence[str], *, is_paused: bool) -> None:
    """Marks queues as paused, or takes the marks away, and counts the change."""
    if not queues:
        return

    def work(client: Any) -> None:
        pipeline = client.pipeline(transaction=True)
        change = pipeline.sadd if is_paused else pipeline.srem
        change(connection.key("paused"), *queues)
        pipeline.incr(connection.key("pauses:n"))
        pipeline.execute()

    connection.use(work)


def paused(connection: Connection) -> frozenset[str]:
    """See `Broker.paused`."""
    return frozenset(name.decode() for name in connection.execute("SMEMBERS", connection.key("paused")))
