"""Adds search keys to jobs that were enqueued before their task named params in `searchable`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mrq_core.contract.broker import Broker
from mrq_core.contract.codec import JsonValue
from mrq_core.contract.messages import AddedKeys, ChangeResult
from mrq_core.contract.queries import JobFilter, Order
from mrq_core.contract.record import JobRecord
from mrq_core.contract.terms import keys_in
from mrq_core.errors import ConfigError, shown_error
from mrq_core.ids import id_at
from mrq_core.plugins.manager import Plugins

NAMESPACE = "search-keys"
"""The shared state with the progress, by path: the names of the params, and the id up to which jobs have
keys."""
BATCH = 200
"""The number of jobs that one step reads."""
_DAY = 86_400.0
"""The id of a new job may be this old: clients choose ids."""

SearchableOf = Callable[[str], Sequence[str]]
"""The names of the params by which jobs of a task are found, by the path of the task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FillStep:
    """The result of one step, for jobs of one task."""

    path: str
    examined: int
    filled: int
    """The number of jobs that got search keys."""
    failed: int = 0
    """The number of jobs whose params no plugin could decode."""
    error: str | None = None
    """The error of the first of these jobs."""


def fill_search_keys(broker: Broker, plugins: Plugins, searchable_of: SearchableOf) -> Iterator[FillStep]:
    """Adds the missing search keys to the jobs of all tasks, in steps of `BATCH` jobs, oldest first.

    Safe beside running workers, and in several processes at once. A repetition continues where the last call
    got to, unless the task names other params by now. `searchable_of` is `Client.searchable_of`.
    """
    for path in sorted(broker.totals().by_path):
        names = _names(searchable_of, path)
        if names:
            yield from _fill_task(broker, plugins, path, names)


def _names(searchable_of: SearchableOf, path: str) -> Sequence[str]:
    """The names of the params. Invalid options, which the worker and `mrq check` report, name none."""
    try:
        return searchable_of(path)
    except ConfigError:
        return ()


def _fill_task(broker: Broker, plugins: Plugins, path: str, names: Sequence[str]) -> Iterator[FillStep]:
    cursor = _progress(broker, path, names)
    while True:
        wanted = JobFilter(paths=(path,))
        page = broker.find(wanted, order=Order.OLDEST_FIRST, cursor=cursor, limit=BATCH)
        added: list[AddedKeys] = []
        errors: list[str] = []
        for record in page.records:
            try:
                added += _missing(record, plugins.decode(record.params), names)
            except Exception as error:  # of a plugin, such as a key that is gone; or the keys are too large
                errors.append(f"{record.id}: {shown_error(error)}")
        answers = broker.add_search_keys(added) if added else []
        yield FillStep(
            path=path,
            examined=len(page.records),
            filled=answers.count(ChangeResult.DONE),
            failed=len(errors),
            error=errors[0] if errors else None,
        )
        cursor = page.cursor
        _keep_progress(broker, path, names, cursor)
        if cursor is None:
            return


def _missing(record: JobRecord, params: JsonValue, names: Sequence[str]) -> list[AddedKeys]:
    missing = [name for name in names if name not in record.search_keys]
    keys = keys_in(params, missing) if missing and isinstance(params, dict) else {}
    return [AddedKeys(id=record.id, search_keys=keys)] if keys else []


def _progress(broker: Broker, path: str, names: Sequence[str]) -> str | None:
    """The id up to which the jobs of the task have the keys."""
    item = broker.state.get(NAMESPACE, path)
    match item.value if item is not None else None:
        case {"names": list(known), "after": str(job_id)} if known == list(names):
            return job_id
    return None


def _keep_progress(broker: Broker, path: str, names: Sequence[str], cursor: str | None) -> None:
    oldest = id_at(broker.now().timestamp() - _DAY)
    after = oldest if cursor is None else min(cursor, oldest)
    broker.state.put(NAMESPACE, path, {"names": list(names), "after": after})
