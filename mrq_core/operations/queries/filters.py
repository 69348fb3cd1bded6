"""Parses typed filters into a JobFilter. Errors name the expected form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec

from mrq_core.config.secrets import hide_secrets
from mrq_core.contract.codec import JsonObject, JsonValue, fault_in, parsed, storable
from mrq_core.contract.naming import check_queue_name, check_served_name, is_covered, names_in
from mrq_core.contract.queries import JobFilter, Totals
from mrq_core.contract.record import Status
from mrq_core.contract.terms import words_of
from mrq_core.errors import InvalidValue, shown

_RELATIVE = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_DURATION = re.compile(rf"{_RELATIVE.pattern}?")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_YEAR = 365 * 86_400.0
_AGO_MOST = 100 * _YEAR
_DURATION_MOST = 30 * _YEAR
"""Below MAX_SECONDS, the longest delay."""
_PARAM_SIZE = 65_536
_SHOWN_KEY = 80
"""Characters of a key that a message shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterTexts:
    """A filter as texts. A text of a list may hold several values, joined by commas; names of queues may be
    in quotes, see `names_in`. No value may be empty. A text of `params` or of `search_keys` is one
    ``key=value``; a text of `messages` holds words, and a text of `groups` or `schedules` one name."""

    statuses: Sequence[str] = ()
    paths: Sequence[str] = ()
    queues: Sequence[str] = ()
    workers: Sequence[str] = ()
    errors: Sequence[str] = ()
    messages: Sequence[str] = ()
    groups: Sequence[str] = ()
    search_keys: Sequence[str] = ()
    schedules: Sequence[str] = ()
    since: str | None = None
    until: str | None = None
    params: Sequence[str] = ()


def filter_from(texts: FilterTexts, *, now: datetime) -> JobFilter:
    """Parses the texts of a filter. Raises InvalidValue."""
    queues = queue_names_from(texts.queues)
    since = moment_from(texts.since, now=now, name="since") if texts.since is not None else None
    until = moment_from(texts.until, now=now, name="until") if texts.until is not None else None
    if since is not None and until is not None and since > until:
        raise InvalidValue(f"since ({since}) is later than until ({until}): no job can match", path="since")
    return JobFilter(
        statuses=statuses_from(texts.statuses),
        paths=_split(texts.paths, "path"),
        queues=queues,
        workers=_split(texts.workers, "worker"),
        exception_types=_split(texts.errors, "error"),
        error_words=_words(texts.messages),
        error_groups=_groups(texts.groups),
        search_keys=params_from(texts.search_keys, name="key"),
        schedules=_schedules(texts.schedules),
        since=since,
        until=until,
        params=params_from(texts.params),
    )


def queue_names_from(texts: Iterable[str]) -> tuple[str, ...]:
    """The names of queues and trees in lists that commas separate, each once: ``mail`` for ``mail_reverse``.
    Raises InvalidValue."""
    return tuple(dict.fromkeys(map(check_served_name, worker_queues_from(texts))))


def worker_queues_from(texts: Iterable[str]) -> tuple[str, ...]:
    """The same for a worker, which serves ``mail_reverse`` as a pile. Raises InvalidValue."""
    texts = list(texts)
    for text in texts:
        if text != text.strip() and all(names_in(text)):
            raise InvalidValue(
                f"queue is {shown(text)}, with blanks at the ends: expected a name in double quotes if the "
                "blanks belong to the name, or no blanks",
                path="queue",
            )
    names = [name for text in texts for name in names_in(text)]
    if not all(names):
        raise InvalidValue("queue has an empty value: expected the name of a queue or tree", path="queue")
    return tuple(dict.fromkeys(map(check_queue_name, names)))


def statuses_from(texts: Iterable[str]) -> tuple[Status, ...]:
    """Parses names of statuses. Raises InvalidValue, which lists the valid names."""
    statuses = []
    for text in _split(texts, "status"):
        try:
            statuses.append(Status(text.lower()))
        except ValueError:
            raise InvalidValue(
                f"{shown(text)} is no status of a job: expected one of {', '.join(Status)}", path="status"
            ) from None
    return tuple(statuses)


def moment_from(text: str, *, now: datetime, name: str) -> datetime:
    """Parses a time: a duration before now (``15m``, ``2h``, ``3d``), or a time in ISO 8601.

    A time without a timezone is UTC. Raises InvalidValue.
    """
    relative = _RELATIVE.fullmatch(text.strip())
    if relative is not None:
        seconds = float(relative[1]) * _UNIT_SECONDS[relative[2]]
        if seconds > _AGO_MOST:
            raise InvalidValue(f"{name} is {shown(text)}: expected a time of the last 100 years", path=name)
        return now - timedelta(seconds=seconds)
    moment = _iso_time(text)
    if moment is None:
        raise InvalidValue(
            f"{name} is {shown(text)}: expected a time such as 2025-01-31T12:00, "
            "or how long ago: 30s, 15m, 2h, 3d, 1w",
            path=name,
        )
    return moment


