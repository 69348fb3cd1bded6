"""A file of an earlier layout gets what it lacks, and drivers that would leave it incomplete are refused."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import Status
from mrq_core.drivers import encoding
from mrq_core.embedded.server import layout
from mrq_core.errors import SchemaTooNew
from mrq_core.testing.clock import ManualClock
from tests.embedded.kit import open_broker
from tests.embedded.recount import check_tables
from tests.golden.stores import FOLDER


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A file of version 1: five jobs whose latest attempt raised, and one of them in a retry."""
    path = tmp_path / "mrq.sqlite3"
    shutil.copy(FOLDER / "sqlite-1.sqlite3", path)
    return path


def objects(path: Path) -> set[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as connection:
        return set(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))


def test_an_upgraded_file_has_the_tables_and_indexes_of_a_new_file(old: Path, tmp_path: Path) -> None:
    assert any(name == "jobs_by_exception" for name, _ in objects(old))
    for path in (old, tmp_path / "new.sqlite3"):
        with closing(open_broker(path)) as broker:
            broker.prepare()
    assert objects(old) == objects(tmp_path / "new.sqlite3")


def test_jobs_that_failed_before_the_upgrade_are_found_by_their_exceptions(old: Path) -> None:
    with closing(open_broker(old, clock=ManualClock(0))) as broker:
        for name in ("golden.Error", "Error"):
            found = broker.find(JobFilter(exception_types=(name,))).records
            assert len(found) == 5
            assert {record.exception_type for record in found} == {"golden.Error"}
        assert broker.count(JobFilter(statuses=(Status.RETRY,), exception_types=("Error",))).numbers == {
            "": 1
        }
        check_tables(old)


def test_groups_in_the_records_of_an_old_file_are_counted(old: Path) -> None:
    with closing(sqlite3.connect(old)) as connection, connection:
        rows = connection.execute("SELECT seq, record FROM jobs WHERE exception_type IS NOT NULL").fetchall()
        for seq, data in rows:
            record = replace(encoding.decode(data), error_group="group")
            connection.execute("UPDATE jobs SET record = ? WHERE seq = ?", (encoding.encode(record), seq))
    with closing(open_broker(old, clock=ManualClock(0))) as broker:
        numbers = broker.totals().by_error_group["group"]
        assert sum(numbers.values()) == broker.count(JobFilter(error_groups=("group",))).numbers[""] == 5
        assert numbers[Status.RETRY] == 1
        check_tables(old)


def test_a_job_of_an_old_file_that_runs_again_is_not_found_by_its_last_exception(old: Path) -> None:
    """Early files of version 1 keep the type in the column while the next attempt runs."""
    with closing(sqlite3.connect(old)) as connection, connection:
        connection.execute(
            "UPDATE jobs SET status = 'started', rank = 9, worker = 'w', token = '3.a', started_ms = 1 "
            "WHERE status = 'retry'"
        )
    with closing(open_broker(old, clock=ManualClock(0))) as broker:
        assert broker.count(JobFilter(exception_types=("Error",))).numbers == {"": 4}
        assert broker.count(JobFilter(), "exception_type").numbers == {"golden.Error": 4}
        assert broker.count(JobFilter(statuses=(Status.STARTED,)), "exception_type").numbers == {}


def test_a_driver_of_version_1_is_refused_after_the_upgrade(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(open_broker(old)) as broker:
        broker.prepare()
    monkeypatch.setattr(layout, "VERSION", 1)
    with closing(open_broker(old)) as broker, pytest.raises(SchemaTooNew, match=r"version 2.*upgrade mrq"):
        broker.prepare()
