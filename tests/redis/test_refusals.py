"""A server that hangs or refuses, and replies that are lost or meant for others: what the caller is told."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from mrq_broker_redis.broker import RedisBroker
from mrq_broker_redis.server.failures import translated
from mrq_core.contract.messages import Cancel, Wanted
from mrq_core.contract.record import Status
from mrq_core.errors import BrokerError, BrokerUnavailable, CallRefused
from tests.proxy import Proxy
from tests.redis.kit import Place, lose_reply_to, open_broker
from tests.redis.recount import check_keys
from tests.redis.servers import Server
from tests.redis.test_connection import claim, new_job, success
from tests.support import WAITS_FOR_GO, open_project, until

TIMEOUT = 0.5
PATIENCE = 20.0
"""Seconds that a call with a timeout of half a second and its repetitions may take on any machine."""


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server that a test may set up as it likes."""
    server = Server()
    yield server
    server.stop()


# --- a server that does not answer ------------------------------------------------------------------


def test_a_server_that_hangs_ends_calls_after_the_timeout_and_is_named(own_server: Server) -> None:
    broker = open_broker(Place(own_server.url, "mrq"), timeout=TIMEOUT)
    [job] = broker.enqueue([new_job()])
    own_server.signal(signal.SIGSTOP)
    try:
        for call in (lambda: broker.enqueue([new_job()]), lambda: claim(broker), broker.totals):
            began = time.monotonic()
            with pytest.raises(BrokerUnavailable, match=f"127.0.0.1:{own_server.port}.* 0.5 s"):
                call()
            assert TIMEOUT / 2 < time.monotonic() - began < PATIENCE
    finally:
        own_server.signal(signal.SIGCONT)
    assert broker.get([job.id]) != [None]
    broker.close()


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
        taken.update(record.id for record in claim(broker).records)
        return len(taken)

    until(lambda: take() == 3, what="the lost claims to come again")
    check_keys(broker)
    broker.close()


# --- a server that refuses --------------------------------------------------------------------------


def test_no_message_has_a_password_in_it(own_server: Server) -> None:
    with own_server.client() as client:
        client.config_set("requirepass", "right")
    for login in ("user:geheim@", ":geheim@", ""):
        for address in (f"127.0.0.1:{own_server.port}/0", "127.0.0.1:1/0"):
            url = f"redis://{login}{address}"
            broker = open_broker(Place(url, "mrq"), timeout=1.0)
            with pytest.raises(BrokerUnavailable) as raised:
                broker.prepare()
            for text in (str(raised.value), repr(raised.value), *(one.message for one in broker.check())):
                assert "geheim" not in text
                assert address in text or "BrokerUnavailable" not in text
            broker.close()


def test_a_database_that_the_server_does_not_have_is_an_error(own_server: Server) -> None:
    broker = open_broker(Place(own_server.url.replace("/0", "/99"), "mrq"))
    with pytest.raises(BrokerError, match=r"/99.*(out of range|invalid DB)"):
        broker.enqueue([new_job()])
    assert [finding.level for finding in broker.check()] == ["error"]
    broker.close()


def test_a_user_without_the_right_to_run_scripts_is_told_so(own_server: Server) -> None:
    with own_server.client() as client:
        client.execute_command("ACL", "SETUSER", "reader", "on", ">pass", "~*", "+@read", "+@connection")
    broker = open_broker(Place(own_server.url.replace("//", "//reader:pass@"), "mrq"))
    with pytest.raises(CallRefused, match="ACL"):
        broker.enqueue([new_job()])
    broker.close()


# --- lost replies, threads and processes ------------------------------------------------------------


def test_many_lost_replies_leave_every_count_right(proxy: Proxy, place: Place) -> None:
    broker = open_broker(replace(place, url=f"redis://127.0.0.1:{proxy.port}/0"))
    broker.enqueue([new_job("other")])
    for name in ("enqueue", "claim", "settle", "renew", "read", "replace", "prune") * 3:
        lose_reply_to(proxy, name)
        for step in (
            lambda: broker.enqueue([new_job() for _ in range(3)]),
            lambda: broker.settle([success(one) for one in claim(broker, lease=0.05, limit=2).records]),
            lambda: broker.cancel([one.id for one in claim(broker, lease=0.05, limit=1).records], Cancel()),
            broker.prune,
        ):
            try:
                step()
            except BrokerUnavailable:
                pass
    assert proxy.lost >= 15
    check_keys(broker)
    until(lambda: not _rest_of(broker), what="all jobs to end")
    check_keys(broker)
    broker.close()


