"""The comparison of queues, records, totals and indexes finds what differs, on each broker."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mrq_broker_mongo.broker import MongoBroker
from mrq_broker_mongo.store import MongoStore
from mrq_broker_redis.broker import RedisBroker
from mrq_core.client.client import Client
from mrq_core.composed import ComposedBroker
from mrq_core.config.settings import Config
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import ClaimRequest, NewJob, Outcome, Settlement, Wanted
from mrq_core.contract.queries import Finding
from mrq_core.contract.record import JobRecord, Status
from mrq_core.ids import new_id
from mrq_core.operations.checking import consistency
from mrq_core.operations.checking.consistency import consistency_findings
from tests import brokers


@pytest.fixture(params=brokers.PARAMS)
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    address = brokers.address_of(request.param, tmp_path)
    client = Client(Config(broker=address.broker, store=address.store))
    client.broker.prepare()
    yield client.broker
    client.close()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consistency, "_PAUSE", 0.001)


def put(broker: Broker, number: int = 1) -> None:
    now = broker.now()
    for _ in range(number):
        record = JobRecord(
            id=new_id(),
            path="some.Task",
            params={},
            queue="q",
            queued_at=now,
            updated_at=now,
            search_keys={"user": 5, "place": "Ulm"},
            schedule="daily",
        )
        broker.enqueue([NewJob(record=record)])


def end(broker: Broker, outcome: Outcome, number: int = 1) -> None:
    request = ClaimRequest(worker="w", wanted=(Wanted(name="q"),), limit=number, lease=60.0)
    settlements = [
        Settlement(id=record.id, token=record.token or "", outcome=outcome)
        for record in broker.claim(request).records
    ]
    assert len(settlements) == number
    assert all(broker.settle(settlements))


def fail(broker: Broker, number: int = 1) -> None:
    outcome = Outcome(
        status=Status.FAILED,
        ttl=1e6,
        exception_type="shop.NoStock",
        exception_message="no stock left",
        error_group="some.Task shop.NoStock",
    )
    end(broker, outcome, number)


def lose_terms(broker: Broker, folder: Path) -> None:
    """Deletes the index of words, groups, types and search keys."""
    if isinstance(broker, ComposedBroker):
        lose_terms_of_mongo(broker._store)
    elif isinstance(broker, MongoBroker):
        lose_terms_of_mongo(broker)
    elif isinstance(broker, RedisBroker):
        pattern = broker._connection.key("i:t:*")
        assert broker._connection.use(lambda client: client.delete(*client.keys(pattern)))
    else:
        with closing(sqlite3.connect(folder / "jobs.sqlite3")) as connection:
            connection.execute("DELETE FROM terms")
            connection.commit()


def lose_terms_of_mongo(broker: object) -> None:
    assert isinstance(broker, MongoBroker | MongoStore)
    broker._connection.run("jobs", lambda jobs: jobs.update_many({}, {"$unset": {"terms": ""}}))


def change_total(broker: Broker, folder: Path, amount: int) -> None:
    """Changes the number of queued jobs of the queue."""
    keeper = broker._store if isinstance(broker, ComposedBroker) else broker
    if isinstance(keeper, MongoBroker | MongoStore):
        change = {"$inc": {"n.queued": amount}}
        keeper._connection.run("totals", lambda totals: totals.update_one({"_id": "q q"}, change))
    elif isinstance(keeper, RedisBroker):
        key = keeper._connection.key("n:q")
        keeper._connection.use(lambda client: client.hincrby(key, "queued q", amount))
    else:
        with closing(sqlite3.connect(folder / "jobs.sqlite3")) as connection:
            connection.execute(
                "UPDATE totals SET n = n + ? WHERE (kind, name, status) = ('queue', 'q', 'queued')", (amount,)
            )
            connection.commit()


def told(findings: list[Finding]) -> list[str]:
    return [finding.message for finding in findings]


def pass_between_calls(broker: Broker, monkeypatch: pytest.MonkeyPatch, change: Callable[[], None]) -> None:
    """Makes a change after each read of numbers, as workers and clients do meanwhile."""

    def read(call: Callable[..., Any], *given: Any, **named: Any) -> Any:
        answer = call(*given, **named)
        change()
        return answer

    for name in ("count", "counts", "totals"):
        monkeypatch.setattr(broker, name, partial(read, getattr(broker, name)))


AGREE = ["queues, records, totals and indexes agree"]


def test_a_queue_that_grows_steadily_agrees(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    put(broker, 3)
    pass_between_calls(broker, monkeypatch, partial(put, broker))
    assert told(consistency_findings(broker)) == AGREE


def test_a_queue_that_shrinks_steadily_agrees(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    put(broker, 40)
    pass_between_calls(broker, monkeypatch, partial(end, broker, Outcome(status=Status.SUCCESS, ttl=1e6)))
    assert told(consistency_findings(broker)) == AGREE


def test_everything_agrees(broker: Broker) -> None:
    put(broker, 6)
    fail(broker, 2)
    end(broker, Outcome(status=Status.SUCCESS, ttl=1e6, result=1))
    brokers.repair(broker)
    assert told(consistency_findings(broker)) == AGREE
    assert told(consistency_findings(broker, prunes=True)) == AGREE


def test_an_index_that_has_lost_its_entries_is_found(broker: Broker, tmp_path: Path) -> None:
    put(broker, 3)
    fail(broker, 2)
    lose_terms(broker, tmp_path)
    [finding] = consistency_findings(broker)
    assert finding.level == "warning"
    assert finding.message == (
        "searches do not find some of the newest jobs: 2 by error group, 6 by error word, 2 by exception "
        "type, 6 by search key"
    )


def test_totals_that_are_too_low_and_too_high_are_found(broker: Broker, tmp_path: Path) -> None:
    put(broker, 5)
    change_total(broker, tmp_path, -2)
    assert "the totals differ from the jobs: 2 too few queued" in told(consistency_findings(broker))
    change_total(broker, tmp_path, 5)
    too_many = "the totals differ from the jobs: 3 too many queued"
    assert too_many not in told(consistency_findings(broker)), "they may be expired jobs"
    if isinstance(broker, ComposedBroker | MongoBroker | RedisBroker):
        assert broker.repair_totals() == 1
    else:
        assert broker.repair_totals() == 0, "jobs and totals change in one operation"
        assert too_many in told(consistency_findings(broker, prunes=True))
        change_total(broker, tmp_path, -3)
    assert told(consistency_findings(broker, prunes=True)) == AGREE


def test_totals_that_are_wrong_are_no_lost_entries(broker: Broker, tmp_path: Path) -> None:
    put(broker, 5)
    change_total(broker, tmp_path, -2)
    [finding] = consistency_findings(broker)
    assert (finding.level, finding.message) == (
        "warning",
        "the totals differ from the jobs: 2 too few queued",
    )
    change_total(broker, tmp_path, 4)
    assert told(consistency_findings(broker)) == AGREE, "they may be expired jobs"


@pytest.mark.campaign
@pytest.mark.parametrize("name", [name for name in brokers.NAMES if "mongo" in name])
def test_check_repair_corrects_totals(name: str, tmp_path: Path) -> None:
    address = brokers.address_of(name, tmp_path)
    client = Client(Config(broker=address.broker, store=address.store))
    client.broker.prepare()
    put(client.broker, 5)
    client.broker.prune()  # it has counted: the next count is due in a minute
    change_total(client.broker, tmp_path, -2)
    program = [str(Path(sys.executable).with_name("mrq")), "check", *address.flags()]
    run = partial(subprocess.run, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "2 too few queued" in run(program).stdout
    answer = run([*program, "--repair"])
    assert "corrected 1 total" in answer.stderr
    assert AGREE[0] in answer.stdout
    client.close()


def test_expired_jobs_are_no_difference(broker: Broker) -> None:
    put(broker, 5)
    end(broker, Outcome(status=Status.SUCCESS, ttl=0.001), 3)
    brokers.repair(broker)
    assert told(consistency_findings(broker)) == AGREE
    assert told(consistency_findings(broker, prunes=True)) == AGREE
    assert broker.totals().by_status() == {Status.QUEUED: 2}


def test_a_job_that_an_interrupt_has_ended_needs_no_entry(broker: Broker) -> None:
    now = broker.now()
    once = JobRecord(
        id=new_id(), path="some.Task", params={}, queue="q", queued_at=now, updated_at=now, at_most_once=True
    )
    broker.enqueue([NewJob(record=once)])
    end(broker, Outcome(status=Status.INTERRUPT, ttl=1e6))
    put(broker, 2)
    end(broker, Outcome(status=Status.INTERRUPT, delay=60.0), 2)
    assert [record and record.is_ended for record in broker.get([once.id])] == [True]
    assert [finding for finding in consistency_findings(broker) if finding.level != "ok"] == []
