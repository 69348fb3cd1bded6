"""A JobFilter as SQL. Every value is bound; the text is made of the constants below only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mrq_core.clock import to_ms
from mrq_core.contract import codec
from mrq_core.contract.messages import JobFilter
from mrq_core.contract.terms import wanted_terms
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
    "schedule": "schedule IN (SELECT value FROM json_each(?))",
}
_HAS_TERM = """EXISTS (SELECT 1 FROM terms WHERE terms.name = ? AND terms.job_id = jobs.id
                   AND terms.value IN (SELECT value FROM json_each(?)))"""


class Condition(NamedTuple):
    """What a row has to satisfy, except for params."""

    sql: str
    values: tuple[object, ...]


def condition(wanted: JobFilter, now_ms: int | None) -> Condition:
    """The condition of a filter, without the rows that have expired by the time. None: with all rows."""
    parts: list[str] = ["1"] if now_ms is None else [_VISIBLE]
    values: list[object] = [] if now_ms is None else [now_ms]
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
    for part in wanted_terms(wanted):
        [name] = {term.name for term in part}
        parts.append(_HAS_TERM)
        values += [name, _list([term.value for term in part])]
    return Condition(" AND ".join(parts), tuple(values))


def _columns(wanted: JobFilter) -> dict[str, Sequence[str]]:
    return {
        "status": [status.value for status in wanted.statuses],
        "path": wanted.paths,
        "queue": wanted.queues,
        "worker": wanted.workers,
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
