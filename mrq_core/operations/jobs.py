"""Jobs and logs as the command line and a dashboard read them: several pages of the broker in one call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import CHUNK
from mrq_core.contract.queries import JobFilter, LogLine, LogPage, Order
from mrq_core.contract.record import JobRecord
from mrq_core.contract.values import check_job_id
from mrq_core.operations.queries.filters import number_from_totals


class JobList(msgspec.Struct, frozen=True, kw_only=True):
    """Matching jobs. `cursor` continues the list; None: the list is complete.

    `total` is the number of all matching jobs, if the list is incomplete and the broker's totals have it.
    """

    records: tuple[JobRecord, ...]
    cursor: str | None
    total: int | None


def count_all(broker: Broker, wanted: JobFilter, group_by: str | None = None) -> dict[str, int]:
    """The numbers of all matching jobs, as `Broker.count` gives them, in steps of at most 250 ms."""
    numbers: Counter[str] = Counter()
    cursor: str | None = None
    while True:
        counted = broker.count(wanted, group_by, cursor=cursor)
        numbers.update(counted.numbers)
        cursor = counted.cursor
        if cursor is None:
            return dict(numbers)


def list_jobs(
    broker: Broker,
    wanted: JobFilter,
    *,
    limit: int,
    order: Order = Order.NEWEST_FIRST,
    cursor: str | None = None,
    on_scan: Callable[[], None] = lambda: None,
) -> JobList:
    """Lists up to `limit` matching jobs. Without an index for the filter it scans all jobs, in steps of
    250 ms; then it calls `on_scan` once, after the first step. So it does if the broker is slow."""
    records: list[JobRecord] = []
    is_scanning = False
    while True:
        page = broker.find(wanted, order=order, cursor=cursor, limit=min(limit - len(records), CHUNK))
        records += page.records
        cursor = page.cursor
        if cursor is None or len(records) >= limit:
            break
        if page.searched_until is not None and not is_scanning:
            is_scanning = True
            on_scan()
    total = number_from_totals(wanted, broker.totals()) if cursor is not None else None
    return JobList(records=tuple(records), cursor=cursor, total=total)


class Relative(msgspec.Struct, frozen=True, kw_only=True):
    """A parent or child of a job. `record` None: the job was removed, or has expired."""

    id: str
    record: JobRecord | None


def relatives(broker: Broker, ids: Sequence[str], *, limit: int = 50) -> list[Relative]:
    """The first jobs with these ids. One round trip."""
    wanted = list(ids[:limit])
    return [
        Relative(id=job_id, record=record)
        for job_id, record in zip(wanted, broker.get(wanted) if wanted else (), strict=True)
    ]


def read_log(broker: Broker, job_id: str, cursor: str | None = None) -> LogPage:
    """All lines of a job's log behind the cursor, as one page. Raises JobNotFound, and InvalidValue
    for a malformed id."""
    job_id = check_job_id(job_id)
    page = broker.read_logs(job_id, cursor=cursor, limit=CHUNK)
    lines = list(page.lines)
    while page.lines:
        page = broker.read_logs(job_id, cursor=page.cursor, limit=CHUNK)
        lines += page.lines
    return LogPage(lines=tuple(lines), cursor=page.cursor)


class LogTail(msgspec.Struct, frozen=True, kw_only=True):
    """The last lines of one attempt, and the number of lines of the attempt before them. `cursor` continues
    the log."""

    lines: tuple[LogLine, ...]
    left_out: int
    cursor: str


def read_log_tail(broker: Broker, job_id: str, attempt: int, most: int) -> LogTail:
    """The last lines of an attempt, up to `most`, at most CHUNK / 2.

    Sequence numbers count from 1, so that the end is sought among them: about ten reads of one line, however
    long the log is. Raises JobNotFound, and InvalidValue for a malformed id.
    """
    job_id = check_job_id(job_id)

    def after(seq: int, limit: int) -> list[LogLine]:
        page = broker.read_logs(job_id, cursor=f"{attempt}.{seq}", limit=limit)
        return [line for line in page.lines if line.attempt == attempt]

    known, beyond = -1, most
    while after(beyond, 1):
        known, beyond = beyond, beyond * 4
    while beyond - known > most:  # the attempt has a line after `known`, and none after `beyond`
        middle = (known + beyond) // 2
        known, beyond = (middle, beyond) if after(middle, 1) else (known, middle)
    found = after(max(-1, known - most), 2 * most)
    lines = tuple(found[-most:])
    last = lines[-1].seq if lines else -1
    return LogTail(lines=lines, left_out=max(0, lines[0].seq - 1) if lines else 0, cursor=f"{attempt}.{last}")
