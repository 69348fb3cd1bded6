"""Definitions of schedules are refused with the definition and the reason, or mean one thing."""

from __future__ import annotations

import contextlib
from datetime import UTC, date, datetime, time, timedelta
from time import process_time as time_of_process
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrq_core.clock import to_ms
from mrq_core.errors import ConfigError, InvalidValue
from mrq_core.scheduler.definitions import (
    KEYS,
    PARAMS_MAX,
    Definition,
    definition_from,
    definitions_from,
    trigger_of,
    trigger_words,
)
from tests.odd_zones import BrokenOffset, NoOffset
from tests.scheduler.oracle import utc

PATH = "tasks.report"


def defined(**keys: object) -> Definition:
    return definition_from({"path": PATH, **keys})


def first_fires(definition: Definition, after: datetime, number: int = 3) -> list[str]:
    trigger = trigger_of(definition, to_ms(after))
    found: list[str] = []
    at = trigger.next_after(to_ms(after))
    while at is not None and len(found) < number:
        found.append(datetime.fromtimestamp(at / 1000, UTC).strftime("%m-%d %H:%M:%S"))
        at = trigger.next_after(at)
    return found


def test_the_form_of_mrq_is_understood() -> None:
    entries = [
        {"path": "a.B", "params": {}, "interval": 5 * 60},
        {"path": "a.B", "params": {"x": 1}, "dailytime": time(0, 10), "queue": "high"},
        {"path": "a.B", "params": {"x": 2}, "weekday": 0, "dailytime": time(8, 30, 15)},
        {"path": "a.B", "params": {"x": 3}, "monthday": 31, "dailytime": "23:05"},
        {"path": "a.B", "params": {"x": 4}, "interval": 24 * 3600, "dailytime": time(4)},
    ]
    five, daily, weekly, monthly, both = definitions_from(entries)
    start = utc(2026, 2, 1)  # a Sunday
    assert first_fires(five, start) == ["02-01 00:05:00", "02-01 00:10:00", "02-01 00:15:00"]
    assert trigger_of(five, to_ms(start)).next_after(to_ms(start) - 1) == to_ms(start), "at once, first"
    assert first_fires(daily, start, 2) == ["02-01 00:10:00", "02-02 00:10:00"]
    assert daily.queue == "high"
    assert first_fires(weekly, start, 2) == ["02-02 08:30:15", "02-09 08:30:15"]
    assert first_fires(monthly, start) == ["02-28 23:05:00", "03-31 23:05:00", "04-30 23:05:00"]
    assert first_fires(both, start, 1) == ["02-01 04:00:00"]


def test_the_values_of_all_keys_have_several_forms() -> None:
    definition = defined(
        name="nightly", cron="*/5  8-18 * * 1-5", timezone="Europe/Berlin", priority=2,
        start=date(2026, 1, 1), end="2026-12-31T23:00", exclude=[date(2026, 12, 24), "2026-12-25"],
        jitter=timedelta(seconds=20), missed="all", missed_limit=10, grace=3600, overlap="buffer_one",
        pause_after=3,
    )  # fmt: skip
    assert definition.cron == "*/5 8-18 * * 1-5"
    assert definition.start == to_ms(utc(2025, 12, 31, 23)), "midnight in Berlin"
    assert definition.end == to_ms(utc(2026, 12, 31, 22))
    assert definition.exclude == ("2026-12-24", "2026-12-25")
    assert definition.jitter == 20
    assert trigger_words(definition).startswith("Every fifth minute from 08:00")
    again = {key: getattr(definition, key) for key in KEYS}
    assert definition_from({**again, "start": date(2026, 1, 1), "end": "2026-12-31T23:00"}) == definition


def test_a_schedule_is_its_name_or_its_task_params_and_times() -> None:
    one = defined(interval=60, params={"a": 1, "b": 2})
    assert one.name == defined(interval=60.0, params={"b": 2, "a": 1}, queue="other", overlap="skip").name
    others = [
        defined(interval=61, params={"a": 1, "b": 2}),
        defined(interval=60),
        definition_from({"path": "tasks.other", "params": {"a": 1, "b": 2}, "interval": 60}),
        defined(cron="* * * * *", params={"a": 1, "b": 2}),
    ]
    assert len({one.name, *(other.name for other in others)}) == 5
    assert one.name.startswith("tasks.report-")
    assert defined(name="mine", interval=60).name == "mine"


@pytest.mark.parametrize(
    ("second", "what"),
    [
        ({"path": PATH, "interval": 60}, "task, params and times"),
        ({"path": PATH, "interval": 60, "queue": "x", "name": "other"}, "task, params and times"),
        ({"path": "tasks.x", "cron": "@daily", "name": "one"}, "name"),
    ],
)
def test_duplicates_are_refused(second: object, what: str) -> None:
    first = {"path": PATH, "interval": 60, "name": "one"}
    with pytest.raises(
        ConfigError, match=rf"SCHEDULER_TASKS\[1\] .*it has the {what} of SCHEDULER_TASKS\[0\]"
    ):
        definitions_from([first, second])


