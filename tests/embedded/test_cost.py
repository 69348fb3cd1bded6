"""What a claim costs does not grow with what it does not take. Costs are steps of SQLite's machine."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mrq_core.clock import after
from mrq_core.contract.messages import Claimed, ClaimRequest, Limit, Outcome, Settlement, Wanted
from mrq_core.contract.metrics import measured
from mrq_core.contract.queries import JobFilter, Order
from mrq_core.contract.record import Status
from mrq_core.embedded.broker import EmbeddedBroker
from mrq_core.embedded.jobs import claiming, pruning, searching, totals
from mrq_core.embedded.jobs.claiming import MIN_BLOCKED
from mrq_core.embedded.jobs.conditions import condition
from mrq_core.embedded.jobs.indexes import Index
from mrq_core.testing.clock import ManualClock
from tests.embedded.kit import after_connect, claim, job, open_broker, succeed

STEPS = 10
"""How many instructions of the machine make one count."""
SLACK = 1.5
"""Deeper trees cost a little more; to scan twenty times as many jobs would cost twenty times as much."""


class Counter:
    """Counts what the connections of a broker do."""

    def __init__(self) -> None:
        self.counts = 0

    def watch(self, connection: sqlite3.Connection) -> None:
        connection.set_progress_handler(self._count, STEPS)

    def _count(self) -> int:
        self.counts += 1
        return 0


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
def broker(tmp_path: Path, counter: Counter) -> Iterator[EmbeddedBroker]:
    with closing(open_broker(tmp_path / "mrq.sqlite3", connect=after_connect(counter.watch))) as broker:
        broker.prepare()
        yield broker


def cost_of_claim(broker: EmbeddedBroker, counter: Counter, *queues: str) -> int:
    """The counts of claiming one due job, which is there."""
    before = counter.counts
    [record] = claim(broker, *queues, limit=1).records
    cost = counter.counts - before
    assert broker.settle([succeed(record)]) == [True]
    return cost


def fill(broker: EmbeddedBroker, number: int, **fields: object) -> None:
    for _ in range(number // 1000):
        broker.enqueue([job(**fields) for _ in range(1000)])  # type: ignore[arg-type]


def test_delayed_urgent_jobs_do_not_slow_the_claim_of_a_due_one(
    broker: EmbeddedBroker, counter: Counter
) -> None:
    broker.enqueue([job(), job()])
    fill(broker, 1_000, priority=4, delay=3600.0)
    few = cost_of_claim(broker, counter)
    fill(broker, 20_000, priority=4, delay=3600.0)
    assert cost_of_claim(broker, counter) <= few * SLACK


def test_a_long_queue_does_not_slow_a_claim(broker: EmbeddedBroker, counter: Counter) -> None:
    fill(broker, 1_000)
    few = cost_of_claim(broker, counter)
    fill(broker, 20_000)
    assert cost_of_claim(broker, counter) <= few * SLACK


def test_a_tree_costs_its_subqueues_and_not_their_jobs(broker: EmbeddedBroker, counter: Counter) -> None:
    broker.enqueue([job("main/a"), job("main/a"), job("main/c", delay=3600.0)])
    fill(broker, 1_000, queue="main/b", delay=3600.0)
    few = cost_of_claim(broker, counter, "main/")
    fill(broker, 10_000, queue="main/b", delay=3600.0)
    fill(broker, 10_000, queue="other")
    assert cost_of_claim(broker, counter, "main/") <= few * SLACK


def claim_from_tree(broker: EmbeddedBroker, exclude: frozenset[str] = frozenset(), limit: int = 1) -> Claimed:
    wanted = (Wanted(name="main/", exclude=exclude),)
    return broker.claim(ClaimRequest(worker="w1", wanted=wanted, limit=limit, lease=60.0))


def subqueues(
    broker: EmbeddedBroker, number: int, *, delay: float | None = None, prefix: str = ""
) -> list[str]:
    """So many subqueues of one tree, with a job in each."""
    names = [f"main/{prefix}{n:05}" for n in range(number)]
    for start in range(0, number, 1000):
        broker.enqueue([job(name, delay=delay) for name in names[start : start + 1000]])
    return names


def test_a_tree_with_thousands_of_due_subqueues_costs_those_that_are_taken(
    broker: EmbeddedBroker, counter: Counter
) -> None:
    subqueues(broker, 100)
    few = cost_of_claim(broker, counter, "main/")
    subqueues(broker, 10_000, prefix="more")
    assert cost_of_claim(broker, counter, "main/") <= few * SLACK


def test_subqueues_with_delayed_jobs_only_cost_a_claim_nothing(
    broker: EmbeddedBroker, counter: Counter
) -> None:
    subqueues(broker, 10, prefix="due")
    few = cost_of_claim(broker, counter, "main/")
    subqueues(broker, 9_990, delay=3600.0)
    assert cost_of_claim(broker, counter, "main/") <= few * SLACK
    taken = claim_from_tree(broker, limit=100)
    assert len(taken.records) == 8
    assert taken.next_due is not None
    assert taken.next_due > taken.now


def test_delayed_jobs_of_thousands_of_subqueues_are_found_when_their_time_comes(tmp_path: Path) -> None:
    clock = ManualClock()
    with closing(open_broker(tmp_path / "mrq.sqlite3", clock=clock)) as broker:
        names = subqueues(broker, 1_000, delay=3600.0)
        assert claim_from_tree(broker).records == ()
        clock.advance(3600.0)
        taken: set[str] = set()
        for _ in range(1_000 // 32 + 2):
            taken.update(record.queue for record in claim_from_tree(broker, limit=100).records)
        assert taken == set(names)


def test_paused_subqueues_cost_a_bounded_walk_and_hide_nothing(
    broker: EmbeddedBroker, counter: Counter
) -> None:
    paused = frozenset(subqueues(broker, 9_990))
    open_ones = subqueues(broker, 10, prefix="z")
    taken: list[str] = []
    calls = 0
    most = 0
    while len(taken) < len(open_ones):
        before = counter.counts
        answer = claim_from_tree(broker, paused)
        most = max(most, counter.counts - before)
        taken += [record.queue for record in answer.records]
        calls += 1
        if not answer.records:  # the walk has not come round: the next call goes on
            assert answer.next_due == answer.now
    assert sorted(taken) == sorted(open_ones)
    assert calls <= 10 * len(open_ones)
    assert most * STEPS <= 50_000


@pytest.mark.parametrize("limit", [Limit(concurrency=1), Limit(rate=1.0, per=86_400.0)])
def test_blocked_jobs_are_passed_once_and_in_bounded_parts(
    broker: EmbeddedBroker, counter: Counter, limit: Limit
) -> None:
    fill(broker, 2_000, priority=4, limit_keys=("k",))
    broker.enqueue([job(), job()])
    request = ClaimRequest(worker="w1", wanted=(Wanted(name="q"),), limit=1, lease=60.0, limits={"k": limit})
    costs: list[int] = []
    free = 0
    while free < 2:
        before = counter.counts
        [*records] = broker.claim(request).records
        costs.append(counter.counts - before)
        free += sum(not record.limit_keys for record in records)
    assert 2_000 / MIN_BLOCKED <= len(costs) <= 2_000 / MIN_BLOCKED + 5
    assert costs[-1] <= min(costs[2:-2]) / 4


@pytest.mark.parametrize("statement", [claiming._HEAD, claiming._TAIL])
def test_a_claim_seeks_in_the_index_and_sorts_nothing(tmp_path: Path, statement: str) -> None:
    plan = plan_of(tmp_path, statement, ("q", 0, 1, 1))
    assert plan == ["SEARCH jobs USING INDEX jobs_entries (queue=? AND rank=? AND due_ms<?)"]


def test_prune_and_counts_seek_in_their_indexes(tmp_path: Path) -> None:
    assert plan_of(tmp_path, pruning._EXPIRED, (1, 1)) == [
        "SEARCH jobs USING INDEX jobs_by_expiry (expires_ms<?)"
    ]
    assert any("jobs_entries" in line for line in plan_of(tmp_path, totals._DUE, ("q", 0, 1, 1)))


COLUMNS = {
    "status": "jobs_by_status",
    "path": "jobs_by_path",
    "queue": "jobs_by_queue",
    "schedule": "jobs_by_schedule",
}


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("order", list(Order))
def test_candidates_of_a_search_come_from_the_index_in_order(
    tmp_path: Path, column: str, order: Order
) -> None:
    sign = "<" if order is Order.NEWEST_FIRST else ">"
    assert plan_of_search(tmp_path, [Index(column, ("x",))], order) == [
        f"SEARCH listed USING COVERING INDEX {COLUMNS[column]} ({column}=? AND id{sign}?)",
        "CORRELATED SCALAR SUBQUERY 1",
        "SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)",
    ]


@pytest.mark.parametrize("order", list(Order))
def test_candidates_of_a_term_come_from_the_terms_in_order(tmp_path: Path, order: Order) -> None:
    sign = "<" if order is Order.NEWEST_FIRST else ">"
    assert plan_of_search(tmp_path, [Index("word", ("x",), is_terms=True)], order) == [
        f"SEARCH listed USING PRIMARY KEY (name=? AND value=? AND job_id{sign}?)",
        "CORRELATED SCALAR SUBQUERY 1",
        "SEARCH jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)",
    ]


def test_candidates_are_sought_in_the_other_indexes_before_their_rows(tmp_path: Path) -> None:
    others = [Index("path", ("x",)), Index("status", ("x", "y")), Index("word", ("x",), is_terms=True)]
    plan = plan_of_search(tmp_path, [Index("queue", ("x",)), *others], Order.NEWEST_FIRST)
    assert [line for line in plan if line.startswith("SEARCH")] == [
        "SEARCH listed USING COVERING INDEX jobs_by_queue (queue=? AND id<?)",
        "SEARCH other USING COVERING INDEX jobs_by_path (path=? AND id=?)",
        "SEARCH other USING COVERING INDEX jobs_by_status (status=? AND id=?)",
        "SEARCH other USING PRIMARY KEY (name=? AND value=? AND job_id=?)",
        "SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)",
    ]


def plan_of_search(tmp_path: Path, used: list[Index], order: Order) -> list[str]:
    """The plan of a search in the first index, and in the others for each candidate."""
    sql, values = searching.candidates_of(
        used[0].ranges()[0], used[1:], JobFilter(), condition(JobFilter(), 0), order
    )
    return plan_of(tmp_path, sql, (*values, "x", 1))


FAILED = Outcome(
    status=Status.FAILED,
    ttl=1000.0,
    exception_type="a.E",
    exception_message="no lamps left",
    error_group="group",
)


def test_enqueue_claim_and_success_without_terms_do_not_touch_the_terms(tmp_path: Path) -> None:
    statements: list[str] = []
    connect = after_connect(lambda connection: connection.set_trace_callback(statements.append))
    with closing(open_broker(tmp_path / "mrq.sqlite3", connect=connect)) as broker:
        broker.prepare()
        statements.clear()
        broker.enqueue([job()])
        [record] = claim(broker).records
        assert broker.settle([succeed(record)]) == [True]
        assert [line for line in statements if "terms" in line or "'group'" in line] == []
        broker.enqueue([job(search_keys={"k": 1})])
        assert [line for line in statements if "terms" in line] != []


@pytest.mark.parametrize(
    "wanted",
    [
        JobFilter(search_keys={"tenant": "t", "user": 7}),
        JobFilter(search_keys={"user": 7}, statuses=(Status.QUEUED,), paths=("tests.tasks.Example",)),
        JobFilter(search_keys={"user": 7}, queues=("q", "other")),
        JobFilter(queues=("rare",), statuses=(Status.QUEUED,), paths=("tests.tasks.Example",)),
        JobFilter(queues=("tree/",), statuses=(Status.QUEUED,)),
        JobFilter(schedules=("daily",), queues=("q",)),
    ],
)
def test_a_rare_match_costs_as_much_among_many_jobs_as_among_few(
    broker: EmbeddedBroker, counter: Counter, wanted: JobFilter
) -> None:
    broker.enqueue([job(queue, search_keys={"tenant": "t", "user": 7}, schedule="daily")
                    for queue in ("q", "rare", "tree/a", "tree/b")])  # fmt: skip
    fill(broker, 2_000, search_keys={"tenant": "t"})

    def cost() -> int:
        before = counter.counts
        found = broker.find(wanted).records
        assert broker.count(wanted).numbers == {"": len(found)}
        assert len(found) in range(1, 5)
        return counter.counts - before

    few = cost()
    fill(broker, 20_000, search_keys={"tenant": "t"})
    assert cost() <= few * SLACK


def test_counts_that_totals_answer_do_not_grow_with_the_jobs(
    broker: EmbeddedBroker, counter: Counter
) -> None:
    questions: list[tuple[JobFilter, str | None]] = [
        (JobFilter(), None),
        (JobFilter(), "status"),
        (JobFilter(statuses=(Status.QUEUED,)), "queue"),
        (JobFilter(queues=("q",)), "status"),
        (JobFilter(), "error_group"),
        (JobFilter(statuses=(Status.FAILED,)), "error_group"),
        (JobFilter(), "exception_type"),
        (JobFilter(exception_types=("E",)), "exception_type"),
        (JobFilter(error_groups=("group",)), None),
        (JobFilter(error_groups=("group",)), "status"),
    ]

    def cost_of(wanted: JobFilter, group_by: str | None) -> int:
        before = counter.counts
        assert broker.count(wanted, group_by).numbers != {}
        return counter.counts - before

    def fill_and_count(number: int) -> list[int]:
        fill(broker, number)
        records = claim(broker, limit=number // 2).records
        broker.settle([Settlement(id=one.id, token=one.token or "", outcome=FAILED) for one in records])
        return [cost_of(*question) for question in questions]

    few = fill_and_count(1_000)
    for question, cost, cost_among_few in zip(questions, fill_and_count(10_000), few, strict=True):
        assert cost <= cost_among_few * SLACK + 10, question


def plan_of(tmp_path: Path, statement: str, values: tuple[object, ...]) -> list[str]:
    path = tmp_path / "plan.sqlite3"
    with closing(open_broker(path)) as broker:
        broker.prepare()
    with closing(sqlite3.connect(path)) as connection:
        return [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + statement, values)]


def test_reading_and_pruning_metrics_costs_no_more_beside_others(
    broker: EmbeddedBroker, counter: Counter
) -> None:
    now = broker.now()
    start, end = after(now, -3600), after(now, 1)

    def cost(work: Callable[[], object]) -> int:
        before = counter.counts
        work()
        return counter.counts - before

    numbers = []
    for others in (10, 2000):
        for number in range(others):
            at = after(now, -3600.0 * (number % 400))
            broker.record_metrics([measured(f"other{number % 7}", at, (("task", f"t{number}"),), [1.0])])
        broker.record_metrics([measured("own", now, (("task", "t"),), [1.0])])
        numbers.append(
            (cost(lambda: broker.read_metrics(["own"], start, end)), cost(lambda: broker.prune(5)))
        )
    (few_read, few_pruned), (many_read, many_pruned) = numbers
    assert many_read <= few_read * SLACK + 5
    assert many_pruned <= few_pruned * SLACK + 50
