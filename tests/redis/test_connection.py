"""Calls while the server, its scripts or the connection are lost."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any

import hiredis
import pytest
from redis.connection import AbstractConnection

from mrq_broker_redis.broker import RedisBroker
from mrq_broker_redis.server import links
from mrq_broker_redis.server.location import CONNECTIONS_MOST
from mrq_core.clock import SystemClock, from_ms
from mrq_core.contract.messages import (
    Claimed,
    ClaimRequest,
    NewJob,
    Outcome,
    RawItem,
    Settlement,
    Unique,
    Wanted,
)
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import JobRecord, Status
from mrq_core.errors import BrokerCorrupt, BrokerUnavailable, SchemaTooNew
from mrq_core.ids import new_id
from tests.proxy import Proxy
from tests.redis.kit import Place, lose_reply_to, open_broker
from tests.redis.servers import Server
from tests.servers import free_port
from tests.support import until


def new_job(queue: str = "q", unique: Unique | None = None) -> NewJob:
    now = from_ms(SystemClock().now_ms())
    record = JobRecord(
        id=new_id(), path="t.Task", params={"a": 1}, queue=queue, queued_at=now, updated_at=now
    )
    return NewJob(record=record, unique=unique)


def claim(broker: RedisBroker, lease: float = 60.0, limit: int = 10) -> Claimed:
    return broker.claim(ClaimRequest(worker="w", wanted=(Wanted(name="q"),), limit=limit, lease=lease))


def success(record: JobRecord) -> Settlement:
    assert record.token is not None
    return Settlement(
        id=record.id, token=record.token, outcome=Outcome(status=Status.SUCCESS, result=7, ttl=60.0)
    )


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server that a test may kill."""
    server = Server("--appendonly", "yes", "--appendfsync", "always")
    yield server
    server.stop()


def test_scripts_that_the_server_has_forgotten_are_sent_again(place: Place, server: Server) -> None:
    broker = place.open()
    broker.enqueue([new_job()])
    with server.client() as client:
        client.script_flush()
    [record] = claim(broker).records
    with server.client() as client:
        client.script_flush()
    assert broker.settle([success(record)]) == [True]
    broker.close()


def test_a_restarted_server_is_found_again_with_all_that_was_acknowledged(own_server: Server) -> None:
    broker = open_broker(Place(own_server.url, "mrq"))
    jobs = [new_job() for _ in range(20)]
    broker.enqueue(jobs)
    own_server.kill()
    own_server.start()
    assert [record is not None for record in broker.get([job.record.id for job in jobs])] == [True] * 20
    assert {record.id for record in claim(broker).records} <= {job.record.id for job in jobs}
    broker.close()


def test_connections_that_the_server_has_closed_while_they_were_idle_are_made_anew(
    place: Place, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "_FRESH", 0.0)  # as if time had passed since
    broker = place.open()
    broker.enqueue([new_job()])
    with server.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    assert len(claim(broker).records) == 1  # a claim is not repeated
    broker.close()


def test_calls_wait_for_one_another_where_there_are_more_than_connections(place: Place) -> None:
    broker = place.open()
    broker.enqueue([new_job()])

    def call(number: int) -> int:
        broker._connection.wait_for([broker._connection.key("nothing")], 0.2)
        return len(broker.enqueue([new_job()]))

    with ThreadPoolExecutor(CONNECTIONS_MOST + 50) as threads:
        assert sum(threads.map(call, range(CONNECTIONS_MOST + 50))) == CONNECTIONS_MOST + 50
    broker.close()


def test_a_call_for_which_no_connection_becomes_free_says_so(place: Place) -> None:
    broker = place.open(timeout=0.3)
    broker.enqueue([new_job()])
    link = broker._connection._connected()
    taken = [link._take() for _ in range(CONNECTIONS_MOST)]
    with pytest.raises(BrokerUnavailable, match=r"all 100 connections .* in use for 0\.3 s"):
        broker.enqueue([new_job()])
    link._idle.append((taken.pop(), time.monotonic()))
    broker.enqueue([new_job()])
    broker.close()


def test_a_connection_that_is_closed_under_a_call_takes_the_idle_ones_along(
    place: Place, server: Server
) -> None:
    broker = place.open()
    broker.enqueue([new_job()])
    link = broker._connection._connected()
    both = [link._take() for _ in range(2)]
    link._idle += [(connection, time.monotonic()) for connection in both]
    with server.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    with pytest.raises(BrokerUnavailable):
        claim(broker)
    assert len(claim(broker).records) == 1
    broker.close()


