"""What becomes of calls when the server, the way to it or its reply goes away."""

from __future__ import annotations

import gc
import multiprocessing
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from types import FrameType
from typing import Any

import bson
import pytest
from bson import Int64, ObjectId
from pymongo.errors import ConfigurationError, OperationFailure

from mrq_broker_mongo.broker import MongoBroker
from mrq_broker_mongo.server import clients
from mrq_broker_mongo.server.failures import translated
from mrq_core import failpoints
from mrq_core.contract.messages import Cancel, ClaimRef, Outcome, RawItem, Requeue, Unique, Wanted
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import JobRecord, Status
from mrq_core.contract.signal_errors import raised_by_handler
from mrq_core.errors import BrokerUnavailable
from tests.mongo.kit import Place, claim, ended, lose_reply_to, new_job, open_broker, success
from tests.mongo.recount import check_collections, repair
from tests.mongo.servers import Server
from tests.mongo.services import Replicas, replica_set
from tests.proxy import Proxy
from tests.support import until

TIMEOUT = 0.5
PATIENCE = 20.0
"""Seconds that a call with a timeout of half a second and its repetitions may take on any machine."""


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server that a test may kill."""
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def behind(proxy: Proxy, place: Place) -> Iterator[MongoBroker]:
    """A broker behind the proxy, prepared and at work."""
    broker = open_broker(replace(place, url=f"mongodb://127.0.0.1:{proxy.port}/mrq"))
    broker.prepare()
    broker.enqueue([new_job("other")])
    yield broker
    check_collections(broker)
    broker.close()


# --- lost replies -----------------------------------------------------------------------------------


@pytest.mark.parametrize("collection", ["jobs", "keys"])
def test_an_enqueue_whose_reply_was_lost_makes_one_job(
    proxy: Proxy, behind: MongoBroker, place: Place, collection: str
) -> None:
    job = new_job(unique=Unique(key="k"))
    lose_reply_to(proxy, place, "insert", collection)
    [answer] = behind.enqueue([job])
    assert proxy.lost == 1
    assert answer.id == job.record.id
    assert behind.get([job.record.id]) != [None]
    assert behind.enqueue([new_job(unique=Unique(key="k"))])[0].id == job.record.id
    repair(behind)
    assert behind.totals().by_queue["q"] == {Status.QUEUED: 1}


@pytest.mark.parametrize("number", [1, 3])
def test_a_settle_whose_reply_was_lost_is_repeated_and_accepted_once(
    proxy: Proxy, behind: MongoBroker, place: Place, number: int
) -> None:
    behind.enqueue([new_job() for _ in range(number)])
    records = claim(behind, limit=number).records
    lose_reply_to(proxy, place, "update")
    assert behind.settle([success(record) for record in records]) == [True] * number
    assert proxy.lost == 1
    for record in behind.get([record.id for record in records]):
        assert record is not None
        assert (record.status, record.result, record.claims, record.lost_claims) == ("success", 7, 1, 0)
    repair(behind)
    assert behind.totals().by_queue["q"] == {Status.SUCCESS: number}


def test_a_failure_whose_reply_was_lost_is_written_once(
    proxy: Proxy, behind: MongoBroker, place: Place
) -> None:
    behind.enqueue([new_job()])
    [record] = claim(behind).records
    retry = Outcome(status=Status.RETRY, delay=5.0, is_retry=True, exception_type="ValueError")
    lose_reply_to(proxy, place, "update")
    assert behind.settle([ended(record, retry)]) == [True]
    assert proxy.lost == 1
    [stored] = behind.get([record.id])
    assert stored is not None
    assert (stored.status, stored.retry_count, len(stored.attempts)) == (Status.RETRY, 1, 1)


@pytest.mark.parametrize(("limit", "command"), [(1, "findAndModify"), (10, "update")])
def test_a_claim_whose_reply_was_lost_costs_a_lease_and_no_job(
    proxy: Proxy, behind: MongoBroker, place: Place, limit: int, command: str
) -> None:
    job = new_job()
    behind.enqueue([job])
    lose_reply_to(proxy, place, command)
    with pytest.raises(BrokerUnavailable):
        claim(behind, lease=0.05, limit=limit)
    assert proxy.lost == 1
    [lost] = behind.get([job.record.id])
    assert lost is not None
    assert (lost.status, lost.claims) == (Status.STARTED, 1)
    [record] = until(lambda: claim(behind, limit=limit).records, what="the lease to end")
    assert (record.id, record.claims, record.lost_claims) == (job.record.id, 2, 1)


def test_a_renewal_whose_reply_was_lost_is_made_again(
    proxy: Proxy, behind: MongoBroker, place: Place
) -> None:
    behind.enqueue([new_job()])
    [record] = claim(behind, lease=5.0).records
    lose_reply_to(proxy, place, "update")
    assert behind.renew([ClaimRef(id=record.id, token=record.token or "")], 60.0) == [True]
    assert proxy.lost == 1


def test_many_lost_replies_lose_nothing_and_each_repeat_follows_a_lost_claim(
    proxy: Proxy, behind: MongoBroker, place: Place
) -> None:
    accepted: dict[str, int] = {}
    acknowledged: set[str] = set()

    def enqueue() -> None:
        jobs = [new_job() for _ in range(3)]
        behind.enqueue(jobs)
        acknowledged.update(job.record.id for job in jobs)

    def settle(records: tuple[JobRecord, ...]) -> None:
        for record, taken in zip(
            records, behind.settle([success(record) for record in records]), strict=True
        ):
            accepted[record.id] = accepted.get(record.id, 0) + taken

    steps: list[tuple[str, Callable[[], object]]] = [
        ("insert", enqueue),
        ("findAndModify", lambda: settle(claim(behind, lease=0.05, limit=1).records)),
        ("update", lambda: settle(claim(behind, lease=0.05, limit=2).records)),
        ("find", lambda: settle(claim(behind, lease=0.05, limit=2).records)),
        ("update", lambda: behind.cancel([one.id for one in claim(behind, 0.05, 1).records], Cancel())),
    ]
    for command, step in steps * 3:
        lose_reply_to(proxy, place, command)
        try:
            step()
        except BrokerUnavailable:
            pass
    assert proxy.lost >= 10
    proxy.lose_reply_to(rb"\A(?!)")  # nothing any more

    def rest() -> int:
        settle(claim(behind, lease=0.05).records)
        repair(behind)
        numbers = behind.totals().by_queue["q"]
        return numbers.get(Status.QUEUED, 0) + numbers.get(Status.STARTED, 0)

    enqueue()
    until(lambda: not rest(), what="all jobs to end")
    found = {record.id: record for record in behind.get(sorted(acknowledged)) if record is not None}
    assert found.keys() == acknowledged
    for record in found.values():
        lost = [attempt.lost for attempt in record.attempts]
        assert (record.lost_claims, lost) == (0, [True] * (record.claims - 1) + [False]), record
        assert accepted.get(record.id, 0) <= 1


@pytest.fixture(scope="module")
def single() -> Iterator[Replicas]:
    """A replica set with one member: the smallest deployment that takes a write once if it comes twice."""
    with replica_set(1) as replicas:
        yield replicas


def test_where_the_deployment_has_retryable_writes_a_lost_reply_to_a_claim_costs_nothing(
    single: Replicas,
) -> None:
    with Proxy(single.servers[0].port) as proxy:
        url = f"mongodb://127.0.0.1:{proxy.port}/mrq?directConnection=true"
        place = Place(url, "retryable")
        broker = open_broker(place)
        job = new_job()
        broker.enqueue([job])
        lose_reply_to(proxy, place, "findAndModify")
        [record] = claim(broker, limit=1).records
        assert proxy.lost == 1
        assert (record.id, record.claims, record.lost_claims) == (job.record.id, 1, 0)
        assert broker.settle([success(record)]) == [True]
        check_collections(broker)
        broker.close()


# --- a server that goes away ------------------------------------------------------------------------


def test_a_restarted_server_is_found_again_with_all_that_was_acknowledged(own_server: Server) -> None:
    broker = open_broker(Place(own_server.url, "mrq"), timeout=1.0)
    jobs = [new_job() for _ in range(20)]
    broker.enqueue(jobs)
    records = claim(broker, limit=5).records
    assert broker.settle([success(record) for record in records[:3]]) == [True] * 3
    own_server.kill()
    with pytest.raises(BrokerUnavailable, match=f"127.0.0.1:{own_server.port}.*start it"):
        broker.enqueue([new_job()])
    own_server.start()
    found = broker.get([job.record.id for job in jobs])
    statuses = sorted(record.status for record in found if record is not None)
    assert statuses == [*["queued"] * 15, *["started"] * 2, *["success"] * 3]
    assert broker.settle([success(record) for record in records[3:]]) == [True] * 2
    check_collections(broker)
    broker.close()


def test_a_server_that_hangs_ends_calls_after_the_timeout_and_is_named(own_server: Server) -> None:
    broker = open_broker(Place(own_server.url, "mrq"), timeout=TIMEOUT)
    [job] = broker.enqueue([new_job()])
    own_server.signal(signal.SIGSTOP)
    try:
        for call in (lambda: broker.enqueue([new_job()]), lambda: claim(broker), broker.totals):
            began = time.monotonic()
            with pytest.raises(BrokerUnavailable, match=f"127.0.0.1:{own_server.port}.*0.5 s"):
                call()
            assert time.monotonic() - began < PATIENCE
    finally:
        own_server.signal(signal.SIGCONT)
    until(lambda: _get(broker, job.id), what="the server to answer")
    broker.close()


def test_a_server_that_hangs_ends_a_read_after_one_timeout(own_server: Server) -> None:
    timeout = 2.0
    broker = open_broker(Place(own_server.url, "mrq"), timeout=timeout)
    [job] = broker.enqueue([new_job()])
    own_server.signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(BrokerUnavailable, match=r"did not answer within 2 s"):
            broker.get([job.id])
        assert time.monotonic() - began < 2 * timeout  # three times with the retries of pymongo
    finally:
        own_server.signal(signal.SIGCONT)
    broker.close()


def _get(broker: MongoBroker, job_id: str) -> JobRecord | None:
    try:
        return broker.get([job_id])[0]
    except BrokerUnavailable:
        return None


def test_a_late_reply_is_not_taken_for_that_to_another_call(own_server: Server) -> None:
    broker = open_broker(Place(own_server.url, "mrq"), timeout=TIMEOUT)
    broker.enqueue([new_job() for _ in range(3)])
    own_server.signal(signal.SIGSTOP)
    try:
        with pytest.raises(BrokerUnavailable):
            claim(broker, lease=0.2, limit=2)
    finally:
        own_server.signal(signal.SIGCONT)
    taken: set[str] = set()

    def take() -> int:
        try:
            taken.update(record.id for record in claim(broker).records)
        except BrokerUnavailable:
            return 0
        return len(taken)

    until(lambda: take() == 3, what="the lost claims to come again")
    check_collections(broker)
    broker.close()


# --- waits, threads and processes -------------------------------------------------------------------


def test_a_wait_ends_with_an_error_when_the_server_dies_and_not_before_the_job_comes(
    own_server: Server,
) -> None:
    broker = open_broker(Place(own_server.url, "mrq"), timeout=1.0)
    broker.prepare()
    failed: list[BaseException] = []

    def wait() -> None:
        try:
            broker.wait([Wanted(name="q")], 60.0)
        except BrokerUnavailable as error:
            failed.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    with own_server.client() as client:
        until(lambda: _is_waited_for(client), what="the call to wait")
    own_server.kill()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert [type(error) for error in failed] == [BrokerUnavailable]
    own_server.start()
    broker.enqueue([new_job()])
    assert broker.wait([Wanted(name="q")], 5.0)
    broker.close()


def _is_waited_for(client: object) -> bool:
    waiting = client.admin.aggregate([{"$currentOp": {}}, {"$match": {"op": "getmore"}}])  # type: ignore[attr-defined]
    return bool(list(waiting))


def test_a_child_and_its_parent_do_not_hear_each_others_replies(place: Place) -> None:
    broker = place.open()
    jobs = [answer.id for answer in broker.enqueue([new_job() for _ in range(40)])]
    taken: list[str] = []
    waiter = threading.Thread(target=lambda: broker.wait([Wanted(name="nothing")], 1.0))
    waiter.start()
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    children = [context.Process(target=_claim_in_child, args=(broker, answers)) for _ in range(3)]
    for child in children:
        child.start()
    for _ in range(10):
        taken += [record.id for record in claim(broker, limit=1).records]
    for child in children:
        child.join(PATIENCE)
        assert child.exitcode == 0
        taken += answers.get()
    waiter.join()
    assert sorted(taken) == sorted(jobs)
    check_collections(broker)
    broker.close()


def _claim_in_child(broker: MongoBroker, answers: multiprocessing.SimpleQueue[list[str]]) -> None:
    answers.put([record.id for _ in range(10) for record in claim(broker, limit=1).records])


# --- what stays as it was ---------------------------------------------------------------------------


def test_raw_parameters_and_requeued_jobs_survive_lost_replies_too(
    proxy: Proxy, behind: MongoBroker, place: Place
) -> None:
    raw = behind.raw("urls_set")
    lose_reply_to(proxy, place, "update", "raw")
    try:
        raw.push([RawItem(param="a"), RawItem(param="b")])
    except BrokerUnavailable:
        raw.push([RawItem(param="a"), RawItem(param="b")])
    assert proxy.lost == 1
    assert sorted(item.param for item in raw.peek(10)) == ["a", "b"]
    [answer] = behind.enqueue([new_job()])
    [record] = claim(behind).records
    behind.settle([ended(record, Outcome(status=Status.FAILED, ttl=60.0, exception_type="E"))])
    lose_reply_to(proxy, place, "update")
    behind.requeue([answer.id], Requeue())
    assert proxy.lost == 2
    [stored] = behind.get([answer.id])
    assert stored is not None
    assert stored.status is Status.QUEUED


def test_a_write_that_was_numbered_in_vain_is_made_again(place: Place) -> None:
    """pymongo numbers writes for replica sets, and does so for a lone server that has just returned."""
    broker = place.open()
    refused: list[OperationFailure] = []

    def insert(jobs: Any) -> int:
        command = {"insert": jobs.name, "documents": [{"_id": 1}], "txnNumber": Int64(1)}
        if refused:
            del command["txnNumber"]
        with jobs.database.client.start_session() as session:
            try:
                return int(jobs.database.command(command, session=session)["n"])
            except OperationFailure as error:
                refused.append(error)
                raise

    assert broker._connection.run("jobs", insert) == 1
    [error] = refused
    assert isinstance(translated(error, broker._connection.location, 1.0), BrokerUnavailable)
    broker._connection.run("jobs", lambda jobs: jobs.delete_many({}))
    broker.close()


@pytest.mark.parametrize("kind", ["enqueue", "find"])
def test_a_server_that_drips_its_reply_ends_the_call_at_its_timeout(
    proxy: Proxy, place: Place, kind: str
) -> None:
    broker = open_broker(replace(place, url=f"mongodb://127.0.0.1:{proxy.port}/mrq"), timeout=TIMEOUT)
    calls: dict[str, Callable[[], object]] = {
        "enqueue": lambda: broker.enqueue([new_job()]),
        "find": lambda: broker.find(JobFilter()),
    }
    broker.prepare()
    calls[kind]()
    proxy.drip(0.1)
    for _ in range(2):  # with a connection that is open, and with a new one
        began = time.monotonic()
        with pytest.raises(BrokerUnavailable):
            calls[kind]()
        assert time.monotonic() - began < PATIENCE
    broker.close()


# --- signal handlers --------------------------------------------------------------------------------


def test_the_decoding_of_documents_runs_no_python_code_that_a_handler_could_interrupt(
    place: Place,
) -> None:
    broker = place.open()
    broker.enqueue([new_job() for _ in range(3)])
    claim(broker, limit=1)
    calls: list[str] = []
    data = bson.encode({"n": Int64(2**40), "t": datetime.now(UTC), "list": [{"t": datetime.now(UTC)}]})
    options = broker._connection._collection("jobs", "").codec_options

    def profile(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            calls.append(frame.f_code.co_qualname)

    sys.setprofile(profile)
    try:
        decoded = bson._bson_to_dict(data, options)
    finally:
        sys.setprofile(None)
    assert calls == []
    assert type(decoded["n"]) is int
    assert decoded["t"].tzinfo is UTC
    assert decoded["list"][0]["t"].tzinfo is UTC
    broker.close()


def test_an_exception_of_a_handler_that_pymongo_drops_is_named(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = place.open()
    [job] = broker.enqueue([new_job()])
    set_id = ObjectId.__init__

    def interrupted(self: ObjectId, oid: Any = None) -> None:
        signal.raise_signal(signal.SIGUSR1)
        set_id(self, oid)

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise LookupError("by the handler")

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(ObjectId, "__init__", interrupted)
            with pytest.raises(BrokerUnavailable, match=r"signal handler.*by the handler.*repeat"):
                broker._connection.run("jobs", lambda jobs: list(jobs.find()))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert broker.get([job.id]) != [None]
    broker.close()


def test_the_client_of_a_call_that_a_signal_handler_has_interrupted_is_left(place: Place) -> None:
    def interrupt(number: int, frame: object) -> None:
        raise TimeoutError("by the handler")

    def send(point: str) -> None:
        if point != "jobs.before":  # inside a call of the connection
            return
        failpoints.hook = None
        signal.raise_signal(signal.SIGUSR1)

    broker = open_broker(place)
    broker.enqueue([new_job()])
    used = broker._connection._client
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        failpoints.hook = send
        with pytest.raises(TimeoutError, match="by the handler"):
            broker.enqueue([new_job()])
    finally:
        failpoints.hook = None
        signal.signal(signal.SIGUSR1, before)
    assert broker.enqueue([new_job()])[0].created
    assert broker._connection._client is not used
    broker.close()


def test_taking_the_locks_of_pymongos_pools_runs_no_python_code_that_a_handler_could_interrupt(
    place: Place,
) -> None:
    """Not beyond the moment at which the lock is taken."""
    broker = open_broker(place)
    broker.enqueue([new_job()])
    client: Any = broker._connection._client
    pools = [server.pool for server in client._topology._servers.values()]
    assert pools
    calls: list[str] = []

    def profile(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            calls.append(frame.f_code.co_qualname)

    for condition in [one for pool in pools for one in (pool.size_cond, pool._max_connecting_cond)]:
        sys.setprofile(profile)
        try:
            with condition:
                pass
        finally:
            sys.setprofile(None)
        with condition:
            condition.notify_all()
            assert not condition.wait(0.001)
    assert calls == []
    broker.close()


def test_a_pymongo_that_takes_no_class_of_pools_is_used_with_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(url: str, **options: Any) -> str:
        if "_pool_class" in options:
            raise ConfigurationError("Unknown option: _pool_class.")
        return f"{url} {options}"

    monkeypatch.setattr(clients, "MongoClient", other)
    assert clients.new_client("mongodb://host", {"w": 1}) == "mongodb://host {'w': 1}"


def test_a_client_is_made_and_closed_where_no_signal_handler_can_interrupt_it(place: Place) -> None:
    broker = open_broker(place)
    connect = broker._connection.location.connect
    threads: list[threading.Thread] = []

    def noted() -> Any:
        threads.append(threading.current_thread())
        client = connect()
        close = client.close

        def noted_close() -> None:
            threads.append(threading.current_thread())
            close()

        client.close = noted_close  # type: ignore[method-assign]
        return client

    broker._connection.location = broker._connection.location._replace(connect=noted)
    broker.enqueue([new_job()])
    broker.close()
    assert len(threads) == 2
    assert threading.main_thread() not in threads
    assert not set(threads) & set(threading.enumerate())


def test_a_client_that_is_made_after_a_handler_has_raised_is_closed() -> None:
    def interrupt(number: int, frame: object) -> None:
        raise TimeoutError("by the handler")

    waits, closed = threading.Event(), threading.Event()

    def undo(client: str) -> None:
        assert client == "client"
        closed.set()

    def work() -> str:
        signal.pthread_kill(main, signal.SIGUSR1)
        assert waits.wait(PATIENCE)
        return "client"

    main = threading.get_ident()
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises((TimeoutError, RuntimeError)) as caught:
            clients.apart(work, undo)
        assert isinstance(raised_by_handler(caught.value), TimeoutError)
    finally:
        signal.signal(signal.SIGUSR1, before)
    waits.set()
    assert closed.wait(PATIENCE)


def test_a_client_is_made_in_place_where_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(clients, "start_new_thread", start)
    assert clients.apart(threading.get_ident, lambda _: None) == threading.get_ident()


def test_a_call_is_refused_with_the_reason_where_no_thread_can_be_started(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    broker = place.open()
    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of pymongo, about the client that it has half made
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(BrokerUnavailable, match=r"cannot be called .*ulimit -u"):
            broker.enqueue([new_job()])
        gc.collect()
    broker.enqueue([new_job()])
    broker.close()


def test_a_client_is_made_in_place_where_the_other_thread_does_not_get_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may wait for the lock of all imports, which an interrupted import has left locked."""
    monkeypatch.setattr(clients, "_PATIENCE", 0.05)
    main, goes_on, closed = threading.get_ident(), threading.Event(), threading.Event()

    def work() -> str:
        if threading.get_ident() == main:
            return "here"
        assert goes_on.wait(PATIENCE)
        return "there"

    def undo(client: str) -> None:
        assert client == "there"
        closed.set()

    assert clients.apart(work, undo) == "here"
    goes_on.set()
    assert closed.wait(PATIENCE)


def test_errors_of_pymongo_pass_through_the_thread_that_makes_a_client() -> None:
    def work() -> None:
        raise ConfigurationError("by pymongo")

    with pytest.raises(ConfigurationError, match="by pymongo"):
        clients.apart(work, lambda _: None)
