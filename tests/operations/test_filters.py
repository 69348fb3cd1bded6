"""Filters: what texts mean, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mrq_core.contract.queries import JobFilter, Totals
from mrq_core.contract.record import Status
from mrq_core.errors import InvalidValue
from mrq_core.operations.queries.filters import (
    FilterTexts,
    duration_from,
    duration_text,
    filter_from,
    moment_from,
    number_from_totals,
    queue_names_from,
    seconds_from,
)

UNSTORABLE = [
    "[" * 100 + "]" * 100,
    "[" * 20_000 + "]" * 20_000,
    '{"b":' * 20_000 + "1" + "}" * 20_000,
    "9" * 20,
    "9" * 5000,
    "-" + "9" * 5000,
    "[1e400]",
    "1e400",
    r'"\ud800"',
    r'{"\udc00": 1}',
]
NOW = datetime(2025, 6, 1, 12, 0, tzinfo=UTC)
TOTALS = Totals(
    by_queue={
        "default": {Status.QUEUED: 3, Status.FAILED: 2},
        "mail/a": {Status.QUEUED: 10},
        "mail/b": {Status.SUCCESS: 20},
    },
    by_path={"tasks.Add": {Status.QUEUED: 13, Status.FAILED: 2}, "tasks.Sub": {Status.SUCCESS: 20}},
)


def made(**texts: object) -> JobFilter:
    return filter_from(FilterTexts(**texts), now=NOW)  # type: ignore[arg-type]


def test_no_texts_mean_all_jobs() -> None:
    assert made().is_empty


def test_lists_may_be_repeated_or_joined_by_commas() -> None:
    wanted = made(statuses=["failed,timeout", "Success"], queues=["a, b/", "a"])
    assert wanted.statuses == (Status.FAILED, Status.TIMEOUT, Status.SUCCESS)
    assert wanted.queues == ("a", "b/")


@pytest.mark.parametrize("name", ["statuses", "paths", "queues", "workers", "errors"])
@pytest.mark.parametrize("texts", [[""], [" "], [","], ["failed,"], ["failed", ""], [" ,failed"]])
def test_an_empty_value_is_refused_and_never_matches_all_jobs(name: str, texts: list[str]) -> None:
    with pytest.raises(InvalidValue, match=r"has an empty value: expected (a value|the name of a queue)"):
        made(**{name: texts})


@pytest.mark.parametrize("name", ["groups", "messages", "search_keys"])
@pytest.mark.parametrize("texts", [[""], [" "], ["no=1", ""]])
def test_an_empty_text_is_refused_where_commas_do_not_join(name: str, texts: list[str]) -> None:
    with pytest.raises(InvalidValue, match=r"^(group has an empty value|message is|key is).*: expected "):
        made(**{name: texts})


def test_an_unknown_status_is_refused_with_a_list_of_them() -> None:
    with pytest.raises(InvalidValue, match="'done' is no status of a job: expected one of queued, started"):
        made(statuses=["done"])


def test_params_are_json_where_they_can_be_and_else_text() -> None:
    texts = ["n=1", 'quoted="1"', "word=hello", "list=[1]", "empty=", "flag=true", "eq=a=b", "odd=NaN"]
    assert made(params=texts).params == {
        "n": 1,
        "quoted": "1",
        "word": "hello",
        "list": [1],
        "empty": "",
        "flag": True,
        "eq": "a=b",
        "odd": "NaN",
    }


@pytest.mark.parametrize("texts", [["name"], ["=1"], ["a=1", "a=2"], [f"n={2**70}"]])
def test_params_that_make_no_sense_are_refused(texts: list[str]) -> None:
    with pytest.raises(InvalidValue):
        made(params=texts)


@pytest.mark.parametrize("value", UNSTORABLE)
def test_json_that_no_job_can_store_is_refused(value: str) -> None:
    with pytest.raises(InvalidValue, match=r"^params\.a") as caught:
        made(params=[f"a={value}"])
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("30s", timedelta(seconds=30)),
        ("15m", timedelta(minutes=15)),
        ("1.5h", timedelta(hours=1.5)),
        ("3d", timedelta(days=3)),
        ("2w", timedelta(weeks=2)),
    ],
)
def test_relative_times_are_counted_from_now(text: str, ago: timedelta) -> None:
    assert moment_from(text, now=NOW, name="since") == NOW - ago


@pytest.mark.parametrize(
    "text", ["2025-06-01T10:00", "2025-06-01T10:00Z", "2025-06-01T12:00+02:00", "2025-06-01 10:00:00"]
)
def test_absolute_times_are_utc_unless_they_say_otherwise(text: str) -> None:
    moment = moment_from(text, now=NOW, name="since")
    assert moment == NOW - timedelta(hours=2)
    assert moment.tzinfo is UTC


@pytest.mark.parametrize("text", ["", "yesterday", "15", "m", "-3d", "99999999999d", "2025-13-01"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(InvalidValue, match="expected a time"):
        moment_from(text, now=NOW, name="since")


def test_a_time_before_all_jobs_is_refused_as_such() -> None:
    with pytest.raises(InvalidValue, match="'40000d': expected a time of the last 100 years"):
        moment_from("40000d", now=NOW, name="since")


def test_a_span_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(InvalidValue, match="later than until"):
        made(since="1h", until="2h")


@pytest.mark.parametrize(
    ("wanted", "number"),
    [
        (JobFilter(), 35),
        (JobFilter(statuses=(Status.QUEUED,)), 13),
        (JobFilter(queues=("mail/",)), 30),
        (JobFilter(queues=("mail/", "default"), statuses=(Status.FAILED, Status.SUCCESS)), 22),
        (JobFilter(paths=("tasks.Add",), statuses=(Status.FAILED,)), 2),
        (JobFilter(queues=("nothing",)), 0),
        (JobFilter(paths=("tasks.Add",), queues=("default",)), None),
        (JobFilter(workers=("anna",)), None),
        (JobFilter(since=NOW), None),
    ],
)
def test_totals_tell_the_number_where_they_can(wanted: JobFilter, number: int | None) -> None:
    assert number_from_totals(wanted, TOTALS) == number


def test_errors_and_search_keys_are_parsed() -> None:
    wanted = made(messages=["No STOCK", "of lamps"], groups=["a.B E a:f"], search_keys=["user=17", "o.id=x"])
    assert wanted.error_words == ("no", "stock", "of", "lamps")
    assert wanted.error_groups == ("a.B E a:f",)
    assert wanted.search_keys == {"user": 17, "o.id": "x"}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"messages": ["..."]}, "expected words"),
        ({"search_keys": ["user"]}, "key is 'user': expected key=value"),
        ({"search_keys": ["a=1", "a=2"]}, "twice"),
        ({"search_keys": ['a={"b": 1, "b": 1}']}, "key.a has the key 'b' twice"),
        ({"params": ["a=1", "a=2"]}, "twice"),
        ({"params": ['a=[{"b": 1, "b": 1}]']}, "params.a has the key 'b' twice"),
    ],
)
def test_errors_and_search_keys_that_make_no_sense_are_refused(
    texts: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(InvalidValue, match=message):
        made(**texts)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(900, "15m"), (5400, "90m"), (1.5, "1.5s"), (1_234_567, "1234567s"), (172_800, "2d")],
)
def test_a_duration_comes_back_from_its_text(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
    assert duration_from(text, name="x") == seconds
    assert duration_from(seconds, name="x") == seconds
    assert duration_from(str(seconds), name="x") == seconds


@pytest.mark.parametrize(
    "given", ["soon", "", "-5m", "nan", "inf", "1e3", "5 m", "5x", -1, float("nan"), "1e9w"]
)
def test_what_is_no_duration_is_refused(given: float | str) -> None:
    for read in (seconds_from, duration_from):
        with pytest.raises(InvalidValue, match=r"expected a duration.*, such as 30s, 5m, 2h, 1d"):
            read(given, name="x")


def test_a_duration_has_bounds() -> None:
    assert seconds_from("0", name="x") == seconds_from("0s", name="x") == seconds_from(0, name="x") == 0
    for given, bounds in (("0s", " above 0"), (0, " above 0"), ("100w", " above 0 and at most 1d")):
        with pytest.raises(InvalidValue, match=f"expected a duration{bounds}"):
            duration_from(given, name="x", **({"most": 86_400} if "most" in bounds else {}))
    with pytest.raises(InvalidValue, match="of at least 1m and at most 1h, such as"):
        duration_from("59.9s", name="x", least=60, most=3600)


@pytest.mark.parametrize("text", [" lead ", "lead ", "\tlead", "a, b\n"])
def test_blanks_at_the_ends_of_a_list_of_queues_are_refused(text: str) -> None:
    with pytest.raises(InvalidValue, match="with blanks at the ends: expected a name in double quotes"):
        queue_names_from([text])
    assert queue_names_from([f'"{text}"', "a, b"]) == (text, "a", "b")