def test_connections_are_not_shared_with_a_forked_child(place: Place) -> None:
    broker = place.open()
    broker.enqueue([new_job() for _ in range(40)])
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if sum(len(claim(broker, limit=2).records) for _ in range(10)) == 20 else 1)
        finally:
            os._exit(2)
    mine = sum(len(claim(broker, limit=2).records) for _ in range(10))
    assert os.waitpid(child, 0)[1] == 0
    assert mine == 20
    broker.close()


def test_a_connection_that_the_parent_was_using_is_not_kept_in_a_child(place: Place) -> None:
    broker = place.open()
    broker.enqueue([new_job()])
    link = broker._connection._connected()
    connection = link._take()
    child = os.fork()
    if child == 0:
        link._keep(connection, os.getppid())
        os._exit(len(link._idle))
    assert os.waitpid(child, 0)[1] == 0
    connection.send_command("PING")  # nor is it closed for the parent
    assert connection.read_response() == b"PONG"
    link._keep(connection, os.getpid())
    broker.close()


@pytest.mark.parametrize(("script", "unique"), [("enqueue", None), ("enqueue_each", Unique(key="k"))])
def test_an_enqueue_whose_reply_was_lost_makes_one_job(
    proxy: Proxy, place: Place, script: str, unique: Unique | None
) -> None:
    broker = open_broker(replace(place, url=f"redis://127.0.0.1:{proxy.port}/0"))
    job = new_job(unique=unique)
    broker.enqueue([new_job("other", unique=unique and Unique(key="other"))])
    lose_reply_to(proxy, script)
    [answer] = broker.enqueue([job])
    assert proxy.lost == 1
    assert answer.id == job.record.id
    assert broker.totals().by_queue["q"] == {Status.QUEUED: 1}
    broker.close()


def test_a_settle_whose_reply_was_lost_is_repeated_and_accepted_once(proxy: Proxy, place: Place) -> None:
    broker = open_broker(replace(place, url=f"redis://127.0.0.1:{proxy.port}/0"))
    broker.enqueue([new_job()])
    [record] = claim(broker).records
    broker.settle([])
    lose_reply_to(proxy, "settle")
    assert broker.settle([success(record)]) == [True]
    assert proxy.lost == 1
    assert broker.totals().by_status() == {Status.SUCCESS: 1}
    broker.close()


def test_a_failure_whose_reply_was_lost_is_accepted_when_it_is_repeated(proxy: Proxy, place: Place) -> None:
    broker = open_broker(replace(place, url=f"redis://127.0.0.1:{proxy.port}/0"))
    broker.enqueue([new_job()])
    [record] = claim(broker).records
    outcome = Outcome(status=Status.RETRY, delay=5.0, is_retry=True, exception_type="ValueError")
    failure = replace_outcome(success(record), outcome)
    lose_reply_to(proxy, "replace")
    with pytest.raises(BrokerUnavailable):
        broker.settle([failure])
    assert broker.settle([failure]) == [True]
    [stored] = broker.get([record.id])
    assert stored is not None
    assert (stored.status, stored.retry_count) == (Status.RETRY, 1)
    broker.close()


def replace_outcome(settlement: Settlement, outcome: Outcome) -> Settlement:
    return Settlement(id=settlement.id, token=settlement.token, outcome=outcome)


def test_a_claim_whose_reply_was_lost_costs_a_lease_and_no_job(proxy: Proxy, place: Place) -> None:
    broker = open_broker(replace(place, url=f"redis://127.0.0.1:{proxy.port}/0"))
    job = new_job()
    broker.enqueue([job])
    lose_reply_to(proxy, "claim")
    with pytest.raises(BrokerUnavailable):
        claim(broker, lease=0.05)
    assert broker.totals().by_status() == {Status.STARTED: 1}
    [record] = until(lambda: claim(broker).records, what="the lease to end")
    assert (record.id, record.claims, record.lost_claims) == (job.record.id, 2, 1)
    broker.close()


def test_a_server_that_is_away_is_named_without_its_password() -> None:
    port = free_port()
    broker = open_broker(Place(f"redis://user:geheim@127.0.0.1:{port}/0", "mrq"), timeout=1.0)
    with pytest.raises(BrokerUnavailable) as raised:
        broker.get([new_id()])
    assert f"127.0.0.1:{port}" in str(raised.value)
    assert "start it" in str(raised.value)
    assert "geheim" not in str(raised.value)
    broker.close()


class _NoSocket(socket.socket):
    """As of a library that keeps tests from the network."""

    def __init__(self, *args: object, **more: object) -> None:
        raise RuntimeError("the network is disabled")