def test_thousands_of_definitions_are_read_in_linear_time() -> None:
    entries = [{"path": PATH, "params": {"number": number}, "cron": "*/5 * * * *"} for number in range(5000)]
    started = time_of_process()
    assert len({definition.name for definition in definitions_from(entries)}) == 5000
    assert time_of_process() - started < 5


class Rude:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({}, "none of them"),
        ({"interval": 60, "cron": "* * * * *"}, "interval and cron"),
        ({"weekday": 1}, "weekday is given without dailytime"),
        ({"monthday": 1, "interval": 60}, "monthday is given without dailytime"),
        ({"dailytime": "8:30"}, "expected a time of day"),
        ({"dailytime": "25:00"}, "expected a time of day"),
        ({"dailytime": time(8, tzinfo=UTC)}, "without a zone"),
        ({"dailytime": 830}, "expected a time of day"),
        ({"dailytime": "08:30", "weekday": 7}, "0 to 6, 0 is Monday"),
        ({"dailytime": "08:30", "weekday": True}, "0 to 6"),
        ({"dailytime": "08:30", "monthday": 0}, "1 to 31"),
        ({"dailytime": "08:30", "monthday": 1, "weekday": 1}, "weekday and monthday"),
        ({"dailytime": "08:30", "interval": 60}, "interval and dailytime"),
        ({"interval": 0}, "interval is 0"),
        ({"interval": 0.5}, "interval is 0.5"),
        ({"interval": -5}, "interval is -5"),
        ({"interval": float("nan")}, "interval is nan"),
        ({"interval": float("inf")}, "interval is inf"),
        ({"interval": 10**400}, "interval is an integer of"),
        ({"interval": True}, "interval is True"),
        ({"interval": "60"}, "interval is '60'"),
        ({"interval": Rude()}, "interval is <"),
        ({"cron": 5}, "cron is 5"),
        ({"cron": "0 0 30 2 *"}, "cron is '0 0 30 2"),
        ({"cron": "*" * 100_000}, "cron is"),
        ({"interval": 60, "timezone": "Mars"}, "timezone is 'Mars'"),
        ({"interval": 60, "timezone": 1}, "timezone is 1"),
        ({"interval": 60, "timezone": "localtime"}, "differs between machines"),
        ({"interval": 60, "start": "soon"}, "start is 'soon'"),
        ({"interval": 60, "start": 5}, "start is 5"),
        ({"interval": 60, "start": "0001-01-01", "timezone": "Asia/Tokyo"}, "between the years 1 and 9999"),
        ({"interval": 60, "end": "0001-01-01", "timezone": "Asia/Kolkata"}, "end is"),
        ({"interval": 60, "start": "2026-01-02", "end": "2026-01-01"}, "later than end"),
        ({"interval": 60, "exclude": "2026-01-01"}, "exclude is '2026"),
        ({"interval": 60, "exclude": ["2026-02-30"]}, "exclude has '2026-02-30'"),
        ({"interval": 60, "exclude": [datetime(2026, 1, 1, tzinfo=UTC)]}, "exclude has"),
        ({"interval": 60, "exclude": ["2026-01-01"] * 367}, "up to 366 dates"),
        ({"interval": 60, "exclude": ["9999-12-31"]}, "from 1970 to 9998"),
        ({"interval": 60, "exclude": ["0001-01-01"], "timezone": "Asia/Kolkata"}, "from 1970 to 9998"),
        ({"interval": 60, "jitter": 61}, "60 s apart"),
        ({"interval": 60, "jitter": -1}, "jitter is -1"),
        ({"interval": 60, "missed": "twice"}, "skip, once, all"),
        ({"interval": 60, "missed": ["all"]}, "skip, once, all"),
        ({"interval": 60, "missed_limit": 0}, "1 to 1000"),
        ({"interval": 60, "grace": "1h"}, "grace is '1h'"),
        ({"interval": 60, "overlap": "never"}, "allow, skip, buffer_one, cancel_other"),
        ({"interval": 60, "pause_after": 21}, "0 to 20"),
        ({"interval": 60, "name": ""}, "printable characters"),
        ({"interval": 60, "name": "a\nb"}, "printable characters"),
        ({"interval": 60, "name": "a\x1b[31m"}, "printable characters"),
        ({"interval": 60, "name": " a"}, "without a space"),
        ({"interval": 60, "name": "x" * 101}, "1 to 100"),
        ({"interval": 60, "name": 5}, "name is 5"),
        ({"interval": 60, "queue": "jobs_raw"}, "raw queue"),
        ({"interval": 60, "queue": 5}, "queue is 5"),
        ({"interval": 60, "priority": 5}, "priority is 5"),
        ({"interval": 60, "params": [1]}, "params is of type list"),
        ({"interval": 60, "params": {"a": object()}}, "params"),
        ({"interval": 60, "params": {"a": "x" * PARAMS_MAX}}, "params"),
        ({"interval": 60, "path": "report"}, "module.Name"),
        ({"interval": 60, "path": None}, "module.Name"),
        ({"interval": 60, "intervall": 5}, "did you mean 'interval'"),
        ({"interval": 60, 5: 6}, "5 is no key"),
    ],
    ids=lambda value: str(list(value)) if isinstance(value, dict) else None,
)
def test_a_wrong_definition_is_refused_with_the_definition_and_the_reason(
    keys: dict[Any, object], reason: str
) -> None:
    entry: dict[Any, object] = {"path": PATH, **keys}
    with pytest.raises(ConfigError) as caught:
        definitions_from([{"path": "tasks.good", "interval": 60}, entry])
    message = str(caught.value)
    assert message.startswith("SCHEDULER_TASKS[1] {")
    assert reason in message
    assert message.isprintable()
    assert len(message) < 1200


