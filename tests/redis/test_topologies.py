"""The ways to a server: socket, database, TLS, sentinels, cluster."""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import redis
from gevent.monkey import is_module_patched

from mrq_broker_redis.broker import RedisBroker
from mrq_broker_redis.server.location import CONNECTIONS_MOST
from mrq_core.contract.messages import Cancel, ChangeResult, RawItem, Wanted
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import Status
from mrq_core.errors import BrokerError, BrokerUnavailable
from mrq_core.testing.conformance import (
    BrokerFactory,
    EnqueueContract,
    MetricContract,
    PollContract,
    QueueFactory,
    RawContract,
    SearchContract,
    SettleContract,
    WaitContract,
)
from mrq_core.testing.conformance.queue_looking import QueueLookContract
from mrq_core.testing.conformance.queue_raw import AdmitContract
from tests.proxy import Proxy
from tests.redis.kit import Place, open_broker, open_queue
from tests.redis.servers import PROGRAM, Server
from tests.redis.services import Watched, cluster, cluster_url, one_sentinel, sentinels, until_in_step
from tests.redis.test_connection import claim, new_job, success
from tests.redis.test_odd_answers import parrot
from tests.servers import free_port
from tests.support import until

_numbers = itertools.count()


def check_broker(broker: RedisBroker) -> None:
    """A little of everything goes through."""
    broker.prepare()
    jobs = [new_job() for _ in range(5)]
    assert all(answer.created for answer in broker.enqueue(jobs))
    assert broker.wait([Wanted(name="q")], 5.0)
    records = claim(broker, limit=3).records
    assert broker.settle([success(record) for record in records]) == [True] * 3
    assert broker.totals().by_status() == {Status.SUCCESS: 3, Status.QUEUED: 2}
    found = broker.find(JobFilter(statuses=(Status.QUEUED,))).records
    assert broker.cancel([record.id for record in found], Cancel()) == [ChangeResult.DONE] * 2
    assert broker.count(JobFilter(), "status").numbers == {"success": 3, "cancel": 2}
    broker.pause(["q"])
    assert broker.paused() == {"q"}
    assert broker.state.add("n", "counter", 3) == 3
    raw = broker.raw("urls_timed_set")
    assert raw.push([RawItem(param="a", score=1.0)]) == [True]
    assert [one.param for one in raw.claim(5, 60.0, "w")] == ["a"]
    assert not broker.wait([Wanted(name="other")], 0.05)
    assert all(finding.level != "error" for finding in broker.check())
    broker.close()


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    server = Server("--unixsocket", str(path))
    try:
        check_broker(open_broker(Place(f"unix://{path}?db=3", "mrq")))
        with redis.Redis(port=server.port, db=3) as client:
            assert client.dbsize()
    finally:
        server.stop()


