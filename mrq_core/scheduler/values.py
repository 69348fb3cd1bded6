"""The values of the keys of a definition: each check returns the value in its stored form.

A check takes the value, its key and the zone of the schedule. Raises InvalidValue.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta

from mrq_core.clock import to_ms
from mrq_core.contract.naming import check_job_queue_name
from mrq_core.contract.plain import number_of, text_of, whole_of
from mrq_core.contract.values import check_priority
from mrq_core.errors import InvalidValue, shown
from mrq_core.scheduler.triggers import cron_of
from mrq_core.scheduler.zones import first_pass_of, zone_of

INTERVAL_MIN, INTERVAL_MAX = 1.0, 10 * 366 * 86_400.0
"""Seconds."""
EXCLUDED_MAX = 366
"""The most excluded dates."""
MADE_UP_MOST = 1000
"""The most missed fires that `all` makes up for."""
FAILURES_MOST = 20
"""The most failures in a row after which a schedule can be paused: it remembers that many jobs."""
JITTER_MAX = 86_400.0
_GRACE_MAX = 366 * 86_400.0
_FIRST_YEAR, _LAST_YEAR = 1970, 9998
"""The years of excluded dates: all zones can convert their days."""


def _queue(value: object, key: str, zone: str) -> str:
    return check_job_queue_name(value)


def _priority(value: object, key: str, zone: str) -> int:
    return check_priority(value)


def _interval(value: object, key: str, zone: str) -> float:
    return _seconds(value, key, INTERVAL_MIN, INTERVAL_MAX)


def _jitter(value: object, key: str, zone: str) -> float:
    return _seconds(value, key, 0.0, JITTER_MAX)


def _grace(value: object, key: str, zone: str) -> float:
    return _seconds(value, key, 0.0, _GRACE_MAX)


def _seconds(value: object, key: str, least: float, most: float) -> float:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    number = number_of(value)
    if number is not None and least <= number <= most:
        return round(float(number), 3)
    raise InvalidValue(
        f"{key} is {shown(value)}: expected seconds, from {least:g} to {most:.0f}, or a timedelta", path=key
    )


def _dailytime(value: object, key: str, zone: str) -> str:
    at = None
    if isinstance(value, time) and value.tzinfo is None:
        at = value
    elif isinstance(value, str) and 5 <= len(value) <= 12 and value.isascii() and value[2] == ":":
        try:
            at = time.fromisoformat(value)
        except ValueError:
            at = None
    if at is None or at.tzinfo is not None:
        raise InvalidValue(
            f"{key} is {shown(value)}: expected a time of day without a zone, such as '08:30' or "
            "datetime.time(8, 30)",
            path=key,
        )
    text = at.isoformat("milliseconds")
    return (
        text.removesuffix(".000").removesuffix(":00")
        if text.endswith(":00.000")
        else text.removesuffix(".000")
    )


def _whole(least: int, most: int) -> Callable[[object, str, str], int]:
    def check(value: object, key: str, zone: str) -> int:
        number = whole_of(value)
        if number is not None and least <= number <= most:
            return number
        hint = ", 0 is Monday" if key == "weekday" else ""
        raise InvalidValue(
            f"{key} is {shown(value)}: expected a whole number from {least} to {most}{hint}", path=key
        )

    return check


def _cron(value: object, key: str, zone: str) -> str:
    if not isinstance(value, str):
        raise InvalidValue(f"cron is {shown(value)}: expected text, such as '*/5 8-18 * * 1-5'", path=key)
    cron_of(value)
    return " ".join(value.split())


def _moment(value: object, key: str, zone: str) -> int:
    """Unix milliseconds. A time without a zone is one of the schedule's zone."""
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        elif isinstance(value, date) and not isinstance(value, datetime):
            value = datetime.combine(value, time())
        if isinstance(value, datetime):
            if value.utcoffset() is None:  # astimezone would take the zone of this machine
                return first_pass_of(value.replace(tzinfo=None), zone_of(zone))
            return to_ms(value.astimezone(UTC))
    except OverflowError:
        raise InvalidValue(
            f"{key} is {shown(value)}: expected a time that lies between the years 1 and 9999 in UTC",
            path=key,
        ) from None
    except (ValueError, TypeError):
        pass
    raise InvalidValue(
        f"{key} is {shown(value)}: expected a datetime, a date, or text such as '2026-01-31T12:00'", path=key
    )


def _dates(value: object, key: str, zone: str) -> tuple[str, ...]:
    if isinstance(value, list | tuple | set | frozenset) and len(value) <= EXCLUDED_MAX:
        found = []
        for item in value:
            try:
                if isinstance(item, str):
                    item = date.fromisoformat(item)
                if (
                    isinstance(item, date)
                    and not isinstance(item, datetime)
                    and _FIRST_YEAR <= item.year <= _LAST_YEAR
                ):
                    found.append(item.isoformat())
                    continue
            except ValueError:
                pass
            raise InvalidValue(
                f"{key} has {shown(item)}: expected dates from {_FIRST_YEAR} to {_LAST_YEAR}, such as "
                "'2026-12-25'",
                path=key,
            )
        return tuple(sorted(set(found)))
    raise InvalidValue(
        f"{key} is {shown(value)}: expected a list of up to {EXCLUDED_MAX} dates, such as ['2026-12-25']",
        path=key,
    )


def _one_of(*words: str) -> Callable[[object, str, str], str]:
    def check(value: object, key: str, zone: str) -> str:
        text = text_of(value)
        if text in words:
            return text
        raise InvalidValue(f"{key} is {shown(value)}: expected one of {', '.join(words)}", path=key)

    return check


CHECKS: dict[str, Callable[[object, str, str], object]] = {
    "queue": _queue,
    "priority": _priority,
    "interval": _interval,
    "dailytime": _dailytime,
    "weekday": _whole(0, 6),
    "monthday": _whole(1, 31),
    "cron": _cron,
    "start": _moment,
    "end": _moment,
    "exclude": _dates,
    "jitter": _jitter,
    "missed": _one_of("skip", "once", "all"),
    "missed_limit": _whole(1, MADE_UP_MOST),
    "grace": _grace,
    "overlap": _one_of("allow", "skip", "buffer_one", "cancel_other"),
    "pause_after": _whole(0, FAILURES_MOST),
}