@pytest.mark.parametrize(
    "entry", [None, 5, "tasks.report", [], object(), Rude()], ids=lambda e: type(e).__name__
)
def test_an_entry_that_is_no_dict_is_refused(entry: object) -> None:
    with pytest.raises(ConfigError, match=r"SCHEDULER_TASKS\[0\].*expected a dict"):
        definitions_from([entry])


def test_secrets_in_params_are_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        definitions_from([{"path": PATH, "params": {"password": "hunter2"}}])
    assert "hunter2" not in str(caught.value)


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=30), st.binary(max_size=5),
    st.dates(), st.datetimes(), st.times(), st.timedeltas(), st.lists(st.text(max_size=10), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(keys=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6))
def test_odd_values_are_refused_or_mean_something(keys: dict[str, object]) -> None:
    definition = None
    with contextlib.suppress(InvalidValue):
        definition = definition_from({"path": PATH, "interval": 60, **keys})
    if definition is not None:
        at = trigger_of(definition, 1_750_000_000_000).next_after(1_750_000_000_000)
        assert at is None or at > 1_750_000_000_000
        assert trigger_words(definition)


def test_a_new_time_of_day_that_has_passed_waits_for_tomorrow() -> None:
    assert first_fires(defined(dailytime="08:00"), utc(2026, 5, 1, 9), 1) == ["05-02 08:00:00"]


def test_an_interval_with_a_start_keeps_to_its_grid() -> None:
    definition = defined(interval=3600, start="2026-05-01T00:30")
    assert first_fires(definition, utc(2026, 4, 1), 2) == ["05-01 00:30:00", "05-01 01:30:00"]
    assert first_fires(definition, utc(2026, 5, 1, 9), 1) == ["05-01 09:30:00"]


def test_an_expression_that_this_version_refuses_has_words() -> None:
    """A list of schedules shows the schedules of other versions too."""
    stored = Definition(name="n", path=PATH, cron="0 0 * * * 2026")
    assert trigger_words(stored) == "cron 0 0 * * * 2026, which this version of mrq refuses, UTC"


@pytest.mark.parametrize(
    ("interval", "words"), [(900, "every 15 min"), (5400, "every 1 h 30 min"), (3600, "every hour")]
)
def test_an_interval_has_words(interval: float, words: str) -> None:
    assert trigger_words(defined(interval=interval)) == words


class Raising(timedelta):
    def total_seconds(self) -> float:
        raise ZeroDivisionError("no such time")


@pytest.mark.parametrize(
    "keys",
    [
        {"interval": 60, "start": datetime(2030, 1, 1, tzinfo=BrokenOffset())},
        {"interval": 60, "end": datetime(2030, 1, 1, tzinfo=BrokenOffset())},
        {"interval": Raising(minutes=1)},
        {"interval": 60, "jitter": Raising(1)},
    ],
)
def test_code_of_a_value_that_raises_is_an_invalid_value(keys: dict[str, object]) -> None:
    with pytest.raises(
        InvalidValue, match=r"reading it raised ZeroDivisionError: no such (time|zone)"
    ) as raised:
        defined(**keys)
    assert raised.value.path in ("start", "end", "interval", "jitter")


def test_a_zone_without_an_offset_counts_as_none() -> None:
    odd = datetime(2030, 1, 1, tzinfo=NoOffset())
    definition = defined(interval=60, start=odd, timezone="Asia/Tokyo")
    assert definition.start == to_ms(utc(2029, 12, 31, 15))
