"""A JobFilter as SQL. Every value is bound; the text is made of the constants below only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mrq_core.clock import to_ms
from mrq_core.contract import codec
from mrq_core.contract.queries import JobFilter
from mrq_core.embedded.jobs.trees import end_of

LISTED = "IN (SELECT value FROM json_each(?))"
"""Compares a column with a list, which is bound as JSON."""
_VISIBLE = "(jobs.expires_ms IS NULL OR jobs.expires_ms > ?)"
_IDS = f"jobs.id {LISTED}"
_SINCE = "jobs.queued_ms >= ?"
_UNTIL = "jobs.queued_ms < ?"
_ONE_OF = {
    "status": f"jobs.status {LISTED}",
    "path": f"jobs.path {LISTED}",
    "worker": f"jobs.worker {LISTED}",
    "schedule": f"jobs.schedule {LISTED}",
}


class Condition(NamedTuple):
    """A part of a statement, and its values."""

    sql: str
    values: tuple[object, ...]


def condition(wanted: JobFilter, now_ms: int | None) -> Condition:
    """The condition of a filter for a row of `jobs`, except for params and terms.

    Expired rows are left out. `now_ms` of None: they are not."""
    parts: list[str] = ["1"] if now_ms is None else [_VISIBLE]
    values: list[object] = [] if now_ms is None else [now_ms]
    if wanted.ids:
        parts.append(_IDS)
        values.append(_list(wanted.ids))
    for column, names in _columns(wanted).items():
        if column == "queue":
            inside = in_queues("jobs.queue", names)
            parts.append(inside.sql)
            values.extend(inside.values)
        elif names:
            parts.append(_ONE_OF[column])
            values.append(_list(names))
    if wanted.since is not None:
        parts.append(_SINCE)
        values.append(to_ms(wanted.since))
    if wanted.until is not None:
        parts.append(_UNTIL)
        values.append(to_ms(wanted.until))
    return Condition(" AND ".join(parts), tuple(values))


def _columns(wanted: JobFilter) -> dict[str, Sequence[str]]:
    return {
        "status": [status.value for status in wanted.statuses],
        "path": wanted.paths,
        "queue": wanted.queues,
        "worker": wanted.workers,
        "schedule": wanted.schedules,
    }


def in_queues(column: str, names: Sequence[str]) -> Condition:
    """Whether the column has one of the queues, or a queue of one of the trees. No names: any queue."""
    if not names:
        return Condition("1", ())
    parts, values = [f"{column} {LISTED}"], [_list([name for name in names if not name.endswith("/")])]
    for name in names:
        if name.endswith("/"):
            parts.append(f"({column} >= ? AND {column} < ?)")
            values += [name, end_of(name)]
    return Condition(f"({' OR '.join(parts)})", tuple(values))


def _list(names: Sequence[str]) -> str:
    return codec.encode(list(names)).decode()
