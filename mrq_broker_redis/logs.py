"""The logs of jobs, and the figures of workers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from mrq_broker_redis.connection import Connection
from mrq_broker_redis.rows import binary
from mrq_core.clock import from_ms, to_ms
from mrq_core.contract.messages import LogLine, LogPage, Metric
from mrq_core.contract.naming import log_position
from mrq_core.errors import JobNotFound

BATCH = 500
MINUTE_MS = 60_000
_DIGITS = 18
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(tuple[int, str, str]).decode


def append(connection: Connection, lines: Sequence[LogLine], max_size: int) -> None:
    """See `Broker.append_logs`."""
    note = f"the log of this job is full ({max_size:,} bytes): this line and later ones were dropped"
    for start in range(0, len(lines), BATCH):
        part = []
        for line in lines[start : start + BATCH]:
            at_ms = to_ms(line.at)
            stored = binary(_pack((at_ms, line.level, line.message)))
            size = len(line.message.encode())
            full = binary(_pack((at_ms, "WARNING", note)))
            part.append([line.job_id, _place(line.attempt, line.seq), stored, size, full])
        connection.run("logs", [max_size, part], repeatable=True)


def read(connection: Connection, job_id: str, cursor: str | None, limit: int) -> LogPage:
    """See `Broker.read_logs`."""
    attempt, seq = log_position(cursor)
    after = _place(attempt, seq + 1) if attempt >= 0 else ""
    found = connection.run("log_page", [job_id, after, limit], repeatable=True)
    if found is None:
        raise JobNotFound(job_id)
    lines = []
    for data in found:
        attempt, seq = int(data[:_DIGITS]), int(data[_DIGITS : 2 * _DIGITS])
        at_ms, level, message = _unpack(data[2 * _DIGITS :])
        lines.append(
            LogLine(
                job_id=job_id,
                attempt=attempt,
                seq=seq,
                at=from_ms(at_ms),
                level=level,
                message=message,
            )
        )
    return LogPage(lines=tuple(lines), cursor=f"{attempt}.{seq}")


def _place(attempt: int, seq: int) -> str:
    return f"{attempt:0{_DIGITS}d}{seq:0{_DIGITS}d}"


def record_metrics(connection: Connection, metrics: Sequence[Metric]) -> None:
    """See `Broker.record_metrics`. One hash for each minute."""

    def work(client: Any) -> None:
        pipeline = client.pipeline(transaction=True)
        for metric in metrics:
            minute = to_ms(metric.at) // MINUTE_MS
            pipeline.hincrbyfloat(connection.key(f"m:{minute}"), metric.name, repr(float(metric.value)))
            pipeline.zadd(connection.key("minutes"), {str(minute): minute})
        pipeline.execute()

    if metrics:
        connection.use(work, repeatable=False)


def read_metrics(connection: Connection, names: Sequence[str], since: float, until: float) -> list[Metric]:
    """See `Broker.read_metrics`. A minute lies between the two times if its beginning does."""
    first, end = (math.ceil(time * 1000 / MINUTE_MS) for time in (since, until))
    ordered = sorted(set(names))
    found = connection.execute("ZRANGEBYSCORE", connection.key("minutes"), first, f"({end}")
    minutes = [int(minute) for minute in found] if ordered else []
    metrics: list[Metric] = []
    for start in range(0, len(minutes), BATCH):
        part = minutes[start : start + BATCH]
        for minute, values in zip(
            part, connection.use(partial(_figures, connection, part, ordered)), strict=True
        ):
            metrics += [
                Metric(name=name, at=from_ms(minute * MINUTE_MS), value=float(value))
                for name, value in zip(ordered, values, strict=True)
                if value is not None
            ]
    return metrics


def _figures(
    connection: Connection, minutes: Sequence[int], names: Sequence[str], client: Any
) -> list[list[bytes | None]]:
    pipeline = client.pipeline(transaction=False)
    for minute in minutes:
        pipeline.hmget(connection.key(f"m:{minute}"), names)
    values: list[list[bytes | None]] = pipeline.execute()
    return values
