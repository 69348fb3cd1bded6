"""What the tasks of a campaign wrote down, put beside what the records say."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from mrq_core.contract.broker import Broker
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import HISTORY_LIMIT, Attempt, JobRecord, Status

TASKS = '''
import os
import time

from mrq_core import get_current_job, get_current_worker, task


def worker_pid():
    """The process of the worker, also in a solo process, whose own id no record knows."""
    return int(get_current_worker().name.rpartition(".")[2])


def note(word):
    """Appends a line to the ledger in one write, which survives the death of the process."""
    record = get_current_job().record
    file = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(file, f"{word} {record.id} {record.claims} {worker_pid()}\\n".encode())
    finally:
        os.close(file)


@task
def work(seconds: float):
    note("start")
    time.sleep(seconds)
    note("end")
    return {"claim": get_current_job().record.claims, "pid": worker_pid()}
'''

LOST = "lost"
"""How an attempt ended of which nobody said how: beside the statuses."""

_REFUSED = re.compile(r"claim\.lost id=(\w+) status=")
_LOST = re.compile(r"claim\.lost id=(\w+)")


class Mark(NamedTuple):
    """One attempt, as its task knew it."""

    job: str
    claim: int
    pid: int


class Ledger:
    """The attempts that wrote their start and their end."""

    def __init__(self, path: Path) -> None:
        self.starts: Counter[Mark] = Counter()
        self.ends: Counter[Mark] = Counter()
        for line in path.read_text().splitlines():
            word, job, claim, pid = line.split()
            marks = {"start": self.starts, "end": self.ends}[word]
            marks[Mark(job, int(claim), int(pid))] += 1


def mark_of(record: JobRecord, attempt: Attempt) -> Mark:
    """The attempt, as the record knows it. A worker is called by its host and its process."""
    return Mark(record.id, attempt.claim, int(attempt.worker.rpartition(".")[2]))


def ending_of(attempt: Attempt) -> str:
    """How the attempt ended, a lost one included."""
    return LOST if attempt.lost else attempt.status.value


def check(
    records: Iterable[JobRecord],
    ledger: Ledger,
    *,
    repeated_after: str | Collection[str],
    clock_steps: bool = False,
) -> Counter[str]:
    """Each job succeeded in its latest attempt, and ledger and record tell the same of all attempts.

    A job is repeated only after an attempt that ended as said, or one that was given back before
    its code ran. Returns how many attempts ended how, and how many starts there were. `clock_steps`: the
    clock was set back meanwhile, so that times may not be in their order.
    """
    repeating = {repeated_after} if isinstance(repeated_after, str) else set(repeated_after)
    counted: Counter[str] = Counter()
    explained: set[Mark] = set()
    for record in records:
        assert record.status is Status.SUCCESS, record
        assert record.claims <= HISTORY_LIMIT + 1, "the record does not list all its attempts"
        assert [attempt.claim for attempt in record.attempts] == list(range(1, record.claims + 1)), record
        *earlier, last = record.attempts
        endings = Counter(ending_of(attempt) for attempt in earlier)
        assert set(endings) <= {*repeating, Status.QUEUED.value}, record
        assert record.lost_claims == 0, record  # the success ended the row
        for before, after in zip(record.attempts, record.attempts[1:], strict=False):
            assert clock_steps or before.ended_at <= after.started_at, record
        for attempt in record.attempts:
            mark, ending = mark_of(record, attempt), ending_of(attempt)
            counted[ending] += 1
            explained.add(mark)
            starts = ledger.starts[mark]
            # A worker may be hit between the claim and the first line of the task's code.
            is_start_open = ending in repeating
            assert starts == 0 if ending == Status.QUEUED else starts == 1 or (starts == 0 and is_start_open)
            counted["started"] += starts
            counted["hit before the start"] += ending in repeating and not starts
            counted["hit after the end"] += ending in repeating and bool(ledger.ends[mark])
        assert ledger.ends[mark_of(record, last)] == 1, record
        assert record.result == {"claim": last.claim, "pid": mark_of(record, last).pid}, record
    assert set(ledger.starts) <= explained
    assert set(ledger.ends) <= set(ledger.starts)
    assert max(ledger.ends.values()) == 1
    return counted


def lost_attempts(records: Iterable[JobRecord]) -> Counter[tuple[str, int]]:
    """How often each job was lost by each process."""
    marks = [mark_of(record, attempt) for record in records for attempt in record.attempts if attempt.lost]
    return Counter((mark.job, mark.pid) for mark in marks)


def refused_settles(outputs: Mapping[int, str]) -> Counter[tuple[str, int]]:
    """How often each process was told that an outcome came too late, by what it printed."""
    return Counter((job, pid) for pid, output in outputs.items() for job in _REFUSED.findall(output))


def noticed_losses(outputs: Mapping[int, str]) -> set[tuple[str, int]]:
    """Which processes noticed that they had lost which job, at a renewal or at its settle."""
    return {(job, pid) for pid, output in outputs.items() for job in _LOST.findall(output)}


def all_records(broker: Broker) -> list[JobRecord]:
    """All records, page by page."""
    records: list[JobRecord] = []
    cursor: str | None = None
    while True:
        page = broker.find(JobFilter(), cursor=cursor, limit=200)
        records += page.records
        cursor = page.cursor
        if cursor is None:
            return records


def check_totals(broker: Broker, records: Iterable[JobRecord]) -> None:
    """The totals that are kept up to date are those that a recount gives."""
    by_queue: Counter[tuple[str, Status]] = Counter()
    by_path: Counter[tuple[str, Status]] = Counter()
    for record in records:
        by_queue[record.queue, record.status] += 1
        by_path[record.path, record.status] += 1
    totals = broker.totals()
    assert _flat(totals.by_queue) == by_queue
    assert _flat(totals.by_path) == by_path


def _flat(totals: Mapping[str, Mapping[Status, int]]) -> dict[tuple[str, Status], int]:
    return {(name, status): n for name, row in totals.items() for status, n in row.items() if n}
