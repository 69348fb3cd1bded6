"""A JobFilter as SQL. Every value is bound; the text is made of the constants below only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mrq_core.clock import to_ms
from mrq_core.contract import codec
from mrq_core.contract.messages import JobFilter
from mrq_core.embedded.jobs.trees import end_of

_VISIBLE = "(expires_ms IS NULL OR expires_ms > ?)"
_IDS = "id IN (SELECT value FROM json_each(?))"
_SINCE = "queued_ms >= ?"
_UNTIL = "queued_ms < ?"
_TREE = "(queue > ? AND queue < ?)"
_ONE_OF = {
    "status": "status IN (SELECT value FROM json_each(?))",
    "path": "path IN (SELECT value FROM json_each(?))",
    "queue": "queue IN (SELECT value FROM json_each(?))",
    "worker": "worker IN (SELECT value FROM json_each(?))",
    "exception_type": "exception_type IN (SELECT value FROM json_each(?))",
    "schedule": "schedule IN (SELECT value FROM json_each(?))",
}


class Condition(NamedTuple):
    """What a row has to satisfy, except for params."""

    sql: str
    values: tuple[object, ...]


def condition(wanted: JobFilter, now_ms: int) -> Condition:
    """The condition of a filter, expired rows left out."""
    parts: list[str] = [_VISIBLE]
    values: list[object] = [now_ms]
    if wanted.ids:
        parts.append(_IDS)
        values.append(_list(wanted.ids))
    for column, names in _columns(wanted).items():
        if column == "queue":
            sql, bound = _queues(names)
            parts.append(sql)
            values.extend(bound)
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


def served_by(wanted: JobFilter) -> list[tuple[str, tuple[str, ...]]]:
    """Columns with an index over (column, id) that the filter gives values of, the rarest first."""
    columns = _columns(wanted)
    served = []
    for column in ("exception_type", "schedule", "status", "queue", "path"):
        names = columns[column]
        if names and not any(column == "queue" and name.endswith("/") for name in names):
            served.append((column, tuple(dict.fromkeys(names))))
    return served


def _columns(wanted: JobFilter) -> dict[str, Sequence[str]]:
    return {
        "status": [status.value for status in wanted.statuses],
        "path": wanted.paths,
        "queue": wanted.queues,
        "worker": wanted.workers,
        "exception_type": wanted.exception_types,
        "schedule": wanted.schedules,
    }


def _queues(names: Sequence[str]) -> tuple[str, list[object]]:
    if not names:
        return "1", []
    parts, values = [_ONE_OF["queue"]], [_list([name for name in names if not name.endswith("/")])]
    for name in names:
        if name.endswith("/"):
            parts.append(_TREE)
            values += [name, end_of(name)]
    return f"({' OR '.join(parts)})", list(values)


def _list(names: Sequence[str]) -> str:
    return codec.encode(list(names)).decode()
