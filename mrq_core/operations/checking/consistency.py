"""Compares what a broker keeps twice: entries and records, totals and records, indexes and records.

Jobs change while they are compared. So a number that is kept beside the records is read before and after the
records are counted, and differs only if their number does not lie between the two. And a difference counts
only if eight comparisons in a row find it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from msgspec.structs import replace

from mrq_core.clock import after
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import CHUNK
from mrq_core.contract.naming import shown_names
from mrq_core.contract.queries import Finding, JobFilter, Order
from mrq_core.contract.record import UNFINISHED, JobRecord, Status
from mrq_core.contract.terms import words_of
from mrq_core.operations.checking.damaged_jobs import damaged_findings
from mrq_core.operations.jobs import count_all

_COMPARISONS = 8
_PAUSE, _PAUSE_GROWTH = 0.05, 1.5
"""Seconds before the second comparison, and the growth of further pauses, which all differ: a producer that
works at intervals could otherwise be met at the same moment each time."""
_FUTURE_SECONDS = 366 * 86_400.0
_SUBJECT = "consistency"
_SHOWN = 5
_SAMPLED = 50
"""The jobs of each kind that are sought in the indexes."""
_RAISED = (Status.FAILED, Status.RETRY, Status.TIMEOUT, Status.MAXRETRIES, Status.ABORT, Status.INTERRUPT)
_ANY_NUMBER = 1 << 62
LARGE = 100_000
"""The number of jobs from which on a check compares nothing without a request: it counts them one by one."""


def consistency_findings(broker: Broker, *, prunes: bool = False) -> list[Finding]:
    """The differences between entries, records, totals and indexes, and jobs that cannot be read. Counts all
    jobs one by one.

    `prunes`: reads all jobs, not only unfinished ones, and deletes expired jobs first. Without it, totals may
    be too high by the expired jobs, and only totals that are too low are found.
    """
    found = [
        *damaged_findings(broker, reads_all=prunes),
        *(_entries_and_records(broker) if broker.has_separate_entries else ()),
        *_totals_and_records(broker, prunes=prunes),
        *_indexes_and_records(broker),
    ]
    if found:
        return found
    message = "queues, records, totals and indexes agree"
    return [Finding(level="ok", subject=_SUBJECT, message=message)]


def is_large(broker: Broker) -> bool:
    """Whether a comparison of all jobs takes long."""
    return sum(broker.totals().by_status().values()) > LARGE


def count_records(broker: Broker, wanted: JobFilter, group_by: str | None = None) -> dict[str, int]:
    """The numbers of stored jobs that have not expired, counted one by one: totals do not answer for a filter
    with a time."""
    return count_all(broker, replace(wanted, until=after(broker.now(), _FUTURE_SECONDS)), group_by)


def _entries_and_records(broker: Broker) -> Iterator[Finding]:
    def numbers_of(names: Iterable[str]) -> dict[str, int]:
        known = sorted({*names, *_all_queue_names(broker)})
        return {one.queue: one.waiting + one.claimed for one in broker.counts(known)} if known else {}

    def differing() -> dict[str, int]:
        before = numbers_of(())
        records = Counter(count_records(broker, JobFilter(statuses=UNFINISHED), "queue"))
        later = numbers_of({*before, *records})
        found = _outside(before, records, later)
        if min(found.values(), default=0) < 0:
            records.subtract(_ended_interrupts(broker))
            found = _outside(before, records, later)
        return found

    steady = _steady(differing)
    without_entry = {name: -number for name, number in steady.items() if number < 0}
    without_record = {name: number for name, number in steady.items() if number > 0}
    if without_entry:
        number = sum(without_entry.values())
        jobs = "1 unfinished job has" if number == 1 else f"{number:,} unfinished jobs have"
        yield Finding(
            level="error",
            subject=_SUBJECT,
            message=f"{jobs} no entry in {_named(without_entry)}",
            advice="`mrq check --repair` puts jobs back into their queues.",
        )
    if without_record:
        number = sum(without_record.values())
        entries = "1 entry has" if number == 1 else f"{number:,} entries have"
        yield Finding(
            level="warning",
            subject=_SUBJECT,
            message=f"{entries} no unfinished job in {_named(without_record)}",
            advice="The next claims remove such entries, and start nothing; jobs that only searches have "
            "lost are started.",
        )


def _ended_interrupts(broker: Broker) -> Counter[str]:
    """The numbers of at_most_once jobs that an interrupt has ended, by queue: they are not queued again."""
    found: Counter[str] = Counter()
    wanted, cursor = JobFilter(statuses=(Status.INTERRUPT,)), None
    while True:
        page = broker.find(wanted, cursor=cursor, limit=CHUNK)
        found.update(record.queue for record in page.records if record.is_ended)
        cursor = page.cursor
        if cursor is None:
            return found


def _totals_and_records(broker: Broker, *, prunes: bool) -> Iterator[Finding]:
    def totals() -> dict[str, int]:
        return {str(status): number for status, number in broker.totals().by_status().items()}

    def differing() -> dict[str, int]:
        if prunes:
            prune_all(broker)
        before = totals()
        records = count_records(broker, JobFilter(), "status")
        differences = _outside(before, records, totals())
        expired = prune_all(broker) if prunes else _ANY_NUMBER
        return {
            status: number - expired if number > 0 else number
            for status, number in differences.items()
            if number < 0 or number > expired
        }

    steady = _steady(differing)
    if steady:
        parts = ", ".join(
            f"{abs(number):,} too {'few' if number < 0 else 'many'} {status}"
            for status, number in sorted(steady.items())
        )
        yield Finding(
            level="warning",
            subject=_SUBJECT,
            message=f"the totals differ from the jobs: {parts}",
            advice="`mrq check --repair` corrects totals where their broker can lose them; tell the project "
            "if the difference stays.",
        )


def prune_all(broker: Broker) -> int:
    """Deletes all expired jobs, and completes what crashes have left. Returns the number of jobs."""
    return sum(prune_steps(broker))


def prune_steps(broker: Broker) -> Iterator[int]:
    """Does the same in steps. Yields the number of jobs of each."""
    while pruned := broker.prune():
        yield pruned


def _indexes_and_records(broker: Broker) -> Iterator[Finding]:
    def differing() -> dict[str, int]:
        lost: Counter[str] = Counter()
        for record in _sample(broker):
            lost.update(kind for kind, wanted in _searches_of(record) if not _finds(broker, wanted, record))
        return lost

    steady = _steady(differing)
    if steady:
        parts = ", ".join(f"{number:,} by {kind}" for kind, number in sorted(steady.items()))
        yield Finding(
            level="warning",
            subject=_SUBJECT,
            message=f"searches do not find some of the newest jobs: {parts}",
            advice="The index of the broker has lost entries: make sure that its server keeps all data, and "
            "tell the project if it does.",
        )


def _sample(broker: Broker) -> list[JobRecord]:
    """The newest jobs, and the newest whose latest attempt raised."""
    found = {
        record.id: record
        for wanted in (JobFilter(), JobFilter(statuses=_RAISED))
        for record in broker.find(wanted, limit=_SAMPLED).records
    }
    return list(found.values())


def _searches_of(record: JobRecord) -> Iterator[tuple[str, JobFilter]]:
    """The searches that find a job through one index each."""
    yield "status", JobFilter(statuses=(record.status,))
    yield "path", JobFilter(paths=(record.path,))
    yield "queue", JobFilter(queues=(record.queue,))
    if record.schedule:
        yield "schedule", JobFilter(schedules=(record.schedule,))
    for name, value in record.search_keys.items():
        yield "search key", JobFilter(search_keys={name: value})
    if record.exception_type is not None:
        yield "exception type", JobFilter(exception_types=(record.exception_type,))
        for word in words_of(record.exception_message or ""):
            yield "error word", JobFilter(error_words=(word,))
        if record.error_group is not None:
            yield "error group", JobFilter(error_groups=(record.error_group,))


def _finds(broker: Broker, wanted: JobFilter, record: JobRecord) -> bool:
    """Whether the search finds the job, or the job has changed since it was read."""
    before = f"{max(0, int(record.id, 16) - 1):024x}"
    page = broker.find(wanted, order=Order.OLDEST_FIRST, cursor=before, limit=1)
    if page.searched_until is not None or any(found.id == record.id for found in page.records):
        return True
    [now] = broker.get([record.id])
    return now is None or (now.updated_at, now.status) != (record.updated_at, record.status)


def _outside(
    before: Mapping[str, int], records: Mapping[str, int], after_it: Mapping[str, int]
) -> dict[str, int]:
    """The smaller of the differences between the number of records, and the numbers that were read before and
    after it: negative if both numbers are smaller. Leaves out names whose number of records lies between."""
    found = {}
    for name in {*before, *records, *after_it}:
        differences = [numbers.get(name, 0) - records.get(name, 0) for numbers in (before, after_it)]
        if min(differences) > 0 or max(differences) < 0:
            found[name] = min(differences, key=abs)
    return found


def _steady(differing: Callable[[], dict[str, int]]) -> dict[str, int]:
    """The differences that all comparisons find, with the smallest number of each."""
    steady = differing()
    for index in range(_COMPARISONS - 1):
        if not steady:
            break
        time.sleep(_PAUSE * _PAUSE_GROWTH**index)
        again = differing()
        steady = {
            name: min(number, again[name], key=abs)
            for name, number in steady.items()
            if name in again and (number > 0) == (again[name] > 0)
        }
    return steady


def _all_queue_names(broker: Broker) -> Iterator[str]:
    last = ""
    while names := broker.queue_names(after=last):
        yield from names
        last = names[-1]


def _named(numbers: dict[str, int]) -> str:
    more = f" and {len(numbers) - _SHOWN} other queues" if len(numbers) > _SHOWN else ""
    return f"{shown_names(list(numbers)[:_SHOWN])}{more}"
