"""Lists of queues, jobs and workers, as the command line and a dashboard read them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from mrq_core.client.client import Client
from mrq_core.client.handles import Queue
from mrq_core.config.settings import Config
from mrq_core.contract.messages import CHUNK, ClaimRequest, Wanted
from mrq_core.contract.queries import JobFilter, LogLine, LogPage, Order, Page
from mrq_core.errors import InvalidValue, JobNotFound
from mrq_core.ids import new_id
from mrq_core.operations.jobs import list_jobs, read_log, read_log_tail
from mrq_core.operations.queues import all_counts, list_queues, pause_queues, resume_queues, waiting_in
from mrq_core.operations.workers import (
    WORKERS_NAMESPACE,
    WorkerReport,
    find_worker,
    list_workers,
    report_to_json,
)
from mrq_core.testing import MemoryBroker


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def client(broker: MemoryBroker) -> Client:
    return Client(Config(), broker=broker)


# --- queues --------------------------------------------------------------------------------------


def test_all_queues_are_listed_by_name_with_their_counts(client: Client) -> None:
    for queue in ("mail/fast", "default", "default"):
        client.queue_job("a.B", queue=queue)
    client.queue_job("a.B", queue="default", delay=60)
    found = list_queues(client.broker)
    assert [(q.queue, q.waiting, q.due, q.claimed) for q in found.queues] == [
        ("default", 3, 2, 0),
        ("mail/fast", 1, 1, 0),
    ]


@pytest.mark.parametrize("number", [0, CHUNK - 1, CHUNK, CHUNK + 1])
def test_counts_go_on_after_a_thousand_queues(
    number: int, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"q/{index:04}" for index in range(number)]
    pages, asked = [], []

    def queue_names(prefix: str = "", after: str = "", limit: int = 1000) -> list[str]:
        pages.append(after)
        return [name for name in names if name.startswith(prefix) and name > after][:limit]

    counts = broker.counts

    def counted(queues: Sequence[str]) -> object:
        asked.append(len(queues))
        return counts(queues)

    monkeypatch.setattr(broker, "queue_names", queue_names)
    monkeypatch.setattr(broker, "counts", counted)
    assert [one.queue for one in all_counts(broker, "q/")] == names
    assert len(pages) == number // CHUNK + 1
    assert sum(asked) == number
    assert max(asked, default=0) <= CHUNK


def test_the_size_of_a_tree_is_the_sum_of_its_subqueues_and_leaves_out_claimed_jobs(client: Client) -> None:
    for queue in ("mail/a", "mail/b", "mail/b", "mails", "mail"):
        client.queue_job("a.B", queue=queue)
    request = ClaimRequest(worker="w", wanted=(Wanted(name="mail/b"),), limit=1, lease=60)
    assert len(client.broker.claim(request).records) == 1
    for name, size in {"mail/": 2, "mail/b": 1, "mail": 1, "none/": 0, "none": 0}.items():
        assert waiting_in(client.broker, name) == size
        assert Queue(name, client=client).size() == size


def test_a_queue_is_paused_by_its_name_or_its_tree_and_other_pauses_are_told(client: Client) -> None:
    for queue in ("mail/fast", "default", "slow"):
        client.queue_job("a.B", queue=queue)
    pause_queues(client.broker, ["mail/", "slow", "later"])
    found = list_queues(client.broker)
    assert [q.queue for q in found.queues if found.is_paused(q.queue)] == ["mail/fast", "slow"]
    assert found.other_paused() == ["later", "mail/"]


def test_resuming_tells_which_queues_were_paused_and_which_tree_still_pauses_them(
    broker: MemoryBroker,
) -> None:
    pause_queues(broker, ["mail/", "mail/a/", "slow"])
    result = resume_queues(broker, ["slow", "mail/a/b", "other", "mail/a/"])
    assert result.resumed == ("slow", "mail/a/")
    assert result.not_paused == {"mail/a/b": "mail/", "other": None}
    assert broker.paused() == {"mail/"}


@pytest.mark.parametrize("change", [pause_queues, resume_queues])
def test_a_bad_name_changes_no_pause(broker: MemoryBroker, change: object) -> None:
    pause_queues(broker, ["slow"])
    with pytest.raises(InvalidValue, match="without NUL"):
        change(broker, ["slow", "mail", "a\0b"])  # type: ignore[operator]
    assert broker.paused() == {"slow"}


# --- jobs ----------------------------------------------------------------------------------------


def test_a_list_of_jobs_goes_on_at_its_cursor_and_knows_the_total(client: Client) -> None:
    ids = client.queue_jobs("a.B", ({} for _ in range(2500)))
    first = list_jobs(client.broker, JobFilter(), limit=1200, order=Order.OLDEST_FIRST)
    assert [record.id for record in first.records] == ids[:1200]
    assert first.total == 2500
    rest = list_jobs(client.broker, JobFilter(), limit=5000, order=Order.OLDEST_FIRST, cursor=first.cursor)
    assert [record.id for record in rest.records] == ids[1200:]
    assert (rest.cursor, rest.total) == (None, None)


def test_a_list_has_no_total_where_only_a_count_could_tell(client: Client) -> None:
    client.queue_jobs("a.B", [{"n": 1}, {"n": 1}, {"n": 2}])
    found = list_jobs(client.broker, JobFilter(params={"n": 1}), limit=1)
    assert (len(found.records), found.total) == (1, None)
    assert found.cursor is not None


def test_a_scan_is_told_once_and_goes_on_to_its_end(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = client.queue_jobs("a.B", ({} for _ in range(4)))
    records = {record.id: record for record in client.broker.get(ids) if record}

    def find(wanted: JobFilter, *, order: Order, cursor: str | None, limit: int) -> Page:
        """Finds one job a step, as a broker does whose time for a step has run out."""
        found = ids[ids.index(cursor) + 1] if cursor else ids[0]
        is_last = found == ids[-1]
        return Page(
            records=(records[found],),
            cursor=None if is_last else found,
            searched_until=None if is_last else found,
        )

    monkeypatch.setattr(client.broker, "find", find)
    told: list[bool] = []
    found = list_jobs(client.broker, JobFilter(), limit=10, on_scan=lambda: told.append(True))
    assert [record.id for record in found.records] == ids
    assert told == [True]


def log_of(client: Client, number: int) -> str:
    job_id = client.queue_job("a.B")
    now = datetime.now(UTC)
    for start in range(0, number, CHUNK):
        lines = [
            LogLine(job_id=job_id, attempt=1, seq=seq, at=now, level="INFO", message=f"line {seq}")
            for seq in range(start, min(number, start + CHUNK))
        ]
        client.broker.append_logs(lines, max_size=10_000_000)
    return job_id


def test_a_log_is_read_to_its_end_and_from_a_cursor(client: Client) -> None:
    job_id = log_of(client, 2500)
    page = read_log(client.broker, job_id)
    assert [line.seq for line in page.lines] == list(range(2500))
    assert read_log(client.broker, job_id, page.cursor).lines == ()
    early = client.broker.read_logs(job_id, limit=1000)
    assert [line.seq for line in read_log(client.broker, job_id, early.cursor).lines] == list(
        range(1000, 2500)
    )


@pytest.mark.parametrize("number", [0, 1, 5, 6, 299, 300, 301, 1200, 1201, 5000])
def test_the_last_lines_of_an_attempt_are_read_without_the_others(
    number: int, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = client.queue_job("a.B")
    now = datetime.now(UTC)
    for attempt, last in ((1, 700), (2, number), (3, 2)):
        for start in range(1, last + 1, CHUNK):
            lines = [
                LogLine(job_id=job_id, attempt=attempt, seq=seq, at=now, level="INFO", message="x")
                for seq in range(start, min(last + 1, start + CHUNK))
            ]
            client.broker.append_logs(lines, max_size=10_000_000)
    limits, read = [], client.broker.read_logs

    def counted(job_id: str, cursor: str | None = None, limit: int = 1000) -> LogPage:
        limits.append(limit)
        return read(job_id, cursor, limit)

    monkeypatch.setattr(client.broker, "read_logs", counted)
    for most in (1, 300):
        limits.clear()
        tail = read_log_tail(client.broker, job_id, 2, most)
        assert [line.seq for line in tail.lines] == list(range(max(1, number - most + 1), number + 1))
        assert {line.attempt for line in tail.lines} <= {2}
        assert tail.left_out == max(0, number - most)
        assert [line.attempt for line in read(job_id, tail.cursor).lines] == [3, 3]
        assert sum(limits) < 2 * most + 30


def test_the_log_of_an_unknown_job_is_not_found(broker: MemoryBroker) -> None:
    with pytest.raises(JobNotFound):
        read_log(broker, new_id())
    with pytest.raises(JobNotFound):
        read_log_tail(broker, new_id(), 1, 300)


# --- workers -------------------------------------------------------------------------------------


def report(name: str) -> WorkerReport:
    now = datetime.now(UTC).replace(microsecond=0)
    return WorkerReport(
        name=name, host="h", pid=1, status="wait", queues=("default",), greenlets=1, started_at=now,
        reported_at=now + timedelta(seconds=1), jobs={}, running=(), unsettled=0, memory=1, cpu_time=0.0,
        version="1",
    )  # fmt: skip


def test_workers_are_listed_and_found_by_name(broker: MemoryBroker) -> None:
    anna, ben = report("anna"), report("ben")
    for one in (ben, anna):
        broker.state.put(WORKERS_NAMESPACE, one.name, report_to_json(one))
    assert list_workers(broker) == [anna, ben]
    assert find_worker(broker, "anna") == anna
    assert find_worker(broker, "cleo") is None


def test_a_report_of_another_version_is_left_out(broker: MemoryBroker) -> None:
    value = msgspec.to_builtins(report("anna"))
    value["memory"] = {"rss": 1}
    broker.state.put(WORKERS_NAMESPACE, "anna", value)
    assert list_workers(broker) == []
    assert find_worker(broker, "anna") is None


@pytest.mark.parametrize(
    "end",
    [
        {"until": datetime.max.replace(tzinfo=UTC)},
        {"until": datetime(2400, 1, 1, tzinfo=UTC)},
        {"seconds": "5"},
        {"seconds": True},
        {"seconds": float("nan")},
        {"seconds": 1e300},
    ],
)
def test_a_pause_without_a_usable_end_is_refused(broker: MemoryBroker, end: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue):
        pause_queues(broker, ["a"], **end)
    assert not broker.paused()
