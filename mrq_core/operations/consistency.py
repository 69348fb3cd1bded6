"""Compares what a broker keeps twice: entries and records, totals and records.

Jobs change while they are compared, so a difference counts only if three comparisons in a row find it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from msgspec.structs import replace

from mrq_core.clock import after
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import Finding, JobFilter
from mrq_core.contract.naming import shown_names
from mrq_core.contract.record import WAITING, Status
from mrq_core.operations.jobs import count_all

_UNFINISHED = (*sorted(WAITING), Status.STARTED)
_COMPARISONS, _PAUSE = 3, 0.05
_FUTURE_SECONDS = 366 * 86_400.0
_SUBJECT = "consistency"
_SHOWN = 5
LARGE = 100_000
"""The number of jobs from which on a check compares nothing without a request: it counts them one by one."""


def consistency_findings(broker: Broker) -> list[Finding]:
    """The differences between entries, records and totals. Counts all jobs one by one."""
    found = [*_entries_and_records(broker), *_totals_and_records(broker)]
    if found:
        return found
    message = "queues, records and totals agree"
    return [Finding(level="ok", subject=_SUBJECT, message=message)]


def is_large(broker: Broker) -> bool:
    """Whether a comparison of all jobs takes long."""
    return sum(broker.totals().by_status().values()) > LARGE


def count_records(broker: Broker, wanted: JobFilter, group_by: str | None = None) -> dict[str, int]:
    """The numbers of stored jobs that have not expired, counted one by one: totals do not answer for a filter
    with a time."""
    return count_all(broker, replace(wanted, until=after(broker.now(), _FUTURE_SECONDS)), group_by)


def _entries_and_records(broker: Broker) -> Iterator[Finding]:
    def differing() -> dict[str, int]:
        records = count_records(broker, JobFilter(statuses=_UNFINISHED), "queue")
        names = sorted({*records, *_all_queue_names(broker)})
        counts = {one.queue: one.waiting + one.claimed for one in broker.counts(names)} if names else {}
        return {
            name: counts.get(name, 0) - records.get(name, 0)
            for name in names
            if counts.get(name, 0) != records.get(name, 0)
        }

    steady = _steady(differing)
    without_entry = {name: -number for name, number in steady.items() if number < 0}
    without_record = {name: number for name, number in steady.items() if number > 0}
    if without_entry:
        jobs = f"{sum(without_entry.values()):,} unfinished jobs"
        yield Finding(
            level="error",
            subject=_SUBJECT,
            message=f"{jobs} have no entry in {_named(without_entry)}",
            advice="`mrq check --repair` puts jobs back into their queues.",
        )
    if without_record:
        entries = f"{sum(without_record.values()):,} entries"
        yield Finding(
            level="warning",
            subject=_SUBJECT,
            message=f"{entries} have no unfinished job in {_named(without_record)}",
            advice="The next claims remove such entries, and start nothing.",
        )


def _totals_and_records(broker: Broker) -> Iterator[Finding]:
    def differing() -> dict[str, int]:
        totals = {str(status): number for status, number in broker.totals().by_status().items()}
        records = count_records(broker, JobFilter(), "status")
        return {
            status: totals.get(status, 0) - records.get(status, 0)
            for status in {*totals, *records}
            if totals.get(status, 0) < records.get(status, 0)  # expired jobs count until they are pruned
        }

    steady = _steady(differing)
    if steady:
        parts = ", ".join(f"{-number:,} too few {status}" for status, number in sorted(steady.items()))
        yield Finding(
            level="warning",
            subject=_SUBJECT,
            message=f"the totals differ from the jobs: {parts}",
            advice="Workers recount totals where their broker can lose them; tell the project if it stays.",
        )


def _steady(differing: Callable[[], dict[str, int]]) -> dict[str, int]:
    """The differences that all comparisons find, with the smallest number of each."""
    steady = differing()
    for _ in range(_COMPARISONS - 1):
        if not steady:
            break
        time.sleep(_PAUSE)
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
