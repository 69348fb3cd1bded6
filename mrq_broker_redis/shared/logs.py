"""The logs of jobs."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mrq_broker_redis.jobs.records import binary
from mrq_broker_redis.server.connection import Connection
from mrq_core.clock import from_ms, to_ms
from mrq_core.contract.naming import log_position
from mrq_core.contract.queries import LogLine, LogPage
from mrq_core.errors import JobNotFound

BATCH = 500
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
            part.append([line.job_id, _position(line.attempt, line.seq), stored, size, full])
        connection.run("logs", [max_size, part], repeatable=True, even_if_full=True)


def read(connection: Connection, job_id: str, cursor: str | None, limit: int) -> LogPage:
    """See `Broker.read_logs`."""
    attempt, seq = log_position(cursor)
    after = _position(attempt, seq + 1) if attempt >= 0 else ""
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


def _position(attempt: int, seq: int) -> str:
    return f"{attempt:0{_DIGITS}d}{seq:0{_DIGITS}d}"