def test_a_database_and_a_user_of_ones_own() -> None:
    server = Server("--user", "worker", "on", ">geheim:/", "~*", "&*", "+@all")
    try:
        url = f"redis://worker:geheim%3A%2F@127.0.0.1:{server.port}/5"
        check_broker(open_broker(Place(url, "mrq")))
        with redis.Redis(port=server.port, db=5) as client:
            assert client.dbsize()
    finally:
        server.stop()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """The files of a certificate for 127.0.0.1, which no authority has signed, and of its key."""
    openssl = shutil.which("openssl")
    # A wrong option ends the server before it starts; the first one that it does not know is named.
    asked = [PROGRAM.require(), "--tls-port", "0", "--no-such-option", "1"]
    said = subprocess.run(asked, capture_output=True, text=True, check=False)
    if openssl is None or "tls-port" in said.stdout + said.stderr:
        pytest.skip("this redis-server has no TLS, or there is no openssl to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


@pytest.fixture
def tls_port(certificate: tuple[Path, Path]) -> Iterator[int]:
    """The port of a server with TLS."""
    port = free_port()
    files = ("--tls-cert-file", str(certificate[0]), "--tls-key-file", str(certificate[1]))
    authority = ("--tls-ca-cert-file", str(certificate[0]), "--tls-auth-clients", "no")
    server = Server("--tls-port", str(port), *files, *authority)
    try:
        yield port
    finally:
        server.stop()


def refusal(url: str) -> str:
    """What the user is told who names this URL."""
    broker = open_broker(Place(url, "mrq"))
    try:
        with pytest.raises(BrokerError) as caught:
            broker.prepare()
    finally:
        broker.close()
    return str(caught.value)


def test_tls(certificate: tuple[Path, Path], tls_port: int) -> None:
    url = f"rediss://127.0.0.1:{tls_port}/0"
    check_broker(open_broker(Place(f"{url}?ssl_ca_certs={certificate[0]}", "mrq")))
    assert "its certificate is not trusted here" in refusal(url)


def test_tls_to_sentinels_and_their_primary(
    tmp_path: Path, certificate: tuple[Path, Path], tls_port: int
) -> None:
    lines = [
        *(f"tls-cert-file {certificate[0]}", f"tls-key-file {certificate[1]}"),
        *(f"tls-ca-cert-file {certificate[0]}", "tls-auth-clients no", "tls-replication yes"),
    ]
    with one_sentinel(tmp_path, tls_port, *lines) as sentinel:
        trusted = f"?ssl_ca_certs={certificate[0]}"
        check_broker(open_broker(Place(f"rediss+sentinel://127.0.0.1:{sentinel}/jobs{trusted}", "mrq")))
        assert "its certificate is not trusted here" in refusal(
            f"rediss+sentinel://127.0.0.1:{sentinel}/jobs"
        )
        assert "needs rediss+sentinel://" in refusal(f"redis+sentinel://127.0.0.1:{sentinel}/jobs")
    with one_sentinel(tmp_path, tls_port) as plain:
        assert "needs redis+sentinel://" in refusal(f"rediss+sentinel://127.0.0.1:{plain}/jobs{trusted}")
        assert "needs rediss+sentinel://" in refusal(f"redis+sentinel://127.0.0.1:{plain}/jobs")


def test_tls_to_a_cluster(certificate: tuple[Path, Path]) -> None:
    port = free_port()
    files = ("--tls-cert-file", str(certificate[0]), "--tls-key-file", str(certificate[1]))
    authority = ("--tls-ca-cert-file", str(certificate[0]), "--tls-auth-clients", "no")
    with cluster("--tls-port", str(port), "--tls-cluster", "yes", *files, *authority, number=1) as [node]:
        url = f"rediss+cluster://127.0.0.1:{port}"
        check_broker(open_broker(Place(f"{url}?ssl_ca_certs={certificate[0]}", "mrq")))
        assert "its certificate is not trusted here" in refusal(url)
        assert "needs rediss+cluster://" in refusal(f"redis+cluster://127.0.0.1:{port}")
        assert "needs redis+cluster://" in refusal(f"rediss+cluster://127.0.0.1:{node.port}")


def test_sentinels_that_refuse_a_login_are_told_from_those_that_do_not_know_the_service(
    tmp_path: Path,
) -> None:
    primary = Server()
    try:
        with one_sentinel(tmp_path, primary.port, "requirepass geheim") as port:
            url = f"redis+sentinel://127.0.0.1:{port}"
            assert "want a password: put it in the URL, as ?sentinel_password=" in refusal(f"{url}/jobs")
            assert "refuse the login: correct sentinel_password" in refusal(f"{url}/jobs?sentinel_password=x")
            assert "correct the service in the URL" in refusal(f"{url}/job?sentinel_password=geheim")
            check_broker(open_broker(Place(f"{url}/jobs?sentinel_password=geheim", "mrq")))
            assert "want a password" in refusal(f"redis+sentinel://127.0.0.1:1,127.0.0.1:{port}/jobs")
    finally:
        primary.stop()


@pytest.mark.parametrize(
    "answer", [b"+OK\r\n", b"$-1\r\n", b"*0\r\n", b"-ERR no\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"]
)
def test_another_program_among_the_sentinels_keeps_no_other_from_being_asked(
    tmp_path: Path, answer: bytes
) -> None:
    primary = Server()
    try:
        with one_sentinel(tmp_path, primary.port) as port, parrot(answer) as other:
            wrong = other.removeprefix("redis://").partition("/")[0]
            check_broker(open_broker(Place(f"redis+sentinel://{wrong},127.0.0.1:{port}/jobs", "mrq")))
            said = refusal(f"redis+sentinel://{wrong},127.0.0.1:{port}/job")
            assert "correct the service in the URL" in said
            assert "replaced its sockets" not in refusal(f"redis+sentinel://{wrong}/jobs")
    finally:
        primary.stop()


def test_a_single_server_among_the_sentinels_keeps_no_other_from_being_asked(tmp_path: Path) -> None:
    primary = Server()
    try:
        with one_sentinel(tmp_path, primary.port) as port:
            url = f"redis+sentinel://127.0.0.1:{primary.port},127.0.0.1:{port}/jobs"
            check_broker(open_broker(Place(url, "mrq")))
        assert "it is no sentinel" in refusal(url)
    finally:
        primary.stop()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Watched]:
    with sentinels(tmp_path) as watched:
        yield watched


