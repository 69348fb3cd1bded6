"""Who is woken, by what, and what is left of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from mrq_core.contract.messages import ClaimRequest, NewJob, Wanted
from tests.redis.kit import Place
from tests.redis.servers import Server
from tests.redis.test_connection import claim, new_job
from tests.support import until

LONG = 30.0
"""Seconds after which a waiter gives up, if no token wakes it before."""


def _waiting(server: Server) -> int:
    with server.client() as client:
        return sum("b" in one["flags"] for one in client.client_list())


def test_one_enqueue_wakes_as_many_as_it_has_jobs(place: Place, server: Server) -> None:
    brokers = [place.open(timeout=60.0) for _ in range(5)]
    before = _waiting(server)
    with ThreadPoolExecutor(5) as pool:
        waiters = [pool.submit(broker.wait, [Wanted(name="q")], LONG) for broker in brokers]
        until(lambda: _waiting(server) == before + 5, what="all to wait")
        brokers[0].enqueue([new_job() for _ in range(2)])
        until(lambda: sum(waiter.done() for waiter in waiters) >= 2, what="two to be woken")
        assert _waiting(server) - before == 3
        brokers[0].enqueue([new_job() for _ in range(3)])
        assert all(waiter.result(LONG) for waiter in waiters)
    for broker in brokers:
        broker.close()


def test_a_delayed_job_shortens_the_wait_of_those_who_wait_already(place: Place, server: Server) -> None:
    broker, other = place.open(timeout=60.0), place.open()
    before = _waiting(server)
    with ThreadPoolExecutor(1) as pool:
        waiter = pool.submit(broker.wait, [Wanted(name="q")], LONG)
        until(lambda: _waiting(server) == before + 1, what="the other to wait")
        other.enqueue([NewJob(record=new_job().record, delay=0.3)])
        assert waiter.result(LONG / 2) is True
    assert len(claim(other).records) == 1
    broker.close()
    other.close()


def test_a_worker_of_another_subqueue_does_not_take_the_token(place: Place, server: Server) -> None:
    first, second, third, other = (place.open(timeout=60.0) for _ in range(4))
    before = _waiting(server)
    with ThreadPoolExecutor(3) as pool:
        pool.submit(first.wait, [Wanted(name="t/a")], 2.0)
        until(lambda: _waiting(server) == before + 1, what="the first to wait")
        pool.submit(second.wait, [Wanted(name="t/x/")], 2.0)
        until(lambda: _waiting(server) == before + 2, what="the second to wait")
        waiter = pool.submit(third.wait, [Wanted(name="t/b")], LONG)
        until(lambda: _waiting(server) == before + 3, what="the third to wait")
        other.enqueue([new_job("t/b")])
        assert waiter.result(LONG / 3) is True
    for broker in (first, second, third, other):
        broker.close()


def test_an_empty_claim_leaves_the_tokens_of_other_subqueues(place: Place, server: Server) -> None:
    broker = place.open()
    broker.enqueue([new_job("t/b")])
    broker.claim(ClaimRequest(worker="w", wanted=(Wanted(name="t/a"),), limit=10, lease=60.0))
    with server.client() as client:
        assert client.llen("{" + place.prefix + "}:wake:t/b") == 1
    broker.close()


def test_what_is_left_out_does_not_wake(place: Place, server: Server) -> None:
    broker, other = place.open(), place.open()
    before = _waiting(server)
    wanted = [Wanted(name="q/", exclude=frozenset({"q/a"})), Wanted(name="p", exclude=frozenset({"p"}))]
    with ThreadPoolExecutor(1) as pool:
        waiter = pool.submit(broker.wait, wanted, 1.0)
        until(lambda: _waiting(server) == before + 1, what="the other to wait")
        other.enqueue([new_job("q/a"), new_job("p")])
        assert waiter.result(LONG) is False
    broker.close()
    other.close()


def test_tokens_do_not_pile_up(place: Place, server: Server) -> None:
    broker = place.open()
    for _ in range(5):
        broker.enqueue([new_job() for _ in range(50)])
    key = "{" + place.prefix + "}:wake:q"
    with server.client() as client:
        assert client.llen(key) == 32
        assert 0 < client.pttl(key) <= 2000
    while claim(broker).records:
        pass
    with server.client() as client:
        assert not client.exists(key)
    broker.close()