def _rest_of(broker: RedisBroker) -> int:
    broker.settle([success(one) for one in claim(broker, lease=0.05).records])
    totals = broker.totals().by_queue["q"]
    return totals.get(Status.QUEUED, 0) + totals.get(Status.STARTED, 0)


def test_a_child_and_its_parent_do_not_hear_each_others_replies(place: Place) -> None:
    broker = place.open()
    jobs = [answer.id for answer in broker.enqueue([new_job() for _ in range(40)])]
    taken: list[str] = []
    waiter = threading.Thread(target=lambda: broker.wait([Wanted(name="nothing")], 60.0))
    waiter.start()
    # Until nothing is under way: where threads are greenlets, the child has a copy of this one.
    until(lambda: _is_blocked(place), what="the waiter to wait")
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
    broker.enqueue([new_job("nothing")])
    waiter.join()
    assert sorted(taken) == sorted(jobs)
    check_keys(broker)
    broker.close()


def _is_blocked(place: Place) -> bool:
    with redis.Redis.from_url(place.url) as client:
        return bool(dict(client.info("clients"))["blocked_clients"])


def _claim_in_child(broker: RedisBroker, answers: multiprocessing.SimpleQueue[list[str]]) -> None:
    answers.put([record.id for _ in range(10) for record in claim(broker, limit=1).records])


@pytest.mark.parametrize("kind", [redis.exceptions.MovedError, redis.exceptions.AskError])
def test_a_node_of_a_cluster_is_named_with_the_url_that_it_needs(kind: type[Exception]) -> None:
    error = translated(kind("6583 127.0.0.1:7962"), "redis://127.0.0.1:7961", 1.0)
    assert "is a node of a cluster" in str(error)
    assert "needs redis+cluster:// in the URL" in str(error)


@pytest.mark.parametrize("alert", ["tlsv13 alert certificate required", "tlsv1 alert unknown ca"])
def test_a_server_that_wants_a_certificate_of_its_clients_is_told_so(alert: str) -> None:
    text = f"Error 1 connecting to 127.0.0.1:7944. [SSL] {alert} (_ssl.c:2580)."
    error = translated(redis.exceptions.ConnectionError(text), "rediss://127.0.0.1:7944", 1.0)
    assert "ssl_certfile=" in str(error)
    assert "redis://" not in str(error).partition("ssl_certfile")[0].partition("7944")[2]


@pytest.mark.parametrize("answer", [b"-ERR upstream failure", b"-TRYAGAIN Multiple keys during rehashing"])
def test_an_outcome_is_kept_while_a_proxy_refuses_calls(
    own_server: Server, tmp_path: Path, answer: bytes
) -> None:
    with (
        Proxy(own_server.port) as proxy,
        open_project(tmp_path, f"redis://127.0.0.1:{proxy.port}?prefix=mrq") as project,
    ):
        project.write("tasks.py", WAITS_FOR_GO)
        job = project.queue("tasks.waits")
        worker = project.start("worker", "--greenlets", "2")
        until((tmp_path / "began").exists, what="the job")
        proxy.refuse(b"EVALSHA", answer + b"\r\n")
        (tmp_path / "go").touch()
        worker.until_output("job.success")
        before = proxy.refused
        until(lambda: proxy.refused > before + 12, what="calls that are refused")
        proxy.refuse_nothing()
        record = project.ended(job)
        assert (record.status, record.result, record.claims) == (Status.SUCCESS, "done", 1)
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0
        assert "given_up" not in worker.output


@pytest.mark.parametrize(
    "text",
    [
        "unknown command 'ZREVRANGEBYLEX', with args beginning with: 'x'",
        "Command # 1 (TYPE {mrq}:state:pauses) of pipeline caused error: unknown command 'TYPE'",
        "unknown command `ZLEXCOUNT`",
    ],
)
def test_every_command_that_a_sentinel_does_not_know_tells_that_it_is_one(text: str) -> None:
    error = translated(redis.exceptions.ResponseError(text), "redis://127.0.0.1:26379", 1.0)
    assert "it is a sentinel, which needs redis+sentinel://" in str(error)
