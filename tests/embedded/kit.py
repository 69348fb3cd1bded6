"""What the tests of the embedded broker share: opening it on a file, and short words for its calls."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from mrq_core.clock import Clock, SystemClock, from_ms
from mrq_core.contract.codec import JsonObject
from mrq_core.contract.driver import Opening
from mrq_core.contract.messages import Claimed, ClaimRequest, NewJob, Outcome, Settlement, Wanted
from mrq_core.contract.record import JobRecord, Status
from mrq_core.embedded.broker import EmbeddedBroker
from mrq_core.embedded.server.connection import Connect
from mrq_core.embedded.server.connection import connect as connect_plainly
from mrq_core.ids import new_id


def open_broker(
    path: Path | str,
    *,
    clock: Clock | None = None,
    timeout: float = 10.0,
    connect: Connect = connect_plainly,
) -> EmbeddedBroker:
    """A broker on the file."""
    opening = Opening(settings={"SQLITE": str(path)}, clock=clock or SystemClock(), timeout=timeout)
    return EmbeddedBroker(opening, connect=connect)


def after_connect(change: Callable[[sqlite3.Connection], object]) -> Connect:
    """Opens connections as the broker does, and then changes them."""

    def connect(path: str, timeout: float) -> sqlite3.Connection:
        connection = connect_plainly(path, timeout)
        change(connection)
        return connection

    return connect


def job(
    queue: str = "q",
    *,
    path: str = "tests.tasks.Example",
    params: JsonObject | None = None,
    priority: int = 0,
    delay: float | None = None,
    at_most_once: bool = False,
    schedule: str | None = None,
    limit_keys: tuple[str, ...] = (),
    search_keys: JsonObject | None = None,
) -> NewJob:
    """A job as a client makes it."""
    now = from_ms(SystemClock().now_ms())
    record = JobRecord(
        id=new_id(),
        path=path,
        params={} if params is None else params,
        queue=queue,
        priority=priority,
        queued_at=now,
        updated_at=now,
        at_most_once=at_most_once,
        schedule=schedule,
        limit_keys=limit_keys,
        search_keys={} if search_keys is None else search_keys,
    )
    return NewJob(record=record, delay=delay)


def claim(broker: EmbeddedBroker, *queues: str, limit: int = 10, lease: float = 60.0) -> Claimed:
    """Claims from the queues, or from ``q``."""
    wanted = tuple(Wanted(name=queue) for queue in queues or ("q",))
    return broker.claim(ClaimRequest(worker="w1", wanted=wanted, limit=limit, lease=lease))


def succeed(record: JobRecord) -> Settlement:
    """The success of a claimed job."""
    assert record.token is not None
    return Settlement(id=record.id, token=record.token, outcome=Outcome(status=Status.SUCCESS, ttl=1000.0))
