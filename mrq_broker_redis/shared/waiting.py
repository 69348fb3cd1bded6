"""Waiting for due entries.

An enqueue pushes a token for each of its jobs to the wake-up lists of the queue and of each tree around it,
where waiting workers pop them. A wait first looks up the entries that are due already, and the next due time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from mrq_broker_redis.jobs.trees import wanted_as_list
from mrq_broker_redis.server.connection import Connection
from mrq_core.clock import monotonic
from mrq_core.contract.messages import Wanted
from mrq_core.contract.naming import raw_kind

DUE = b"1"
"""The token of a due job. Other tokens announce later jobs and limit the wait."""


def wait(connection: Connection, wanted: Sequence[Wanted], timeout: float) -> bool:
    """See `Broker.wait`.

    A lease that ended before the call does not wake, because the claim has seen to it.
    """
    deadline = monotonic() + timeout
    rows = wanted_as_list(wanted)
    queues = [[*row, _kind(one.name)] for row, one in zip(rows, wanted, strict=True)]
    is_simple = not any(one.exclude or one.name.endswith("/") for one in wanted)
    keys = sorted({connection.key(f"wake:{one.name}") for one in wanted})
    began_ms = -1
    while True:
        now, due = connection.run("due", [queues, began_ms])
        now_ms = int(now)
        began_ms = now_ms if began_ms < 0 else began_ms
        seconds = deadline - monotonic()
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
