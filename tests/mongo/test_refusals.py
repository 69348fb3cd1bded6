"""A server that refuses a call: what the caller is told, and that nothing is half done."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mrq_broker_mongo.broker import MongoBroker
from mrq_broker_mongo.server import checks
from mrq_core.contract.messages import Outcome
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import Status
from mrq_core.errors import (
    BrokerCorrupt,
    BrokerError,
    BrokerUnavailable,
    CallRefused,
    SchemaTooNew,
    ValueTooLarge,
)
from tests.mongo.kit import Place, claim, ended, new_job, open_broker, success
from tests.mongo.recount import check_collections
from tests.mongo.servers import Server
from tests.servers import free_port
from tests.support import WAITS_FOR_GO, open_project, until

COLLECTIONS = (*checks._OF_STORE, *checks._OF_QUEUE)
MEGABYTE = 1_000_000
MOST_OF_A_MESSAGE = 800
"""Characters: what was refused is not in it."""


@pytest.fixture(scope="module")
def locked() -> Iterator[Server]:
    """A server with users: an administrator, a worker, and one who may only look."""
    server = Server("--auth")
    with server.client() as client:
        client.admin.command("createUser", "admin", pwd="admin", roles=["root"])
    with server.client(username="admin", password="admin") as client:
        roles = {"worker": "readWrite", "reader": "read"}
        for name, role in roles.items():
            client["mrq"].command("createUser", name, pwd="ge:heim/", roles=[{"role": role, "db": "mrq"}])
        by_name = {
            "writer": [("", ["find", "insert", "update", "remove"])],
            "owner": [
                *((f"own_{name}", [*checks._ACTIONS, "listIndexes"]) for name in COLLECTIONS),
                ("own_wake", ["createCollection", "convertToCapped"]),
                ("", ["listCollections"]),
            ],
        }
        for name, actions in by_name.items():
            privileges = [
                {"resource": {"db": "mrq", "collection": collection}, "actions": some}
                for collection, some in actions
            ]
            client["mrq"].command("createRole", name, privileges=privileges, roles=[])
            client["mrq"].command("createUser", name, pwd="ge:heim/", roles=[name])
    yield server
    server.stop()


@pytest.fixture(scope="module")
def failing() -> Iterator[Server]:
    """A server that fails when it is told to."""
    server = Server("--setParameter", "enableTestCommands=1")
    yield server
    server.stop()


@pytest.fixture
def own_server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


def login(server: Server, user: str, password: str) -> str:
    return server.url.replace("//", f"//{user}:{password}@")


@contextlib.contextmanager
def fails(server: Server, commands: list[str], times: int = 0, **how: Any) -> Iterator[None]:
    """While it lasts, these commands fail; with `times` so often at most."""
    with server.client() as client:
        point = {"configureFailPoint": "failCommand", "data": {"failCommands": commands, **how}}
        client.admin.command({**point, "mode": {"times": times} if times else "alwaysOn"})
        try:
            yield
        finally:
            client.admin.command({**point, "mode": "off"})


# --- who may --------------------------------------------------------------------------------------


def test_a_user_who_may_read_and_write_the_database_may_do_all(locked: Server) -> None:
    broker = open_broker(Place(login(locked, "worker", "ge%3Aheim%2F"), "mrq"))
    assert {finding.level for finding in broker.check()} == {"ok"}
    broker.prepare()
    broker.enqueue([new_job(), new_job()])
    records = claim(broker).records
    assert broker.settle([success(record) for record in records]) == [True, True]
    assert broker.wait([], 0.01) in (True, False)
    broker.prune()
    assert {finding.level for finding in broker.check()} == {"ok"}
    check_collections(broker)
    broker.close()


def test_a_role_that_lacks_actions_is_a_finding_that_names_them(locked: Server) -> None:
    broker = open_broker(Place(login(locked, "writer", "ge%3Aheim%2F"), "new"), timeout=2.0)
    [finding] = [finding for finding in broker.check() if finding.level != "ok"]
    assert (finding.level, finding.subject) == ("error", "writes")
    lacking = "createIndex, createCollection, convertToCapped, listCollections"
    assert f"no {lacking}, which mrq needs: give the user the role readWrite" in finding.message
    with pytest.raises(CallRefused, match="refused this user"):
        broker.enqueue([new_job()])
    broker.close()


@pytest.mark.parametrize("prefix", ["own", "other"])
def test_a_role_for_the_collections_of_one_prefix_is_enough_for_this_prefix(
    locked: Server, prefix: str
) -> None:
    broker = open_broker(Place(login(locked, "owner", "ge%3Aheim%2F"), prefix), timeout=2.0)
    levels = {finding.level for finding in broker.check()}
    if prefix == "own":
        broker.prepare()
        broker.enqueue([new_job()])
        assert len(claim(broker).records) == 1
        assert levels == {finding.level for finding in broker.check()} == {"ok"}
    else:
        assert "error" in levels
    broker.close()


@pytest.mark.parametrize("user", ["worker", "nobody"])
def test_a_wrong_login_is_said_so_with_what_to_do(locked: Server, user: str) -> None:
    broker = open_broker(Place(login(locked, user, "geraten"), "mrq"), timeout=20.0)
    began = time.monotonic()
    for call in (broker.prepare, lambda: broker.enqueue([new_job()]), lambda: broker.wait([], 0.1)):
        with pytest.raises(BrokerUnavailable, match=f"127.0.0.1:{locked.port}.* refused this user") as raised:
            call()
        assert "correct the URL" in str(raised.value)
        assert "geraten" not in str(raised.value)
    assert time.monotonic() - began < 20.0, "no call waits for another server"
    [finding] = broker.check()
    assert finding.level == "error"
    assert "geraten" not in finding.message
    broker.close()


def test_without_a_login_the_server_says_that_it_wants_one(locked: Server) -> None:
    broker = open_broker(Place(locked.url, "mrq"), timeout=2.0)
    with pytest.raises(BrokerUnavailable, match=r"refused this user.*readWrite"):
        broker.enqueue([new_job()])
    broker.close()


def test_a_user_who_may_only_look_is_told_which_role_is_missing(locked: Server) -> None:
    worker = open_broker(Place(login(locked, "worker", "ge%3Aheim%2F"), "looked_at"))
    [job] = worker.enqueue([new_job()])
    reader = open_broker(Place(login(locked, "reader", "ge%3Aheim%2F"), "looked_at"), timeout=2.0)
    assert [record.id for record in reader.find(JobFilter()).records] == [job.id]
    assert reader.totals().by_queue == {"q": {Status.QUEUED: 1}}
    for call in (reader.prepare, lambda: reader.enqueue([new_job()]), lambda: claim(reader)):
        with pytest.raises(CallRefused, match=r"refused this user.*role readWrite") as raised:
            call()
        assert "heim" not in str(raised.value)
        assert len(str(raised.value)) < MOST_OF_A_MESSAGE
    assert worker.count(JobFilter(), "status").numbers == {"queued": 1}
    [finding] = [finding for finding in reader.check() if finding.level != "ok"]
    assert finding.subject == "writes"
    assert "role readWrite" in finding.message
    reader.close()
    worker.close()


# --- who is there ---------------------------------------------------------------------------------


def test_a_server_that_is_away_is_named_without_its_password() -> None:
    port = free_port()
    broker = open_broker(Place(f"mongodb://user:geheim@127.0.0.1:{port}/mrq", "mrq"), timeout=0.5)
    with pytest.raises(BrokerUnavailable, match=f"127.0.0.1:{port}.*start it") as raised:
        broker.prepare()
    [finding] = broker.check()
    for text in (str(raised.value), repr(raised.value), finding.message):
        assert "geheim" not in text
        assert len(text) < MOST_OF_A_MESSAGE
    assert (finding.level, finding.subject) == ("error", "server")
    broker.close()


def test_a_host_that_nobody_knows_is_named() -> None:
    broker = open_broker(Place("mongodb://no-such-host.invalid/mrq", "mrq"), timeout=0.5)
    with pytest.raises(BrokerUnavailable, match=r"no-such-host\.invalid"):
        broker.prepare()
    broker.close()


def test_a_replica_set_of_another_name_is_said_so(server: Server) -> None:
    broker = open_broker(Place(f"{server.url}?replicaSet=shop", "mrq"), timeout=0.5)
    with pytest.raises(BrokerUnavailable, match=r"cannot be reached|replica set"):
        broker.prepare()
    broker.close()


def test_a_broker_that_was_closed_says_so(place: Place) -> None:
    broker = place.open()
    broker.enqueue([new_job()])
    broker.close()
    with pytest.raises(BrokerUnavailable, match="was closed: open another one"):
        broker.enqueue([new_job()])


# --- what is too much -----------------------------------------------------------------------------


def test_params_that_fit_in_no_document_are_refused_and_the_others_are_stored(place: Place) -> None:
    broker = place.open()
    big, small = new_job(params={"text": "x" * 17 * MEGABYTE}), new_job()
    with pytest.raises(ValueTooLarge, match="16 MB") as raised:
        broker.enqueue([big, small])
    assert len(str(raised.value)) < MOST_OF_A_MESSAGE
    assert broker.get([big.record.id]) == [None]
    broker.enqueue([small])
    assert [record is not None for record in broker.get([small.record.id])] == [True]
    check_collections(broker)
    broker.close()


@pytest.mark.parametrize(
    ("params", "result"),
    [(1, 17 * MEGABYTE), (10 * MEGABYTE, 10 * MEGABYTE)],
    ids=["by itself", "together with its params"],
)
def test_a_result_that_fits_in_no_document_is_refused_and_its_job_can_still_be_failed(
    place: Place, params: int, result: int
) -> None:
    broker = place.open()
    broker.enqueue([new_job(params={"text": "x" * params}), new_job()])
    first, second = claim(broker).records
    settlements = [success(first, "y" * result), success(second)]
    with pytest.raises(BrokerError, match="16 MB") as raised:
        broker.settle(settlements)
    assert not isinstance(raised.value, BrokerUnavailable)
    assert len(str(raised.value)) < MOST_OF_A_MESSAGE
    with pytest.raises(BrokerError, match="16 MB"):
        broker.settle(settlements[:1])
    assert broker.settle(settlements[1:]) == [True]
    failed = Outcome(status=Status.FAILED, ttl=60.0, exception_type="BrokerError", traceback="too large")
    assert broker.settle([ended(first, failed)]) == [True]
    records = broker.get([first.id, second.id])
    assert [record and record.status for record in records] == [Status.FAILED, Status.SUCCESS]
    check_collections(broker)
    broker.close()


def test_a_worker_fails_the_job_whose_result_is_too_large_and_goes_on(place: Place, tmp_path: Path) -> None:
    with open_project(tmp_path, f"{place.url}?prefix={place.prefix}") as project:
        project.write(
            "tasks.py",
            "from mrq_core import task\n@task\ndef grow(size: int):\n    return 'x' * size\n",
        )
        jobs = [project.queue("tasks.grow", {"size": size}) for size in (17_000_000, 5)]
        project.work_off("--greenlets", "2", "--max-result-size", "50000000")
        large, small = (project.client.fetch(job) for job in jobs)
        assert (small.status, small.result) == (Status.SUCCESS, "xxxxx")
        assert large.status is Status.FAILED
        assert "16 MB" in (large.traceback or "")


@pytest.mark.parametrize("code", [11601, 16500])
def test_an_outcome_is_kept_while_a_server_refuses_writes(failing: Server, tmp_path: Path, code: int) -> None:
    with open_project(tmp_path, f"{failing.url}?prefix=kept{code}") as project:
        project.write("tasks.py", WAITS_FOR_GO)
        job = project.queue("tasks.waits")
        worker = project.start("worker", "--greenlets", "2")
        until((tmp_path / "began").exists, what="the job")
        with fails(failing, ["update"], 15, errorCode=code):
            (tmp_path / "go").touch()
            record = project.ended(job)
        assert (record.status, record.result, record.claims) == (Status.SUCCESS, "done", 1)
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0
        assert "given_up" not in worker.output


def test_a_full_disk_is_said_so_and_nothing_is_half_written(failing: Server) -> None:
    broker = open_broker(Place(failing.url, "mrq"))
    broker.enqueue([new_job(), new_job()])
    [record] = claim(broker, limit=1).records
    job = new_job()
    with fails(failing, ["insert", "update", "findAndModify"], errorCode=14031):
        for call in (
            lambda: broker.enqueue([job]),
            lambda: claim(broker, limit=1),
            lambda: broker.settle([success(record)]),
        ):
            with pytest.raises(CallRefused, match=r"disk.*free some space"):
                call()
    assert broker.get([job.record.id]) == [None]
    assert broker.count(JobFilter(), "status").numbers == {"queued": 1, "started": 1}
    assert broker.settle([success(record)]) == [True]
    assert len(claim(broker).records) == 1
    check_collections(broker)
    broker.close()


@pytest.mark.parametrize("limit", [1, 5])
def test_a_claim_that_a_leaving_primary_has_not_confirmed_costs_a_lease_at_most(
    failing: Server, limit: int
) -> None:
    broker = open_broker(Place(failing.url, f"leaving{limit}"))
    [job] = broker.enqueue([new_job()])
    unconfirmed = {"code": 11602, "codeName": "InterruptedDueToReplStateChange", "errmsg": "interrupted"}
    labels = ["RetryableWriteError"]
    with (
        fails(failing, ["findAndModify", "update"], writeConcernError=unconfirmed, errorLabels=labels),
        pytest.raises(BrokerUnavailable, match="no primary at the moment"),
    ):
        claim(broker, lease=0.05, limit=limit)
    [record] = until(lambda: claim(broker, limit=limit).records, what="the lease to end")
    assert (record.id, record.claims, record.lost_claims) == (job.id, 2, 1)
    check_collections(broker)
    broker.close()


# --- what is not ours -----------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [{"version": "x"}, {"version": 1, "oldest": 0}, {}])
def test_a_layout_that_no_driver_wrote_is_named(
    place: Place, server: Server, stored: dict[str, object]
) -> None:
    with server.client() as client:
        client["mrq"][f"{place.prefix}_meta"].insert_one({"_id": "layout", **stored})
    with contextlib.closing(place.open()) as broker:
        with pytest.raises(BrokerCorrupt, match="expected two positive integers"):
            broker.prepare()
        (finding,) = [finding for finding in broker.check() if finding.level == "error"]
        assert "expected two positive integers" in finding.message


def test_collections_of_a_newer_version_are_left_alone(place: Place, server: Server) -> None:
    with server.client() as client:
        database = client["mrq"]
        database[f"{place.prefix}_meta"].insert_one({"_id": "layout", "version": 99})
        broker = place.open()
        for call in (broker.prepare, lambda: broker.enqueue([new_job()])):
            with pytest.raises(SchemaTooNew, match="upgrade"):
                call()
        broker.close()
        assert database[f"{place.prefix}_jobs"].count_documents({}) == 0


def test_a_broker_needs_no_server_to_be_opened() -> None:
    broker: MongoBroker = open_broker(Place(f"mongodb://127.0.0.1:{free_port()}/mrq", "mrq"), timeout=0.5)
    broker.close()
