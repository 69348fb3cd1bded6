"""Upgrades of the data of earlier versions. See `mrq_core.drivers.versions`."""

from __future__ import annotations

from collections.abc import Iterator

from mrq_broker_redis.jobs import records
from mrq_broker_redis.server.connection import Connection
from mrq_broker_redis.shared.state import RedisState
from mrq_core.contract import rules
from mrq_core.contract.record import Status

BATCH = 100
"""The most jobs that one script reads or writes."""
_EXCEPTION_TYPE = 4
"""The index of the exception type in the answer of the script `columns`."""


def add_exceptions(connection: Connection) -> None:
    """The upgrade to version 2: exceptions are stored with their terms, and counted by error group; metrics
    have tags, and pauses move into shared state.

    Version 1 had an index by exception type, which is deleted. A worker of version 1 would store no terms.
    """
    for status in Status:
        for ids in _batches(connection, connection.key(f"i:s:{status}")):
            while ids := _with_exceptions(connection, ids):
                ids = _stored(connection, ids)
    _delete_minutes(connection)
    move_pauses(connection)


def _delete_minutes(connection: Connection) -> None:
    """Deletes the metrics of version 1, whose workers recorded none."""
    minutes = connection.key("minutes")
    while found := connection.execute("ZRANGE", minutes, 0, BATCH - 1):
        connection.execute("UNLINK", *(connection.key(f"m:{minute.decode()}") for minute in found))
        connection.execute("ZREM", minutes, *found)


def _batches(connection: Connection, key: str) -> Iterator[list[str]]:
    """The ids in an index."""
    after = "-"
    while found := connection.execute("ZRANGEBYLEX", key, after, "+", "LIMIT", 0, BATCH):
        ids = [member.decode() for member in found]
        yield ids
        after = f"({ids[-1]}"


def _with_exceptions(connection: Connection, ids: list[str]) -> list[str]:
    """Those of the jobs that have an exception type among their columns."""
    if not ids:
        return []
    _, *rows = connection.run("columns", [ids, False, False, [], []], repeatable=True)
    pairs = zip(ids, rows, strict=True)
    return [job_id for job_id, row in pairs if row is not None and row[_EXCEPTION_TYPE] is not None]


def _stored(connection: Connection, ids: list[str]) -> list[str]:
    """Stores the exceptions of the jobs; returns the ids of the jobs that have changed meanwhile."""
    _, *rows = connection.run("read", ids, repeatable=True)
    found = [
        (job_id, records.read(job_id, row)) for job_id, row in zip(ids, rows, strict=True) if row is not None
    ]
    arguments = [
        [
            job_id,
            records.binary(b" ".join(one.seen.split(b" ")[:3])),
            False if one.record.exception_type is None else records.exception_of(one.record),
        ]
        for job_id, one in found
    ]
    answers = connection.run("add_exceptions", arguments, repeatable=True)
    return [job_id for (job_id, _), is_done in zip(found, answers, strict=True) if not is_done]


def move_pauses(connection: Connection) -> None:
    """Moves the pauses of version 1 into shared state. Repeating the move after a crash is harmless."""
    key = connection.key("paused")
    for name in connection.execute("SMEMBERS", key):
        RedisState(connection).put(rules.PAUSED_QUEUES, name.decode(), {})
        connection.execute("SREM", key, name)
    connection.execute("DEL", connection.key("pauses:n"))
