"""Parses typed filters into a JobFilter. Errors name the expected form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec

from mrq_core.contract.codec import JsonObject, JsonValue, storable
from mrq_core.contract.messages import JobFilter, Totals
from mrq_core.contract.naming import check_queue_or_tree, is_covered
from mrq_core.contract.record import Status
from mrq_core.contract.terms import words_of
from mrq_core.errors import InvalidValue

_RELATIVE = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_RELATIVE_MOST = 100 * 365 * 86_400
_PARAM_SIZE = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterTexts:
    """A filter as texts. A text of a list may hold several values, joined by commas. A text of `params` or of
    `search_keys` is one ``key=value``; a text of `messages` holds words, and a text of `groups` one group."""

    statuses: Sequence[str] = ()
    paths: Sequence[str] = ()
    queues: Sequence[str] = ()
    workers: Sequence[str] = ()
    errors: Sequence[str] = ()
    messages: Sequence[str] = ()
    groups: Sequence[str] = ()
    search_keys: Sequence[str] = ()
    since: str | None = None
    until: str | None = None
    params: Sequence[str] = ()


def filter_from(texts: FilterTexts, *, now: datetime) -> JobFilter:
    """Parses the texts of a filter. Raises InvalidValue."""
    queues = _split(texts.queues)
    for queue in queues:
        check_queue_or_tree(queue)
    since = moment_from(texts.since, now=now, name="since") if texts.since is not None else None
    until = moment_from(texts.until, now=now, name="until") if texts.until is not None else None
    if since is not None and until is not None and since > until:
        raise InvalidValue(f"since ({since}) is later than until ({until}): no job can match", path="since")
    return JobFilter(
        statuses=statuses_from(texts.statuses),
        paths=_split(texts.paths),
        queues=queues,
        workers=_split(texts.workers),
        exception_types=_split(texts.errors),
        error_words=_words(texts.messages),
        error_groups=tuple(dict.fromkeys(texts.groups)),
        search_keys=params_from(texts.search_keys, name="search_keys"),
        since=since,
        until=until,
        params=params_from(texts.params),
    )


def statuses_from(texts: Iterable[str]) -> tuple[Status, ...]:
    """Parses names of statuses. Raises InvalidValue, which lists the valid names."""
    statuses = []
    for text in _split(texts):
        try:
            statuses.append(Status(text.lower()))
        except ValueError:
            raise InvalidValue(
                f"{text!r} is no status of a job: expected one of {', '.join(Status)}", path="status"
            ) from None
    return tuple(statuses)


def moment_from(text: str, *, now: datetime, name: str) -> datetime:
    """Parses a time: a duration before now (``15m``, ``2h``, ``3d``), or a time in ISO 8601.

    A time without a timezone is UTC. Raises InvalidValue.
    """
    relative = _RELATIVE.fullmatch(text.strip())
    if relative is not None:
        seconds = float(relative[1]) * _UNIT_SECONDS[relative[2]]
        if seconds <= _RELATIVE_MOST:
            return now - timedelta(seconds=seconds)
    try:
        moment = datetime.fromisoformat(text.strip())
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidValue(
            f"{name} is {text!r}: expected a time such as 2025-01-31T12:00, "
            "or how long ago: 30s, 15m, 2h, 3d, 1w",
            path=name,
        ) from None


def time_from(text: str, *, name: str) -> datetime:
    """Parses a time in ISO 8601; without a timezone it is UTC. Raises InvalidValue."""
    try:
        moment = datetime.fromisoformat(text.strip())
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidValue(
            f"{name} is {text!r}: expected a time such as 2025-01-31T12:00", path=name
        ) from None


def seconds_from(text: str, *, name: str) -> float:
    """Parses a duration: ``90s``, ``15m``, ``2h``, ``3d``, ``1w``. Raises InvalidValue."""
    found = _RELATIVE.fullmatch(text.strip())
    if found is None:
        raise InvalidValue(f"{name} is {text!r}: expected a duration: 90s, 15m, 2h, 3d, 1w", path=name)
    return float(found[1]) * _UNIT_SECONDS[found[2]]


def _words(texts: Iterable[str]) -> tuple[str, ...]:
    words: dict[str, None] = {}
    for text in texts:
        found = words_of(text)
        if not found:
            raise InvalidValue(
                f"message is {text!r}: expected words of the exception's message", path="message"
            )
        words.update(dict.fromkeys(found))
    return tuple(words)


def params_from(texts: Iterable[str], *, name: str = "params") -> JsonObject:
    """Parses ``key=value`` texts. A value that is not JSON is a string. Raises InvalidValue."""
    params: JsonObject = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise InvalidValue(
                f"{name} is {text!r}: expected key=value, such as user=17 or name=anna", path=name
            )
        if key in params:
            raise InvalidValue(f"{name} names the key {key!r} twice: expected each once", path=name)
        params[key] = storable(_json_or_text(value), name=f"{name}.{key}", max_size=_PARAM_SIZE)
    return params


def number_from_totals(wanted: JobFilter, totals: Totals) -> int | None:
    """The number of matching jobs according to the totals. None: only a count can tell."""
    rest = msgspec.structs.replace(wanted, statuses=(), queues=(), paths=())
    if not rest.is_empty or (wanted.queues and wanted.paths):
        return None
    chosen = totals.by_path if wanted.paths else totals.by_queue
    names = wanted.paths or wanted.queues
    return sum(
        number
        for name, statuses in chosen.items()
        if not names or is_covered(name, names)
        for status, number in statuses.items()
        if not wanted.statuses or status in wanted.statuses
    )


def _split(texts: Iterable[str]) -> tuple[str, ...]:
    names = [name.strip() for text in texts for name in text.split(",")]
    return tuple(dict.fromkeys(name for name in names if name))


def _json_or_text(text: str) -> JsonValue:
    try:
        value: JsonValue = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
    return value
