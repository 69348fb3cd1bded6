"""The text of a query: its parts, what they mean, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mrq_core.contract.record import ENDED, WAITING, JobRecord, Status
from mrq_core.errors import InvalidQuery
from mrq_core.ids import new_id
from mrq_core.operations.queries.query import (
    DurationBound,
    SearchQuery,
    matches_pattern,
    parse_query,
)
from mrq_core.operations.queries.query_parts import exact_value, split_query
from mrq_core.operations.task_descriptions import TASKS_NAMESPACE
from mrq_core.operations.workers import WORKERS_NAMESPACE, WorkerReport, report_to_json
from mrq_core.testing import ManualClock, MemoryBroker
from mrq_core.testing.conformance.base import put, put_many

JOB = "65f1a2b3c4d5e6f708192a3b"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def broker(clock: ManualClock) -> MemoryBroker:
    return MemoryBroker(clock=clock)


def refused(broker: MemoryBroker, text: str) -> InvalidQuery:
    with pytest.raises(InvalidQuery) as caught:
        parse_query(broker, text)
    return caught.value


def report(broker: MemoryBroker, name: str, host: str) -> None:
    now = broker.now()
    told = WorkerReport(
        name=name, host=host, pid=7, status="wait", queues=("q",), greenlets=1, started_at=now,
        reported_at=now, jobs={}, running=(), unsettled=0, memory=1, cpu_time=0.0, version="1",
    )  # fmt: skip
    broker.state.put(WORKERS_NAMESPACE, name, report_to_json(told))


def record(now: datetime, **fields: Any) -> JobRecord:
    values = {"id": new_id(), "path": "a.B", "params": {}, "queue": "q", "queued_at": now, "updated_at": now}
    return JobRecord(**{**values, **fields})


def test_all_parts_of_a_query_become_a_filter(broker: MemoryBroker) -> None:
    query = parse_query(
        broker,
        'status:failed,timeout queue:main/,"odd name" path:mail.Send error:ValueError '
        f'message:"connection refused" group:"mail.Send E, x" id:{JOB} key.user_id:42 params.kind:new '
        "schedule:nightly worker:host.1 stock",
    )
    assert query.filter.statuses == (Status.FAILED, Status.TIMEOUT)
    assert query.filter.queues == ("main/", "odd name")
    assert query.filter.paths == ("mail.Send",)
    assert query.filter.exception_types == ("ValueError",)
    assert query.filter.error_words == ("connection", "refused", "stock")
    assert query.filter.error_groups == ("mail.Send E, x",)
    assert query.filter.ids == (JOB,)
    assert query.filter.search_keys == {"user_id": 42}
    assert query.filter.params == {"kind": "new"}
    assert query.filter.schedules == ("nightly",)
    assert query.filter.workers == ("host.1",)
    assert not query.has_conditions
    assert query.tab_filter.statuses == ()
    assert query.tab_filter.queues == query.filter.queues


def test_an_empty_query_selects_all_jobs(broker: MemoryBroker) -> None:
    query = parse_query(broker, "  ")
    assert (query.text, query.parts, query.filter.is_empty) == ("", (), True)


def test_times_are_relative_to_the_clock_of_the_broker(broker: MemoryBroker) -> None:
    query = parse_query(broker, "since:2h until:2100-01-02")
    assert query.filter.since == broker.now() - timedelta(hours=2)
    assert query.filter.until == datetime(2100, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("  a   b ", "a b"),
        ("message:'connection refused'", 'message:"connection refused"'),
        (r"message:connection\ refused", 'message:"connection refused"'),
        (r'message:"a \"b\" \\ \c"', r'message:"a \"b\" \\ \\c"'),
        ('status:"failed"', "status:failed"),
        ('queue:a,"b c"', 'queue:a,"b c"'),
        ("queue:'a,b'", 'queue:"a,b"'),
        ('key.n:"42"', 'key.n:"42"'),
        ("key.n:42", "key.n:42"),
        ('key."odd name":1', 'key."odd name":1'),
        ("'-x'", '"-x"'),
        ('"a:b"', '"a:b"'),
        (JOB, f"id:{JOB}"),
    ],
)
def test_the_canonical_text_means_the_same_and_has_the_parts_at_their_indexes(
    broker: MemoryBroker, text: str, canonical: str
) -> None:
    query = parse_query(broker, text)
    assert query.text == canonical
    assert [query.text[part.start : part.end] for part in query.parts] == [part.text for part in query.parts]
    again = parse_query(broker, query.text)
    assert (again.text, again.filter, again.parts) == (query.text, query.filter, query.parts)


def test_quotes_make_a_value_text(broker: MemoryBroker) -> None:
    assert parse_query(broker, 'key.n:"42" key.m:42 key.o:true key.p:x').filter.search_keys == {
        "n": "42", "m": 42, "o": True, "p": "x",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "part", "start", "suggested", "message"),
    [
        ("a statsu:failed", "statsu:failed", 2, ("status",), "did you mean status"),
        ("task:a.B", "task:a.B", 0, ("path",), "did you mean path"),
        ("a xyzzy:1", "xyzzy:1", 2, (), "expected one of status, queue"),
        ("a -status:failed", "-status:failed", 2, (), "cannot exclude"),
        ("-", "-", 0, (), "cannot exclude"),
        ('a message:"x y', 'message:"x y', 2, (), "quote without its end"),
        ("status:", "status", 0, (), "empty value"),
        ("status:failed,", "status", 0, (), "empty value"),
        ('message:""', "message", 0, (), "empty value"),
        ("b status:done", "status", 2, (), "expected one of queued, started"),
        ("id:65f", "id", 0, (), "24 hex digits"),
        ("since:yesterday", "since", 0, (), "expected a time"),
        ("since:1h since:2h", "since", 9, (), "given twice"),
        ("since:1h until:2h", "until", 9, (), "later than until"),
        ("duration:5s", "duration", 0, (), ">5s"),
        ("is:runing", "is", 0, ("running",), "expected one of running"),
        ("a status:failed is:running", "status", 2, (), "no job has a status that all parts allow"),
        ("is:running is:still-failing", "is", 11, (), "no job has a status that all parts allow"),
        ("key:42", "key:42", 0, (), "such as key.user_id:42"),
        ("key.a:1 key.a:2", "key.a", 8, (), "twice"),
        ("params.a.b:1 params.a.b:2", "params.a.b", 13, (), "twice"),
        ("...", "...", 0, (), "expected words"),
        ("queue:" + "x" * 201, "queue", 0, (), "1 to 200 characters"),
    ],
)
def test_an_invalid_part_is_named_with_its_position(
    broker: MemoryBroker, text: str, part: str, start: int, suggested: tuple[str, ...], message: str
) -> None:
    error = refused(broker, text)
    assert (error.part, error.start) == (part, start)
    assert text[error.start : error.end] == text[start:].split(" since")[0].split(" is:")[0]
    assert error.suggestions[: len(suggested)] == suggested
    assert message in str(error)
    assert f"(at character {start + 1})" in str(error)


def test_a_query_is_bounded(broker: MemoryBroker) -> None:
    assert "at most 4,000" in str(refused(broker, "x" * 4001))
    assert "at most 50" in str(refused(broker, "x " * 51))


@pytest.mark.parametrize(
    ("text", "statuses"),
    [
        ("is:running", {Status.STARTED}),
        ("is:waiting", WAITING),
        ("is:ended,running", ENDED | {Status.STARTED}),
        ("is:ended is:running", ENDED | {Status.STARTED}),
        ("status:failed,queued is:ended", {Status.FAILED}),
        ("is:still-failing", {Status.FAILED, Status.TIMEOUT, Status.MAXRETRIES, Status.ABORT}),
        ("is:still-failing status:failed,success", {Status.FAILED}),
    ],
)
def test_is_selects_statuses_that_tabs_keep(broker: MemoryBroker, text: str, statuses: set[Status]) -> None:
    query = parse_query(broker, text)
    assert set(query.filter.statuses) == statuses
    without = " ".join(part for part in text.split() if not part.startswith("status:"))
    assert query.tab_filter == parse_query(broker, without).filter


def test_durations_and_nested_params_are_conditions(broker: MemoryBroker, clock: ManualClock) -> None:
    query = parse_query(broker, "duration:>5s duration:<=0.5h params.order.id:x")
    assert query.durations == (
        DurationBound(sign=">", seconds=5.0),
        DurationBound(sign="<=", seconds=1800.0),
    )
    assert query.has_conditions
    assert query.filter.is_empty
    now = clock.now()
    params = {"order": {"id": "x"}}
    assert query.allows(record(now, params=params, total_time=6.0), now)
    assert query.allows(record(now, params={"order.id": "x"}, total_time=1800.0), now)
    assert not query.allows(record(now, params=params, total_time=5.0), now)
    assert not query.allows(record(now, params=params), now)
    assert not query.allows(record(now, params={"order": {"id": "y"}}, total_time=6.0), now)
    running = record(now, params=params, status=Status.STARTED, started_at=now - timedelta(seconds=7))
    assert query.allows(running, now)
    assert parse_query(broker, "duration:<200ms").durations[0].seconds == 0.2


def test_wildcards_stand_for_known_names(broker: MemoryBroker, clock: ManualClock) -> None:
    for queue, path in (("main/a", "mail.Send"), ("main/b", "mail.Sort"), ("other", "Mail.X")):
        put(broker, clock, queue, path=path)
    assert parse_query(broker, "queue:main/*").filter.queues == ("main/a", "main/b")
    assert parse_query(broker, "path:mail.So?t,x.Y").filter.paths == ("mail.Sort", "x.Y")
    assert parse_query(broker, "path:*.S*").filter.paths == ("mail.Send", "mail.Sort")


@pytest.mark.parametrize(
    ("text", "queues", "canonical"),
    [
        ('queue:"a*"', ("a*",), 'queue:"a*"'),
        ("queue:'a*'", ("a*",), 'queue:"a*"'),
        (r"queue:a\*", ("a*",), 'queue:"a*"'),
        (r"queue:a\?,a*", ("a?", "a*", "a?", "ab", "a b"), 'queue:"a?",a*'),
        (r"queue:a\ *", ("a b",), r"queue:a\ *"),
        ('queue:"a b"', ("a b",), 'queue:"a b"'),
    ],
)
def test_quoted_wildcards_stand_for_themselves(
    broker: MemoryBroker, clock: ManualClock, text: str, queues: tuple[str, ...], canonical: str
) -> None:
    for queue in ("a*", "a?", "ab", "a b"):
        put(broker, clock, queue)
    for given in (text, canonical):
        query = parse_query(broker, given)
        assert set(query.filter.queues) == set(queues)
        assert query.text == canonical
    for queue in ("a*", "a?", "a b", "ä/"):
        assert parse_query(broker, f"queue:{exact_value(queue)}").filter.queues == (queue,)


def test_a_pattern_without_a_name_selects_no_job(broker: MemoryBroker, clock: ManualClock) -> None:
    put(broker, clock, "main")
    for text in ("queue:mian*", "path:mail.*", "worker:web*"):
        query = parse_query(broker, text)
        assert not query.filter.is_empty
        assert broker.find(query.filter).records == ()
        assert query.notices == (f"no {text.split(':')[0]} is known whose name matches {text.split(':')[1]}",)


def test_a_pattern_of_too_many_names_is_refused(
    broker: MemoryBroker, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mrq_core.operations.queries.query.MOST_EXPANDED", 3)
    for number in range(4):
        put_many(broker, clock, 1, f"q{number}")
    error = refused(broker, "a queue:q*")
    assert (error.part, error.start) == ("queue", 2)
    assert "stands for 4 names: expected at most 3" in str(error)


def test_a_worker_is_named_by_its_name_its_NAME_and_its_host(broker: MemoryBroker) -> None:
    report(broker, "blue.web-1.7", "web-1")
    report(broker, "web-2.7", "web-2")
    for text in ("worker:blue", "worker:web-1", "worker:blue.web-1.7", "worker:blue*"):
        assert parse_query(broker, text).filter.workers == ("blue.web-1.7",)
    assert parse_query(broker, "worker:web-2,gone.7").filter.workers == ("web-2.7", "gone.7")


def test_params_use_the_index_where_all_tasks_have_published_it(broker: MemoryBroker) -> None:
    broker.state.put(
        TASKS_NAMESPACE, "a.B", {"path": "a.B", "options": {"searchable": ["user_id", "order.id"]}}
    )
    broker.state.put(TASKS_NAMESPACE, "a.C", {"path": "a.C", "options": {"searchable": ["user_id"]}})
    broker.state.put(TASKS_NAMESPACE, "a.D", ["no", "description"])

    def parts_of(text: str) -> tuple[Any, ...]:
        query: SearchQuery = parse_query(broker, text)
        return query.filter.search_keys, query.filter.params, query.nested_params

    assert parts_of("path:a.B params.order.id:x") == ({"order.id": "x"}, {}, {})
    assert parts_of("path:a.B,a.C params.user_id:1") == ({"user_id": 1}, {}, {})
    assert parts_of("path:a.B,a.C params.order.id:x") == ({}, {}, {"order.id": "x"})
    assert parts_of("path:a.B,a.D params.user_id:1") == ({}, {"user_id": 1}, {})
    assert parts_of("path:a.* params.user_id:1") == ({}, {"user_id": 1}, {})
    assert parts_of("params.user_id:1") == ({}, {"user_id": 1}, {})
    assert parts_of("path:a.B params.user_id:null") == ({}, {"user_id": None}, {})
    assert parts_of("path:a.B params.user_id:[1]") == ({}, {"user_id": [1]}, {})


@pytest.mark.parametrize(
    ("name", "pattern", "matches"),
    [
        ("abc", "abc", True), ("abc", "a*", True), ("abc", "*c", True), ("abc", "a?c", True),
        ("abc", "*", True), ("", "*", True), ("", "?", False), ("abc", "ab", False), ("abc", "?", False),
        ("abc", "b*", False), ("aXbXc", "a*b*c", True), ("a[b]c", "a[b]*", True), ("ab", "a[b]", False),
        ("aab", "*ab", True), ("abab", "*ab", True), ("ABC", "abc", False),
        ("a" * 500, "*a" * 200 + "b", False),
    ],
)  # fmt: skip
def test_patterns(name: str, pattern: str, matches: bool) -> None:
    assert matches_pattern(name, pattern) is matches


@pytest.mark.parametrize("text", ["\\", "a\\", "a,b", "x\x00y"])
def test_odd_texts_are_free_words_or_refused_as_such(broker: MemoryBroker, text: str) -> None:
    [part] = split_query(text)
    assert part.name == ""


@pytest.mark.parametrize("text", [":", "::", ":x", "key.:", '"', "'", "é:1", "is:", ",", "\x00"])
def test_odd_texts_are_refused(broker: MemoryBroker, text: str) -> None:
    assert refused(broker, text).start == 0


def test_parts_have_their_values_without_quotes() -> None:
    [part] = split_query('queue:a,"b c"')
    assert (part.name, part.values, part.value) == ("queue", ("a", "b c"), "a,b c")


@pytest.mark.parametrize("name", [" lead ", "q\n", "\t", " a, b ", '"x"', "'", "a\\b ", "two words"])
def test_a_quoted_value_keeps_its_blanks(broker: MemoryBroker, name: str) -> None:
    quoted = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    query = parse_query(broker, f"queue:{quoted} status:failed")
    assert query.filter.queues == (name,)
    again = parse_query(broker, query.text)
    assert (again.filter, again.text) == (query.filter, query.text)


def test_several_parts_of_one_name_are_alternatives_and_parts_of_different_names_are_not(
    broker: MemoryBroker,
) -> None:
    query = parse_query(broker, "queue:a status:failed queue:b status:timeout,failed path:a.B path:c.D")
    assert query.filter.queues == ("a", "b")
    assert query.filter.statuses == (Status.FAILED, Status.TIMEOUT)
    assert query.filter.paths == ("a.B", "c.D")
    assert set(parse_query(broker, "is:running is:waiting").filter.statuses) == {Status.STARTED, *WAITING}