def test_sentinels_lead_to_the_primary_and_after_its_death_to_the_next(service: Watched) -> None:
    check_broker(open_broker(Place(service.url, "first")))
    broker = open_broker(Place(service.url, "second"))
    broker.enqueue([new_job() for _ in range(10)])
    service.until_replicated()
    service.primary.kill()

    def claimed() -> int:
        try:
            return len(claim(broker).records)
        except BrokerUnavailable:
            return 0

    assert until(claimed, what="the replica to be promoted") == 10
    assert service.is_promoted()
    broker.close()


def test_a_sentinel_that_is_named_as_a_server_is_said_to_be_one(service: Watched) -> None:
    hosts = service.url.removeprefix("redis+sentinel://").partition("/")[0]
    broker = open_broker(Place(f"redis://{hosts.partition(',')[0]}", "mrq"))
    with pytest.raises(BrokerUnavailable, match="it is a sentinel, which needs redis\\+sentinel://"):
        broker.prepare()
    broker.close()


def test_a_sentinel_that_is_away_is_asked_once_and_then_the_next(service: Watched) -> None:
    asked: list[socket.socket] = []

    def refuse() -> None:
        with contextlib.suppress(OSError):
            while True:
                asked.append(dead.accept()[0])
                asked[-1].close()

    with socket.create_server(("127.0.0.1", 0)) as dead:
        threading.Thread(target=refuse, daemon=True).start()
        address = f"127.0.0.1:{dead.getsockname()[1]}"
        broker = open_broker(Place(service.url.replace("//", f"//{address},"), "mrq"))
        assert broker.enqueue([new_job()])[0].created
        assert len(asked) == 1
        broker.close()
        dead.shutdown(socket.SHUT_RDWR)


class Interrupted(BaseException):
    """What a worker throws into a call that it no longer waits for."""


def test_the_reply_to_an_interrupted_call_is_not_taken_for_that_to_the_next(service: Watched) -> None:
    if is_module_patched("threading"):
        pytest.skip("gevent has patched this process: a signal interrupts no call")
    broker = open_broker(Place(service.url, "mrq"))
    broker.enqueue([new_job("other")])

    def interrupt() -> None:
        with service.primary.client() as client:
            until(lambda: client.info()["blocked_clients"], what="the call to wait")
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def raise_it(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, raise_it)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(Interrupted):
            broker.wait([Wanted(name="q")], 2.0)
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    broker.enqueue([new_job()])
    assert len(claim(broker).records) == 1
    broker.close()


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[Server]]:
    with cluster() as servers:
        yield servers


def test_a_node_of_a_cluster_that_drips_its_reply_ends_the_call_at_its_timeout() -> None:
    server = Server("--cluster-enabled", "yes")
    try:
        with Proxy(server.port) as proxy, server.client() as client:
            client.config_set("cluster-announce-ip", "127.0.0.1")
            client.config_set("cluster-announce-port", proxy.port)
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            until_in_step([server])
            broker = open_broker(Place(f"redis+cluster://127.0.0.1:{server.port}", "mrq"), timeout=0.5)
            assert broker.enqueue([new_job()])[0].created
            proxy.drip(0.1)
            for _ in range(2):  # with a connection that is open, and with a new one
                began = time.monotonic()
                with pytest.raises(BrokerUnavailable, match=r"did not answer within 0\.5 s"):
                    broker.enqueue([new_job() for _ in range(5)])
                assert time.monotonic() - began < 5
            broker.close()
    finally:
        server.stop()


