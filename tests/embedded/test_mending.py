"""Tables and indexes that were dropped by hand are named by a check, and made anew by `mrq check --fix`."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from mrq_core.clock import from_ms
from mrq_core.contract.messages import (
    ClaimRequest,
    Limit,
    NewJob,
    Outcome,
    RawItem,
    Settlement,
    Unique,
    Wanted,
)
from mrq_core.contract.queries import Finding, JobFilter, LogLine
from mrq_core.contract.record import Status
from mrq_core.embedded.broker import EmbeddedBroker
from mrq_core.embedded.server import layout
from mrq_core.embedded.server.mending import LOST
from mrq_core.errors import BrokerCorrupt
from tests.embedded.kit import claim, job, open_broker
from tests.embedded.recount import check_tables


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with something in each table."""
    path = tmp_path / "mrq.sqlite3"
    with closing(open_broker(path)) as broker:
        broker.enqueue([job("failing"), job("running", limit_keys=("k",)), job("running", limit_keys=("k",))])
        [failing] = claim(broker, "failing").records
        outcome = Outcome(
            status=Status.FAILED,
            ttl=1e6,
            exception_type="app.NoStock",
            exception_message="no stock left",
            error_group="a group",
        )
        broker.settle([Settlement(id=failing.id, token=failing.token or "", outcome=outcome)])
        broker.append_logs(
            [LogLine(job_id=failing.id, attempt=1, seq=1, at=from_ms(0), level="INFO", message="a line")],
            1000,
        )
        limits = {"k": Limit(concurrency=1)}
        wanted = (Wanted(name="running"),)
        request = ClaimRequest(worker="w", wanted=wanted, limit=5, lease=60.0, limits=limits)
        assert len(broker.claim(request).records) == 1
        broker.enqueue(
            [
                NewJob(record=job("q").record, unique=Unique(key="u", until="done")),
                NewJob(record=job("q").record, unique=Unique(key="r", until="record")),
                job("tree/sub", search_keys={"user": 5}),
            ]
        )
        broker.raw("some_set").push([RawItem(param="p")])
        broker.state.put("a namespace", "a name", {"a": 1})
    return path


def drop(path: Path, kind: str, name: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"DROP {kind} {name}")
        connection.commit()


def problems(broker: EmbeddedBroker) -> list[Finding]:
    return [finding for finding in broker.check() if finding.level == "error"]


@pytest.mark.parametrize("name", layout.INDEXES)
def test_a_dropped_index_is_named_and_made_anew(path: Path, name: str) -> None:
    drop(path, "INDEX", name)
    with closing(open_broker(path)) as broker:
        [finding] = problems(broker)
        assert finding.message == f"the index {name} is missing"
        assert "mrq check --fix" in finding.advice
        broker.prepare()
        assert problems(broker) == []
        assert len(claim(broker, "q").records) == 2
    check_tables(path)


@pytest.mark.parametrize("name", layout.TABLES)
def test_a_dropped_table_is_named_with_what_is_lost_and_made_anew(path: Path, name: str) -> None:
    with closing(open_broker(path)) as broker:
        before, terms = broker.totals(), JobFilter(exception_types=("NoStock",))
        drop(path, "TABLE", name)
        [finding] = [one for one in problems(broker) if one.message.startswith("the table")]
        assert f"the table {name} is missing; lost with it: " in finding.message
        assert ("restore a backup" in finding.advice) == (name in LOST)
        broker.prepare()
        assert problems(broker) == []
        check_tables(path)
        if name != "jobs":
            assert broker.totals() == before
            assert len(broker.find(terms).records) == 1
            again = NewJob(record=job("q").record, unique=Unique(key="r", until="record"))
            assert not broker.enqueue([again])[0].created
            again = NewJob(record=job("q").record, unique=Unique(key="u", until="done"))
            assert not broker.enqueue([again])[0].created
            assert len(claim(broker, "q", "tree/").records) == 3
        assert broker.enqueue([job("other")])[0].created
        assert len(claim(broker, "other").records) == 1
    check_tables(path)


def test_a_call_that_needs_a_dropped_table_names_the_command_that_makes_it_anew(path: Path) -> None:
    drop(path, "TABLE", "numbers")
    with (
        closing(open_broker(path)) as broker,
        pytest.raises(BrokerCorrupt, match=r"no such table: numbers.*`mrq check --fix`"),
    ):
        claim(broker)


def test_check_fix_says_what_was_lost(path: Path) -> None:
    drop(path, "TABLE", "logs")
    program = [str(Path(sys.executable).with_name("mrq")), "check", "--broker", f"sqlite:///{path}"]
    found = subprocess.run(program, capture_output=True, text=True, timeout=60, cwd=path.parent)
    assert found.returncode == 1
    assert "the table logs is missing; lost with it: the logs of all jobs" in found.stdout
    done = subprocess.run([*program, "--fix"], capture_output=True, text=True, timeout=60, cwd=path.parent)
    assert done.returncode == 0
    assert "Fixed: the table logs is missing; lost with it: the logs of all jobs." in done.stderr
