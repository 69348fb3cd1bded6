"""What terms cost on the server, which index a search reads, and counts that come from the totals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pymongo
import pytest
from bson import ObjectId
from msgspec.structs import replace

from mrq_broker_mongo.broker import MongoBroker
from mrq_broker_mongo.jobs import indexes, recounting, searching
from mrq_core.clock import from_ms
from mrq_core.contract.matching import matches
from mrq_core.contract.messages import Cancel, ClaimRequest, NewJob, Outcome, Requeue, Settlement, Wanted
from mrq_core.contract.queries import JobFilter, Order
from mrq_core.contract.record import JobRecord, Status
from mrq_core.drivers import pacing
from mrq_core.operations.jobs import count_all
from mrq_core.testing.clock import ManualClock
from tests.mongo.explaining import Doc, Explained, check, figures, stages
from tests.mongo.kit import Place, claim, ended, new_job, success
from tests.mongo.recount import check_collections

KEYS = {"user_id": 42, "order": "A-1"}


@pytest.fixture
def explained(place: Place) -> Iterator[Explained]:
    with pymongo.MongoClient[Doc](place.url) as client:
        yield Explained(client)


@pytest.fixture
def broker(place: Place, explained: Explained) -> Iterator[MongoBroker]:
    broker = place.open()
    connection = broker._connection
    connect = lambda: pymongo.MongoClient[Doc](place.url, event_listeners=[explained])  # noqa: E731
    connection.location = connection.location._replace(connect=connect)
    broker.enqueue([new_job("other")])
    claim(broker, queue="other")
    yield broker
    explained.is_on = False
    broker.close()


def keyed(queue: str = "q", keys: dict[str, Any] = KEYS, **fields: Any) -> NewJob:
    return new_job(queue, search_keys=keys, **fields)


def failure(
    record: JobRecord,
    group: str = "g",
    message: str = "No stock",
    status: Status = Status.FAILED,
    exception_type: str = "shop.NoStock",
) -> Settlement:
    runs_again = status is Status.RETRY
    outcome = Outcome(
        status=status,
        ttl=None if runs_again else 60.0,
        delay=0.0 if runs_again else None,
        exception_type=exception_type,
        exception_message=message,
        error_group=group,
    )
    return ended(record, outcome)


def take(broker: MongoBroker, queue: str = "q", limit: int = 1000) -> list[JobRecord]:
    request = ClaimRequest(worker="w", wanted=(Wanted(name=queue),), limit=limit, lease=600.0)
    return list(broker.claim(request).records)


def document(broker: MongoBroker, job_id: str) -> Doc:
    doc = broker._connection.run("jobs", lambda jobs: jobs.find_one({"_id": ObjectId(job_id)}))
    assert doc is not None
    return doc


def test_a_job_without_exception_and_keys_has_no_field_for_terms(broker: MongoBroker) -> None:
    broker.enqueue([new_job()])
    [record] = take(broker)
    broker.settle([success(record)])
    assert not {"terms", "search_keys", "error_group"} & document(broker, record.id).keys()


def test_a_job_with_search_keys_takes_the_same_commands(broker: MongoBroker, explained: Explained) -> None:
    def run(job: NewJob) -> None:
        broker.enqueue([job])
        [record] = take(broker)
        assert broker.settle([success(record)]) == [True]

    run(new_job())
    plain = check(explained, lambda: run(new_job())).commands
    assert check(explained, lambda: run(keyed())).commands == plain


def test_each_change_of_a_job_changes_its_terms(broker: MongoBroker) -> None:
    def terms() -> list[str]:
        return sorted(document(broker, job.record.id).get("terms", ()))

    job = keyed()
    keys = ['key order\0"A-1"', "key user_id\x0042"]
    error = ["group\0g", "type\0NoStock", "type\0shop.NoStock", "word\0no", "word\0stock"]
    broker.enqueue([job])
    assert terms() == keys
    [record] = take(broker)
    broker.settle([failure(record, status=Status.RETRY)])
    assert terms() == sorted(keys + error)
    for limit in (1, 10):  # a claim of one job, and of several
        [record] = take(broker, limit=limit)
        assert terms() == keys
        broker.settle([failure(record, status=Status.RETRY)])
        assert terms() == sorted(keys + error)
    broker.cancel([record.id], Cancel(ttl=60.0))
    assert terms() == keys
    broker.requeue([record.id], Requeue())
    [record] = take(broker)
    broker.settle([failure(record)])
    assert terms() == sorted(keys + error)
    broker.requeue([record.id], Requeue())
    assert terms() == keys
    check_collections(broker)


@pytest.mark.parametrize("limit", [1, 5])
def test_a_job_that_is_enqueued_with_an_exception_loses_it_in_its_claim(
    broker: MongoBroker, limit: int
) -> None:
    """As records of another broker have it."""
    attempt: dict[str, Any] = {"exception_type": "a.E", "exception_message": "no lamps", "error_group": "g"}
    job = keyed(started_at=datetime.now(UTC), token="1.a", claims=1, **attempt)
    broker.enqueue([job])
    check_collections(broker)
    assert [one.id for one in broker.find(JobFilter(error_groups=("g",))).records] == [job.record.id]
    assert broker.totals().by_error_group == {"g": {Status.QUEUED: 1}}
    [record] = take(broker, limit=limit)
    assert (record.error_group, record.attempts[0].exception_type) == (None, "a.E")
    assert broker.find(JobFilter(error_groups=("g",))).records == ()
    assert broker.totals().by_error_group == {}
    check_collections(broker)


@pytest.mark.parametrize(
    "wanted",
    [
        JobFilter(search_keys={"user_id": -1}),
        JobFilter(search_keys={"user_id": -1, "order": "A-1"}, statuses=(Status.FAILED,)),
        JobFilter(error_words=("rare",)),
        JobFilter(error_words=("stock", "rare"), exception_types=("NoStock",)),
        JobFilter(error_groups=("rare",), paths=("t.Task",)),
        JobFilter(queues=("few/",), statuses=(Status.FAILED,), paths=("t.Task",)),
    ],
)
def test_a_search_reads_the_smallest_of_the_indexes_that_serve_it(
    broker: MongoBroker, explained: Explained, wanted: JobFilter
) -> None:
    broker.enqueue([keyed() for _ in range(2000)])
    broker.settle([failure(one) for one in take(broker, limit=2000)])
    broker.enqueue([keyed("few/a", {**KEYS, "user_id": -1})])
    [record] = take(broker, "few/")
    broker.settle([failure(record, "rare", "rare stock")])
    for order in Order:
        found = check_reads(explained, lambda: broker.find(wanted, order=order))  # noqa: B023
        assert [one.id for one in found.records] == [record.id]
    assert check_reads(explained, lambda: broker.count(wanted).numbers) == {"": 1}
    assert check_reads(explained, lambda: broker.count(wanted, "error_group").numbers) == {"rare": 1}


@pytest.mark.parametrize("group_by", [None, "status"])
def test_other_indexes_narrow_the_entries_before_documents_are_read(
    broker: MongoBroker, explained: Explained, monkeypatch: pytest.MonkeyPatch, group_by: str | None
) -> None:
    """The queue has the fewest jobs, of which none has the path: the first part alone reads documents."""
    monkeypatch.setattr(searching, "FIRST_DOCUMENTS", 100)
    for queue, path, number in (("q", "a", 800), ("r", "b", 1000), ("s", "c", 1900)):
        for start in range(0, number, 100):
            jobs = [replace(new_job(queue).record, path=path) for _ in range(min(100, number - start))]
            broker.enqueue([NewJob(record=record) for record in jobs])
    wanted = JobFilter(queues=("q",), paths=("b",), statuses=(Status.QUEUED,))
    explained.found, explained.is_on = [], True
    assert broker.find(wanted).records == ()
    found = sum(figures(told)["totalDocsExamined"] for _, told in explained.found)
    explained.found = []
    assert broker.count(wanted, group_by).number == 0
    explained.is_on = False
    counted = sum(figures(told)["totalDocsExamined"] for _, told in explained.found)
    assert (found <= 150, counted <= 10) == (True, True), (found, counted)


def check_reads(explained: Explained, work: Any) -> Any:
    """The result of the work. Its searches read few documents, each from an index that a hint names; a
    measurement of an index reads keys up to its limit, and no documents."""
    results: list[Any] = []
    explained.found = []
    explained.is_on = True
    try:
        results.append(work())
    finally:
        explained.is_on = False
    reads = [
        (command, told) for command, told in explained.found if next(iter(command.values())).endswith("_jobs")
    ]
    assert reads
    for command, told in reads:
        cost = figures(told)
        assert "hint" in command, command
        assert cost["totalDocsExamined"] <= 2, (command, cost)
        assert cost["totalKeysExamined"] <= 1_010, (command, cost)
        assert not {"COLLSCAN", "SORT"} & {one["stage"] for one in stages(told)}, command
    return results[0]


def test_jobs_of_a_status_path_and_queue_come_from_the_index_of_the_rarest(
    broker: MongoBroker, explained: Explained
) -> None:
    """Many jobs have the status, many the path, and few are in the queue."""
    broker.enqueue([new_job() for _ in range(3000)])
    broker.enqueue([new_job("rare") for _ in range(30)])
    wanted = JobFilter(statuses=(Status.QUEUED,), paths=("t.Task",), queues=("rare",))
    for size in (10, 50):
        check(explained, lambda: broker.find(wanted, limit=size))  # noqa: B023
        hints = [command["hint"] for command, _ in explained.found if "find" in command and "hint" in command]
        assert set(hints) == {"queue"}
    assert len(broker.find(wanted).records) == 30
    broker.enqueue([new_job("rare") for _ in range(3000)])
    [first] = take(broker, "rare", 1)
    check_started = JobFilter(statuses=(Status.STARTED,), paths=("t.Task",), queues=("rare",))
    assert [one.id for one in broker.find(check_started).records] == [first.id]
    check(explained, lambda: broker.find(check_started))
    hints = [command["hint"] for command, _ in explained.found if "find" in command and "hint" in command]
    assert set(hints) == {"status"}


@pytest.mark.parametrize("order", list(Order))
def test_a_job_that_has_several_of_the_wanted_terms_is_found_once(broker: MongoBroker, order: Order) -> None:
    broker.enqueue([new_job() for _ in range(5)])
    records = take(broker)
    broker.settle([failure(one) for one in records])
    wanted = JobFilter(exception_types=("NoStock", "shop.NoStock", "Other"))
    assert broker.count(wanted).numbers == {"": 5}
    assert broker.count(wanted, "exception_type").numbers == {"shop.NoStock": 5}
    found: list[str] = []
    cursor = None
    while not found or cursor is not None:
        page = broker.find(wanted, order=order, cursor=cursor, limit=2)
        found += [record.id for record in page.records]
        cursor = page.cursor
    assert found == sorted((record.id for record in records), reverse=order is Order.NEWEST_FIRST)


COUNTS = [
    *({}, {"statuses": (Status.FAILED,)}, {"statuses": (Status.RETRY, Status.QUEUED)}),
    *({"error_groups": ("g1", "none")}, {"error_groups": ("g1",), "statuses": (Status.RETRY,)}),
    *(
        {"exception_types": ("NoStock",)},
        {"exception_types": ("shop.NoStock", "x"), "statuses": (Status.RETRY,)},
    ),
    *({"queues": ("t/",)}, {"queues": ("q", "t/a"), "statuses": (Status.FAILED,)}, {"paths": ("t.Task",)}),
    *({"paths": ("t.Task",), "queues": ("q",)}, {"search_keys": KEYS}, {"error_words": ("stock",)}),
]
GROUPS = (None, "status", "queue", "path", "error_group", "exception_type", "worker")


@pytest.mark.parametrize("wanted", COUNTS)
def test_counts_from_the_totals_are_those_of_the_jobs(
    place: Place, monkeypatch: pytest.MonkeyPatch, wanted: dict[str, Any]
) -> None:
    clock = ManualClock()
    broker = place.open(clock)
    broker.enqueue([keyed(queue) for queue in ("q", "t/a", "t/b") for _ in range(4)])
    records = [*take(broker, "q"), *take(broker, "t/")]
    broker.settle([success(one) for one in records[:2]])
    broker.settle([failure(one, f"g{index % 3}") for index, one in enumerate(records[2:8])])
    clock.advance(60.0)  # these have expired
    broker.settle([failure(records[8], "g1"), failure(records[9], "g2")])
    broker.settle([failure(records[10], "g1", status=Status.RETRY)])
    chosen = JobFilter(**wanted)
    every = [one for page in [broker.find(chosen, limit=100)] for one in page.records]
    for group in GROUPS:
        expected: dict[str, int] = {} if group else {"": 0}
        for one in every:
            value = "" if group is None else getattr(one, group)
            if value is not None:
                name = value.value if isinstance(value, Status) else value
                expected[name] = expected.get(name, 0) + 1
        monkeypatch.setattr(searching, "MOST_COUNTED", -1)
        assert broker.count(chosen, group).numbers == expected
        monkeypatch.setattr(searching, "MOST_COUNTED", 10_000)
        assert broker.count(chosen, group).numbers == expected
    broker.close()


def test_the_numbers_of_groups_without_jobs_are_deleted(place: Place) -> None:
    clock = ManualClock()
    broker = place.open(clock)
    broker.enqueue([new_job(), new_job()])
    first, second = take(broker)
    broker.settle([failure(first, "gone", exception_type="shop.Gone"), failure(second, "kept")])
    broker.remove([first.id])

    def groups() -> set[str]:
        found = broker._connection.run("totals", lambda totals: list(totals.find({}, {"_id": 1})))
        return {doc["_id"] for doc in found if doc["_id"].startswith(("g ", "t "))}

    assert groups() == {"g gone", "g kept", "t shop.NoStock", "t shop.Gone"}
    assert recounting.recount_if_due(broker._connection)
    assert groups() == {"g kept", "t shop.NoStock"}
    assert broker.totals().by_error_group == {"kept": {Status.FAILED: 1}}
    broker.close()


def test_200_queues_are_counted_in_a_bounded_number_of_commands(
    broker: MongoBroker, explained: Explained
) -> None:
    queues = [f"q{number}" for number in range(200)]
    broker.enqueue([new_job(queue) for queue in queues for _ in range(3)])
    later = [new_job(queue).record for queue in queues[:100]]
    broker.enqueue([NewJob(record=record, delay=1000.0) for record in later])
    take(broker, "q5", 1)
    explained.commands, explained.is_on = [], True
    found = broker.counts(queues)
    explained.is_on = False
    assert len(explained.commands) <= 8
    for index, one in enumerate(found):
        claimed = int(one.queue == "q5")
        is_delayed = index < 100
        assert (one.waiting, one.due, one.claimed) == (3 + is_delayed - claimed, 3 - claimed, claimed), one


def test_counting_jobs_with_an_exception_reads_only_the_terms_of_types_or_groups(
    broker: MongoBroker, explained: Explained
) -> None:
    broker.enqueue([new_job() for _ in range(300)])
    broker.settle([failure(one, message="a b c d e f g h i j") for one in take(broker)])
    for group, expected, terms in (
        ("exception_type", {"shop.NoStock": 300}, 2),
        ("error_group", {"g": 300}, 1),
    ):
        check(explained, lambda: broker.count(JobFilter(), group).numbers)  # noqa: B023
        assert broker.count(JobFilter(), group).numbers == expected
        [cost] = [figures(told) for command, told in explained.found if command.get("hint") == "terms"]
        assert cost["totalKeysExamined"] <= terms * 300 + 10


@pytest.mark.parametrize("group", ["exception_type", "error_group"])
@pytest.mark.parametrize("most", [100, 0], ids=["few groups", "many groups"])
def test_a_count_by_exceptions_whose_time_is_over_goes_on_at_its_cursor(
    broker: MongoBroker, monkeypatch: pytest.MonkeyPatch, group: str, most: int
) -> None:
    """No step reads all jobs with an exception at once."""
    monkeypatch.setattr(pacing, "MAX_SECONDS", 0.0)
    monkeypatch.setattr(pacing, "FIRST", 2)
    monkeypatch.setattr(searching, "MOST_ERRORS", 0)
    monkeypatch.setattr(indexes, "MOST_VALUES", most)
    for number in range(9):
        broker.enqueue([keyed("q", {"n": number})])
        [record] = take(broker, "q", 1)
        broker.settle([failure(record, f"g{number % 3}", exception_type=f"shop.E{number % 2}")])
    wanted = JobFilter(since=from_ms(0))
    first = broker.count(wanted, group)
    assert 0 < first.number < 9
    assert not first.is_complete
    expected = {"g0": 3, "g1": 3, "g2": 3} if group == "error_group" else {"shop.E0": 5, "shop.E1": 4}
    assert count_all(broker, wanted, group) == expected


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize(
    "wanted",
    [
        JobFilter(error_words=("no", "rare")),
        JobFilter(error_words=("no",), workers=("w",), search_keys={"n": 1}),
        JobFilter(search_keys={"n": 1}, params={"a": 1}),
        JobFilter(queues=("t/",), search_keys={"n": 1}),
    ],
)
def test_a_search_whose_time_is_over_goes_on_at_its_cursor(
    broker: MongoBroker, monkeypatch: pytest.MonkeyPatch, wanted: JobFilter, order: Order
) -> None:
    """Each page reads two entries of an index, and tells how far the search got."""
    monkeypatch.setattr(pacing, "MAX_SECONDS", 0.0)
    monkeypatch.setattr(pacing, "FIRST", 2)
    for number in range(12):
        broker.enqueue([keyed("t/q", {"n": number % 3})])
        [record] = take(broker, "t/q", 1)
        broker.settle([failure(record, message="No rare stock" if number % 4 == 0 else "No stock")])
    everything = broker.find(JobFilter(queues=("t/q",)), limit=100, order=order).records
    expected = [one.id for one in everything if matches(one, wanted)]
    assert expected
    found: list[str] = []
    cursor, pages = None, 0
    while pages == 0 or cursor is not None:
        page = broker.find(wanted, order=order, cursor=cursor)
        found += [one.id for one in page.records]
        cursor, pages = page.cursor, pages + 1
    assert pages >= 2
    assert found == expected
    for group in GROUPS:
        numbers = Counter(getattr(one, group) if group else "" for one in everything if one.id in expected)
        del numbers[None]
        assert count_all(broker, wanted, group) == numbers