def time_from(text: str, *, name: str) -> datetime:
    """Parses a time in ISO 8601. A time without a timezone is UTC. Raises InvalidValue."""
    moment = _iso_time(text)
    if moment is None:
        raise InvalidValue(f"{name} is {text!r}: expected a time such as 2025-01-31T12:00", path=name)
    return moment


def _iso_time(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text.strip())
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def object_from(text: str, *, name: str) -> JsonObject:
    """Parses a JSON object. Raises InvalidValue, also for a key that is given twice."""
    try:
        value = parsed(text, name=name)
    except msgspec.DecodeError as error:
        raise InvalidValue(f"{name} is not valid JSON: {fault_in(text, error)}", path=name) from error
    if not isinstance(value, dict):
        given = shown(hide_secrets("", value))
        raise InvalidValue(f'{name} is {given}: expected a JSON object, such as {{"user": 17}}', path=name)
    return value


def seconds_from(given: float | str, *, name: str) -> float:
    """The seconds of a duration: ``30s``, ``15m``, ``2h``, ``3d``, ``1w``, or a number of seconds. Raises
    InvalidValue."""
    seconds = _seconds_of(given)
    if seconds is None or seconds > _DURATION_MOST:
        raise _no_duration(given, name, "" if seconds is None else f" of{_most(_DURATION_MOST)}")
    return seconds


def duration_from(
    given: float | str, *, name: str, least: float = 0.0, most: float = _DURATION_MOST
) -> float:
    """The seconds of a duration above 0 and within bounds, which are seconds. Raises InvalidValue."""
    seconds = _seconds_of(given)
    if not seconds or not least <= seconds <= most:
        is_long = seconds is not None and seconds > most
        bounds = f" of at least {duration_text(least)}" if least else " above 0"
        bounds += f" and{_most(most)}" if is_long or most < _DURATION_MOST else ""
        raise _no_duration(given, name, bounds)
    return seconds


def _most(most: float) -> str:
    return f" at most {most / _YEAR:g} years" if most >= _YEAR else f" at most {duration_text(most)}"


def _seconds_of(given: float | str) -> float | None:
    """None: the value is no duration."""
    if isinstance(given, str):
        found = _DURATION.fullmatch(given.strip())
        if found is None:
            return None
        given = float(found[1]) * _UNIT_SECONDS[found[2] or "s"]
    return float(given) if given >= 0 else None


def _no_duration(given: float | str, name: str, bounds: str) -> InvalidValue:
    return InvalidValue(
        f"{name} is {shown(given)}: expected a duration{bounds}, such as 30s, 5m, 2h, 1d; a number without a "
        "unit is seconds",
        path=name,
    )


def duration_text(seconds: float) -> str:
    """The text that `duration_from` reads as this duration: ``15m``, ``90m``, ``1.5s``."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % _UNIT_SECONDS[unit] == 0:
            return f"{seconds / _UNIT_SECONDS[unit]:.0f}{unit}"
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


def _words(texts: Iterable[str]) -> tuple[str, ...]:
    words: dict[str, None] = {}
    for text in texts:
        found = words_of(text)
        if not found:
            raise InvalidValue(
                f"message is {shown(text)}: expected words of the exception's message", path="message"
            )
        words.update(dict.fromkeys(found))
    return tuple(words)


def _schedules(texts: Sequence[str]) -> tuple[str, ...]:
    """The names of schedules, which may contain commas."""
    if not all(text.strip() for text in texts):
        raise InvalidValue(
            "schedule has an empty value: expected a value, or no filter of that name", path="schedule"
        )
    return tuple(dict.fromkeys(texts))


def _groups(texts: Sequence[str]) -> tuple[str, ...]:
    """The error groups, which may contain commas."""
    if not all(text.strip() for text in texts):
        raise InvalidValue(
            "group has an empty value: expected a value, or no filter of that name", path="group"
        )
    return tuple(dict.fromkeys(texts))


def params_from(texts: Iterable[str], *, name: str = "params") -> JsonObject:
    """Parses ``key=value`` texts. A value that is not JSON is a string. Raises InvalidValue."""
    params: JsonObject = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise InvalidValue(
                f"{name} is {shown(text)}: expected key=value, such as user=17 or name=anna", path=name
            )
        if key in params:
            raise InvalidValue(f"{name} names the key {shown(key)} twice: expected each once", path=name)
        where = f"{name}.{key if len(key) <= _SHOWN_KEY else f'{key[: _SHOWN_KEY - 3]}...'}"
        params[key] = storable(_json_or_text(value, where), name=where, max_size=_PARAM_SIZE)
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


def _split(texts: Iterable[str], name: str) -> tuple[str, ...]:
    """The values in the texts, each once. Raises InvalidValue for an empty value, such as an unset variable
    of a shell: a filter without that value would match more jobs."""
    values = [value.strip() for text in texts for value in text.split(",")]
    if not all(values):
        raise InvalidValue(
            f"{name} has an empty value: expected a value, or no filter of that name", path=name
        )
    return tuple(dict.fromkeys(values))


def _json_or_text(text: str, name: str) -> JsonValue:
    try:
        return parsed(text, name=name)
    except msgspec.DecodeError:
        return text