def test_sockets_that_other_code_has_replaced_are_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(open_broker(place)) as broker:
        monkeypatch.setattr(socket, "socket", _NoSocket)
        with pytest.raises(BrokerUnavailable, match=r"has replaced its sockets: .*the network is disabled"):
            broker.queue_names()
        monkeypatch.undo()
        assert broker.queue_names() == []


def test_a_wrong_password_is_said_so() -> None:
    server = Server("--requirepass", "right")
    try:
        for url in (server.url, server.url.replace("//", "//:wrong@")):
            broker = open_broker(Place(url, "mrq"))
            with pytest.raises(BrokerUnavailable, match=r"password|login"):
                broker.prepare()
            broker.close()
        broker = open_broker(Place(server.url.replace("//", "//:right@"), "mrq"))
        broker.prepare()
        broker.close()
    finally:
        server.stop()


def test_a_full_server_refuses_new_work_and_takes_outcomes(own_server: Server) -> None:
    broker = open_broker(Place(own_server.url, "mrq"))
    broker.enqueue([new_job() for _ in range(5)])
    first, second = claim(broker, limit=2).records
    failed = Outcome(status=Status.FAILED, ttl=60.0, exception_type="E")
    with own_server.client() as client:
        before = _everything(own_server)
        client.config_set("maxmemory", "100kb")
        for call in (lambda: broker.enqueue([new_job()]), lambda: claim(broker)):
            with pytest.raises(BrokerUnavailable, match="maxmemory"):
                call()
        assert _everything(own_server) == before
        assert broker.settle([replace_outcome(success(first), failed)]) == [True]
        assert broker.settle([success(second)]) == [True]
    broker.close()


def _everything(server: Server) -> dict[bytes, bytes | None]:
    with server.client() as client:
        found: dict[bytes, bytes | None] = {}
        for key in client.scan_iter("*"):
            if b":wake:" not in key:
                dumped = client.dump(key)
                assert dumped is None or isinstance(dumped, bytes)
                found[key] = dumped
        return found


def test_a_key_of_another_program_is_named_as_such(place: Place, server: Server) -> None:
    broker = place.open()
    with server.client() as client:
        client.set("{" + place.prefix + "}:queues", "mine")
    with pytest.raises(BrokerCorrupt, match="REDIS_PREFIX"):
        broker.enqueue([new_job()])
    broker.close()


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ("rubbish", "expected two numbers"),
        ("0 0", "expected two positive integers"),
        ("1 1 sheets", "of a kind that this mrq does not know"),
    ],
)
def test_a_layout_that_this_version_does_not_know_is_named(
    place: Place, server: Server, stored: str, message: str
) -> None:
    with server.client() as client:
        client.set("{" + place.prefix + "}:layout", stored)
    with closing(place.open()) as broker:
        with pytest.raises((BrokerCorrupt, SchemaTooNew), match=message):
            broker.prepare()
        (finding,) = [finding for finding in broker.check() if message in finding.message]
        assert finding.level == "error"


def test_keys_of_a_newer_version_are_left_alone(place: Place, server: Server) -> None:
    with server.client() as client:
        client.set("{" + place.prefix + "}:layout", 99)
    broker = place.open()
    with pytest.raises(SchemaTooNew, match="upgrade"):
        broker.prepare()
    broker.close()


def test_a_replica_is_said_to_be_one(own_server: Server) -> None:
    broker = open_broker(Place(own_server.url, "mrq"))
    with own_server.client() as client:
        client.replicaof("127.0.0.1", str(free_port()))
        with pytest.raises(BrokerUnavailable, match="replica"):
            broker.enqueue([new_job()])
        client.replicaof("NO", "ONE")
    assert broker.enqueue([new_job()])[0].created
    broker.close()


@pytest.mark.parametrize("kind", ["script", "list", "command"])
def test_a_server_that_drips_its_reply_ends_the_call_at_its_timeout(
    proxy: Proxy, place: Place, kind: str
) -> None:
    broker = open_broker(replace(place, url=f"redis://127.0.0.1:{proxy.port}"), timeout=0.5)
    calls: dict[str, Callable[[], object]] = {
        "script": lambda: broker.enqueue([new_job() for _ in range(5)]),
        "list": lambda: broker._connection.execute("CONFIG", "GET", "*"),
        "command": lambda: broker._connection.execute("INFO"),
    }
    broker.prepare()
    calls[kind]()
    proxy.drip(0.1)
    for _ in range(2):  # with a connection that is open, and with a new one
        began = time.monotonic()
        with pytest.raises(BrokerUnavailable, match=r"did not answer within 0\.5 s"):
            calls[kind]()
        assert time.monotonic() - began < 3
    broker.close()