def test_a_cluster_with_several_prefixes_on_several_nodes(nodes: list[Server]) -> None:
    url = cluster_url(nodes)
    for number in range(6):
        check_broker(open_broker(Place(url, f"shop-{number}")))
    sizes = []
    for server in nodes:
        with server.client() as client:
            sizes.append(client.dbsize())
    assert sum(bool(size) for size in sizes) > 1, sizes


@pytest.mark.campaign
class TestRedisClusterBroker(
    EnqueueContract, SettleContract, SearchContract, MetricContract, RawContract, PollContract, WaitContract
):
    """The parts of the contract that call the client in all its ways, on a cluster."""

    @pytest.fixture
    def broker_factory(self, nodes: list[Server]) -> BrokerFactory:
        return partial(open_broker, Place(cluster_url(nodes), f"contract-{next(_numbers)}"))


@pytest.mark.campaign
class TestRedisClusterQueue(AdmitContract, QueueLookContract):
    """The same of the queue half."""

    @pytest.fixture
    def queue_factory(self, nodes: list[Server]) -> QueueFactory:
        return partial(open_queue, Place(cluster_url(nodes), f"contract-{next(_numbers)}"))


def test_calls_wait_for_connections_to_a_node_of_a_cluster(nodes: list[Server]) -> None:
    broker = open_broker(Place(cluster_url(nodes), "many"))
    broker.prepare()

    def call(number: int) -> bytes | None:
        return broker._connection.wait_for([broker._connection.key("nothing")], 0.2)

    with ThreadPoolExecutor(CONNECTIONS_MOST + 50) as threads:
        assert set(threads.map(call, range(CONNECTIONS_MOST + 50))) == {None}
    broker.close()


def test_a_cluster_that_is_away_is_said_so() -> None:
    broker = open_broker(Place(f"redis+cluster://127.0.0.1:{free_port()}", "mrq"), timeout=1.0)
    with pytest.raises(BrokerUnavailable, match="Redis at redis"):
        broker.prepare()
    assert [finding.level for finding in broker.check()] == ["error"]
    broker.close()


def test_a_child_that_is_forked_while_a_thread_connects_to_a_cluster_works_at_once() -> None:
    with cluster() as servers:
        broker = open_broker(Place(cluster_url(servers), "forked"))
        for server in servers:
            server.signal(signal.SIGSTOP)
        thread = threading.Thread(target=broker.paused)
        thread.start()
        lock = broker._connection._lock
        until(lambda: _is_locked(lock), what="the thread to connect")
        child = os.fork()
        if child == 0:
            faulthandler.dump_traceback_later(10, exit=True)
            broker.paused()
            os._exit(0)
        for server in servers:
            server.signal(signal.SIGCONT)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        thread.join()
        broker.close()


def _is_locked(lock: threading.RLock) -> bool:
    """Whether another thread holds the lock."""
    if lock.acquire(blocking=False):
        lock.release()
        return False
    return True


def test_no_job_is_stored_on_a_node_to_which_the_slot_of_the_prefix_is_being_moved() -> None:
    with cluster() as servers:
        broker = open_broker(Place(cluster_url(servers), "mrq"))
        with servers[0].client() as client:
            slot = int(client.execute_command("CLUSTER", "KEYSLOT", "{mrq}:"))
        ids = {server: _id_of(server) for server in servers}
        source = next(server for server in servers if _serves(server))
        target = next(server for server in servers if server is not source)
        _set_slot(target, slot, "IMPORTING", ids[source])
        _set_slot(source, slot, "MIGRATING", ids[target])
        with pytest.raises(BrokerUnavailable, match="are being moved to another node"):
            broker.enqueue([new_job()])
        with target.client() as client:
            assert client.dbsize() == 0
        for server in (source, target):
            _set_slot(server, slot, "STABLE")
        assert broker.enqueue([new_job()])[0].created
        broker.close()


def _id_of(server: Server) -> str:
    with server.client() as client:
        return str(client.execute_command("CLUSTER", "MYID").decode())


def _serves(server: Server) -> bool:
    """Whether the node has the keys of the prefix: others answer with its address."""
    with server.client() as client:
        try:
            client.execute_command("GET", "{mrq}:none")
        except redis.exceptions.MovedError:
            return False
    return True


def _set_slot(server: Server, slot: int, *state: str) -> None:
    with server.client() as client:
        client.execute_command("CLUSTER", "SETSLOT", slot, *state)
