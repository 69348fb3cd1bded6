"""A server that has reached its maxmemory: each call is made in full or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest

from mrq_broker_redis.broker import RedisBroker
from mrq_core.clock import SystemClock, from_ms
from mrq_core.contract.messages import (
    Cancel,
    ClaimRef,
    Move,
    NewJob,
    Note,
    Outcome,
    RawItem,
    Remove,
    Requeue,
    Settlement,
    Unique,
)
from mrq_core.contract.metrics import Metric
from mrq_core.contract.queries import JobFilter, LogLine
from mrq_core.contract.record import JobRecord, Status
from mrq_core.errors import BrokerUnavailable
from mrq_core.operations.queue_contents import purge_queue
from tests.redis.kit import Place, open_broker
from tests.redis.recount import check_keys
from tests.redis.servers import Server
from tests.redis.test_connection import claim, new_job, success


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server that a test may set up as it likes."""
    server = Server()
    yield server
    server.stop()


ENDING = {
    *("annotate", "log", "renew", "settle", "settle as retry", "cancel", "interrupt", "remove", "purge"),
    *("prune", "raw renew", "raw settle", "raw end", "raw remove"),
}
"""Calls that free memory, or that a running job cannot do without: a full server takes them."""


class Filled:
    """A broker with something in every structure, and all the calls that change one."""

    def __init__(self, broker: RedisBroker) -> None:
        now = from_ms(SystemClock().now_ms())
        broker.prepare()
        broker.enqueue([new_job("q") for _ in range(3)])
        self.running, self.failing, self.third = claim(broker, limit=3).records
        broker.enqueue([new_job("q")])
        [interrupted] = claim(broker, limit=1).records
        waiting = [answer.id for answer in broker.enqueue([new_job("q") for _ in range(4)])]
        raw = broker.raw("urls_timed_set")
        raw.push([RawItem(param=name, score=1.0) for name in "abcd"])
        visited, leased, held = raw.claim(1, 60.0, "w", 60.0) + raw.claim(2, 60.0, "w")
        failed = Outcome(status=Status.FAILED, ttl=60.0, exception_type="ValueError")
        retry = Outcome(status=Status.RETRY, delay=1.0, is_retry=True)
        assert broker.settle([_ended(self.third, failed)]) == [True]
        line = LogLine(job_id=self.running.id, attempt=1, seq=1, at=now, level="INFO", message="m")
        metric = Metric(name="jobs", at=now)
        ref = ClaimRef(id=self.running.id, token=self.running.token or "")
        note = Note(id=ref.id, token=ref.token, progress=0.5)
        self.calls: dict[str, Callable[[], object]] = {
            "enqueue": lambda: broker.enqueue([new_job("q") for _ in range(3)]),
            "enqueue unique": lambda: broker.enqueue([new_job("q", Unique(key="k"))]),
            "enqueue later": lambda: broker.enqueue([NewJob(record=new_job("t/s").record, delay=9.0)]),
            "claim": lambda: claim(broker, limit=1),
            "renew": lambda: broker.renew([ref], 60.0),
            "annotate": lambda: broker.annotate([note]),
            "settle": lambda: broker.settle([success(self.running)]),
            "settle as retry": lambda: broker.settle([_ended(self.failing, retry)]),
            "requeue": lambda: broker.requeue([self.third.id], Requeue()),
            "cancel": lambda: broker.cancel(waiting[:1], Cancel()),
            "move": lambda: broker.move(waiting[1:2], Move(queue="other")),
            "remove": lambda: broker.remove(waiting[2:3]),
            "log": lambda: broker.append_logs([line], 1000),
            "metrics": lambda: broker.record_metrics([metric]),
            "pause": lambda: broker.pause(["q"]),
            "put": lambda: broker.state.put("n", "a", 1),
            "add": lambda: broker.state.add("n", "c", 1),
            "push": lambda: raw.push([RawItem(param="e", score=1.0)]),
            "raw claim": lambda: raw.claim(1, 60.0, "w"),
            "raw admit": lambda: raw.admit([(leased, new_job("urls_timed_set").record)], 60.0),
            "raw settle": lambda: raw.settle([visited], [5.0]),
            "raw renew": lambda: raw.renew([held], 60.0),
            "raw end": lambda: raw.settle([held], [None]),
            "raw remove": lambda: raw.remove(["d"]),
            "interrupt": lambda: broker.cancel([interrupted.id], Cancel(interrupt=True)),
            "purge": lambda: broker.apply(JobFilter(queues=("other",)), Remove()),
            "prune": lambda: broker.prune(1),
        }


def _ended(record: JobRecord, outcome: Outcome) -> Settlement:
    return Settlement(id=record.id, token=record.token or "", outcome=outcome)


def test_each_call_of_a_full_server_is_made_in_full_or_not_at_all(own_server: Server) -> None:
    place = Place(own_server.url, "mrq")
    broker = open_broker(place)
    filled = Filled(broker)
    calls = filled.calls
    refused = refused_of(own_server, calls, lambda: check_keys(broker))
    assert refused.keys() >= {"enqueue", "claim", "put", "push"}
    assert refused.keys() & ENDING == set()
    for name in refused:
        calls[name]()
        check_keys(broker)
    [settled] = broker.get([filled.running.id])
    assert settled is not None
    assert settled.status is Status.SUCCESS
    broker.close()


def test_a_new_process_purges_the_queues_of_a_full_server(own_server: Server) -> None:
    place = Place(own_server.url, "mrq")
    broker = open_broker(place)
    broker.enqueue([new_job("q") for _ in range(20)])
    broker.raw("urls_set").push([RawItem(param=str(number)) for number in range(20)])
    broker.close()
    with own_server.client() as client:
        client.config_set("maxmemory", "100kb")
    broker = open_broker(place)
    assert purge_queue(broker, "q").jobs == 20
    assert purge_queue(broker, "urls_set").params == 20
    with own_server.client() as client:
        client.config_set("maxmemory", "0")
    check_keys(broker)
    assert broker.count(JobFilter()).number == 0
    broker.close()


def refused_of(
    server: Server, calls: Mapping[str, Callable[[], object]], check: Callable[[], None]
) -> dict[str, str]:
    """Makes the calls, each while the server is full; those that it refused, with what it said, have changed
    nothing."""
    refused: dict[str, str] = {}
    for name, call in calls.items():
        before = everything(server)
        with server.client() as client:
            client.config_set("maxmemory", "100kb")
            try:
                call()
            except BrokerUnavailable as error:
                refused[name] = str(error)
            finally:
                client.config_set("maxmemory", "0")
        if name in refused:
            assert "maxmemory" in refused[name]
            assert everything(server) == before, name
        check()
    return refused


def everything(server: Server) -> dict[bytes, object]:
    """All keys with their values, but for the tokens of those who wait."""
    with server.client() as client:
        return {key: client.dump(key) for key in client.scan_iter("*") if b":wake:" not in key}