@pytest.mark.parametrize("url", ["redis://:x@{}", "redis+sentinel://:x@{}/jobs", "redis+cluster://:x@{}"])
def test_a_server_that_drips_from_its_first_byte_on_ends_the_call_at_its_timeout(
    proxy: Proxy, url: str
) -> None:
    """The reply to a login, of a sentinel, and the list of the nodes of a cluster, too."""
    proxy.drip(0.1)
    broker = open_broker(Place(url.format(f"127.0.0.1:{proxy.port}"), "mrq"), timeout=0.3)
    for call in (broker.prepare, lambda: broker.enqueue([new_job()])):
        began = time.monotonic()
        with pytest.raises(BrokerUnavailable, match=r"did not answer within 0\.3 s"):
            call()
        assert time.monotonic() - began < 3
    broker.close()


def test_a_reply_in_many_parts_is_read(proxy: Proxy, place: Place) -> None:
    broker = open_broker(replace(place, url=f"redis://127.0.0.1:{proxy.port}"), timeout=20)
    broker.prepare()
    proxy.drip(0.0)
    for _ in range(2):
        assert all(answer.created for answer in broker.enqueue([new_job() for _ in range(30)]))
    assert broker.totals().by_status() == {Status.QUEUED: 60}
    broker.close()


class Interrupted(BaseException):
    """Raised between two commands."""


def interrupt_command(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raises `Interrupted` in place of the command of this number, counted from 0, and not again."""
    left = number

    def send(connection: Any, *arguments: Any, **options: Any) -> None:
        nonlocal left
        left -= 1
        if left == -1:
            raise Interrupted
        plain(connection, *arguments, **options)

    plain: Any = AbstractConnection.send_command
    monkeypatch.setattr(AbstractConnection, "send_command", send)


@pytest.mark.parametrize("number", range(5))
def test_a_login_that_is_interrupted_leaves_no_connection_without_its_database(
    number: int, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server.client() as client:
        client.flushall()
    broker = open_broker(Place(f"redis://127.0.0.1:{server.port}/7", "mrq"))
    job = new_job()
    with monkeypatch.context() as patch:
        interrupt_command(number, patch)
        with pytest.raises(Interrupted):
            broker.enqueue([job])
    broker.enqueue([job])
    assert [record.id for record in claim(broker).records] == [job.record.id]
    broker.close()
    with server.client() as client:
        assert client.dbsize() == 0


def test_a_connection_that_is_interrupted_before_its_login_is_not_used(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a signal handler that raises between two lines of redis-py."""

    def interrupted(connection: Any) -> None:
        raise Interrupted

    with server.client() as client:
        client.flushall()
    broker = open_broker(Place(f"redis://127.0.0.1:{server.port}/7", "mrq"))
    [job, other] = [new_job() for _ in range(2)]
    pool = broker._connection._connected().client.connection_pool
    with monkeypatch.context() as patch:
        patch.setitem(pool.connection_kwargs, "redis_connect_func", interrupted)
        with pytest.raises(Interrupted):
            broker.enqueue([job])
    log_in = pool.connection_kwargs["redis_connect_func"]
    for connection in pool._available_connections:
        connection.redis_connect_func = log_in
    broker.enqueue([job, other])
    assert len(claim(broker, limit=2).records) == 2
    broker.close()
    with server.client() as client:
        assert client.dbsize() == 0


def test_no_number_reaches_the_packer_of_commands_which_crashes_when_a_signal_handler_raises(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """hiredis 3.5 calls repr for a number, does not see that it raised, and ends the process."""
    pack = hiredis.pack_command
    kinds: set[type] = set()

    def packed(words: tuple[Any, ...]) -> bytes:
        if words[0] != b"HELLO":  # redis-py sends it once for each connection
            kinds.update(map(type, words))
        found: bytes = pack(words)
        return found

    broker = open_broker(place)
    broker.prepare()
    monkeypatch.setattr(hiredis, "pack_command", packed)
    broker.enqueue([new_job()])
    [record] = claim(broker).records
    broker.settle([success(record)])
    broker.find(JobFilter(statuses=(Status.SUCCESS,)))
    broker.count(JobFilter(paths=("t.Task",)), "status")
    broker.counts(["q"])
    broker.totals()
    broker.now()
    broker.wait([Wanted(name="q")], 0.01)
    broker.raw("x_raw").push([RawItem(param="p")])
    assert broker.raw("x_raw").size() == 1
    assert broker.raw("x_raw").peek(10, 0)
    assert kinds == {str, bytes}
