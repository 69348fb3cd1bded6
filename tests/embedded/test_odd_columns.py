"""Values that the broker never writes, in each column of its tables: each call is answered or raises an error
of mrq, and a job with such values is set aside."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mrq_core.contract.messages import Cancel, ChangeResult, Requeue
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import Status
from mrq_core.contract.shared_state import Versions
from mrq_core.embedded.broker import EmbeddedBroker
from mrq_core.errors import BrokerCorrupt, MrqError
from tests.embedded.kit import claim, job, open_broker

TABLES = (
    *("jobs", "terms", "totals", "subqueues", "queues", "slots", "running", "parked", "state", "numbers"),
    *("log_sizes", "logs", "signals", "uniques", "record_keys", "rates", "metrics"),
)
_PER_COMMIT = ("jobs", "state", "totals")
VALUES = ("junk", b"\xff\x00", 2**63 - 1, -1, None, 1.5e300, "")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with waiting, parked and running jobs, and with shared state."""
    path = tmp_path_factory.mktemp("filled") / "mrq.sqlite3"
    with closing(open_broker(path)) as broker:
        broker.enqueue([job(), job(search_keys={"k": 1}), job(delay=60), job(queue="x/y", schedule="s")])
        broker.enqueue([job(limit_keys=("api",)), job(limit_keys=("api",))])
        claim(broker)
        broker.state.put("a", "k", {"x": 1})
        broker.state.put("limits", "api", {"concurrency": 1, "rate": None, "per": 1.0, "source": "person"})
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


def calls(broker: EmbeddedBroker) -> Iterator[Callable[[], object]]:
    """The calls of workers, commands and pages."""
    ids: list[str] = []
    yield lambda: ids.extend(record.id for record in broker.find(JobFilter(), limit=10).records)
    yield lambda: claim(broker)
    yield lambda: broker.count(JobFilter())
    yield lambda: broker.counts(["q", "x/y"])
    yield broker.totals
    yield broker.queue_names
    yield lambda: broker.poll("w", Versions())
    yield lambda: broker.state.list("a")
    yield lambda: broker.state.get("limits", "api")
    yield lambda: broker.enqueue([job(), job(limit_keys=("api",))])
    yield lambda: broker.get(ids)
    yield lambda: [broker.queue_position(job_id) for job_id in ids]
    yield lambda: broker.cancel(ids[:1], Cancel(ttl=60.0))
    yield lambda: broker.requeue(ids[1:2], Requeue())
    yield lambda: broker.remove(ids[2:3])
    yield broker.check
    yield broker.prune
    yield lambda: broker.read_logs(ids[0]) if ids else None


@pytest.mark.parametrize(
    "table",
    [pytest.param(table, marks=() if table in _PER_COMMIT else pytest.mark.campaign) for table in TABLES],
)
def test_odd_values_in_a_column_end_no_call_with_a_raw_error(
    filled: Path, tmp_path: Path, table: str
) -> None:
    path = tmp_path / "mrq.sqlite3"
    with closing(sqlite3.connect(filled)) as connection:
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    assert columns
    for column in columns:
        for value in VALUES:
            for old in tmp_path.iterdir():
                old.unlink()
            shutil.copyfile(filled, path)
            with closing(sqlite3.connect(path)) as connection:
                try:
                    connection.execute(f"UPDATE OR IGNORE {table} SET {column} = ?", (value,))
                    connection.commit()
                except sqlite3.Error:  # the table refuses the value
                    continue
            with closing(open_broker(path)) as broker:
                for call in calls(broker):
                    try:
                        call()
                    except MrqError:
                        pass
                    except Exception as error:
                        error.add_note(f"{table}.{column} = {value!r}")
                        raise


@pytest.mark.parametrize("column", ["started_ms", "due_ms", "token", "worker", "record", "params"])
def test_a_running_job_with_an_odd_column_is_set_aside(filled: Path, tmp_path: Path, column: str) -> None:
    path = tmp_path / "mrq.sqlite3"
    shutil.copyfile(filled, path)
    with closing(sqlite3.connect(path)) as connection:
        running = connection.execute("SELECT id FROM jobs WHERE status = 'started'").fetchone()[0]
        connection.execute(f"UPDATE jobs SET {column} = ? WHERE id = ?", (b"\xff", running))
        connection.commit()
    with closing(open_broker(path)) as broker:
        found = {record.id: record for record in broker.find(JobFilter(), limit=10).records}
        assert len(found) == 6
        if column != "worker":
            assert found[running].status in (Status.FAILED, Status.STARTED)
            raised = [found[running].exception_type, *(one.exception_type for one in found[running].history)]
            assert "mrq_core.errors.JobDamaged" in raised
        assert broker.remove([running])[0] in (ChangeResult.DONE, ChangeResult.REFUSED)


def test_check_names_a_job_that_keeps_its_queue_from_being_served_and_a_removal_frees_the_queue(
    filled: Path, tmp_path: Path
) -> None:
    path = tmp_path / "mrq.sqlite3"
    shutil.copyfile(filled, path)
    with closing(sqlite3.connect(path)) as connection:
        odd = connection.execute("SELECT id FROM jobs WHERE status = 'queued' AND queue = 'q'").fetchone()[0]
        connection.execute("UPDATE jobs SET due_ms = ? WHERE id = ?", (b"\xff", odd))
        connection.commit()
    with closing(open_broker(path)) as broker:
        with pytest.raises(BrokerCorrupt, match="has values that mrq cannot read"):
            claim(broker)
        errors = [finding for finding in broker.check() if finding.level == "error"]
        assert [odd in finding.message for finding in errors] == [True]
        assert broker.remove([odd]) == [ChangeResult.DONE]
        assert claim(broker)
        assert not [finding for finding in broker.check() if finding.level == "error"]
