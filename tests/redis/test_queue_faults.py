"""The queue half when replies are lost, the server is full, or its keys are another arrangement's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from msgspec.structs import replace as changed

from mrq_broker_redis.plugin import mrq_driver
from mrq_broker_redis.queue import RedisQueue
from mrq_broker_redis.server.scripts import script
from mrq_core.clock import SystemClock, from_ms
from mrq_core.contract.driver import Opening
from mrq_core.contract.messages import RawItem, Unique
from mrq_core.contract.pair import Entry, KeyHolder, KeyRequest, Removal
from mrq_core.errors import BrokerUnavailable, ConfigError, SchemaTooNew
from mrq_core.ids import new_id
from mrq_core.testing.conformance.queue_kit import (
    TOKEN,
    as_worker,
    claim,
    claimed,
    entry_of,
    ids_of,
    new_entry,
    put,
    put_many,
    ref,
    take,
    take_one,
)
from tests.proxy import Proxy
from tests.redis.kit import Place, lose_reply_to, open_queue
from tests.redis.recount_entries import check_entries
from tests.redis.servers import Server
from tests.redis.test_full_server import refused_of
from tests.support import until

KEY = Unique(key="k")


# --- lost replies -------------------------------------------------------------------------------------


@pytest.fixture
def far(proxy: Proxy, place: Place, server: Server) -> Iterator[RedisQueue]:
    """A queue behind the proxy, on a server that knows the scripts: the first call counts."""
    with server.client() as client:
        for name in ("push", "claim", "reclaim", "renew", "release", "remove", "reserve", "admit"):
            client.script_load(script(f"entry_{name}").source)
    queue = open_queue(replace(place, url=f"redis://127.0.0.1:{proxy.port}/0"))
    yield queue
    queue.close()


def test_a_push_whose_reply_was_lost_makes_one_entry(proxy: Proxy, far: RedisQueue) -> None:
    put(far, "other")
    entry = new_entry(unique=KEY, limit_keys=("k",))
    lose_reply_to(proxy, "entry_push")
    assert far.push([entry]) == [True]
    assert (proxy.lost, far.counts(["q"])[0].waiting) == (1, 1)
    check_entries(far)


def test_a_renewal_whose_reply_was_lost_is_repeated(proxy: Proxy, far: RedisQueue) -> None:
    entry = claimed(far)
    lose_reply_to(proxy, "entry_renew")
    assert far.renew([ref(entry)], 100.0) == [True]
    assert proxy.lost == 1
    until_ = entry_of(far, entry.id).due_at
    assert until_ is not None
    assert entry.due_at is not None
    assert until_ > entry.due_at


def test_a_release_whose_reply_was_lost_is_repeated_and_answered_as_before(
    proxy: Proxy, far: RedisQueue
) -> None:
    entry = claimed(far)
    lose_reply_to(proxy, "entry_release")
    assert far.release([ref(entry)]) == [True]
    assert (proxy.lost, far.counts(["q"])[0].waiting) == (1, 1)
    again = take_one(far)
    assert far.release([ref(entry)]) == [False]
    assert far.entries([entry.id]) == [again]


def test_a_removal_whose_reply_was_lost_is_repeated_and_does_no_harm(proxy: Proxy, far: RedisQueue) -> None:
    entry = claimed(far, unique=KEY)
    lose_reply_to(proxy, "entry_remove")
    assert far.remove([Removal(id=entry.id, token=entry.token)]) == [False]  # it is gone already
    assert (proxy.lost, far.entries([entry.id])) == (1, [None])
    check_entries(far)


def test_a_reclaim_whose_reply_was_lost_is_repeated_and_answered_as_before(
    proxy: Proxy, far: RedisQueue
) -> None:
    put(far)
    take_one(far, lease=0.001)
    [seen] = until(lambda: claim(far).suspects, what="the lease to end")
    lose_reply_to(proxy, "entry_reclaim")
    assert far.reclaim([(seen, TOKEN)], as_worker("w2")) == [True]
    assert (proxy.lost, entry_of(far, seen.id).token) == (1, TOKEN)


def test_a_reservation_whose_reply_was_lost_is_repeated(proxy: Proxy, far: RedisQueue) -> None:
    job_id = new_id()
    lose_reply_to(proxy, "entry_reserve")
    [holder] = far.reserve([KeyRequest(id=job_id, unique=KEY)])
    assert (proxy.lost, holder.id) == (1, job_id)


def test_an_admission_whose_reply_was_lost_is_repeated(proxy: Proxy, far: RedisQueue) -> None:
    line = far.raw("urls_raw")
    line.push([RawItem(param="a")])
    [one] = line.claim(1, 60.0, "w")
    lose_reply_to(proxy, "entry_admit")
    assert far.admit("urls_raw", [(one, new_entry())], 60.0) == [True]
    assert (proxy.lost, entry_of(far, one.job_id).token) == (1, one.token)


def test_a_claim_whose_reply_was_lost_costs_a_lease_and_no_entry(proxy: Proxy, far: RedisQueue) -> None:
    entry = put(far)
    lose_reply_to(proxy, "entry_claim")
    with pytest.raises(BrokerUnavailable):
        claim(far, lease=0.05)
    [lost] = until(lambda: claim(far).suspects, what="the lease to end")
    assert (lost.id, proxy.lost) == (entry.id, 1)


# --- a full server --------------------------------------------------------------------------------------


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server that a test may set up as it likes."""
    server = Server()
    yield server
    server.stop()


def test_each_call_of_a_full_server_is_made_in_full_or_not_at_all(own_server: Server) -> None:
    place = Place(own_server.url, "mrq")
    queue = place.open_queue()
    waiting = put_many(queue, 3, limit_keys=("k",), unique=KEY) + put_many(queue, 3, "t/x")
    held = [take_one(queue) for _ in range(3)] + [take_one(queue, "t/", lease=0.001)]
    line = queue.raw("urls_raw")
    line.push([RawItem(param="a")])
    [parameter] = line.claim(1, 60.0, "w")
    [lost] = until(lambda: claim(queue, "t/").suspects, what="the lease to end")
    later = from_ms(SystemClock().now_ms() + 60_000)
    calls: dict[str, Callable[[], object]] = {
        "push": lambda: queue.push([new_entry(), new_entry("t/y", unique=Unique(key="other"))]),
        "replace": lambda: queue.push([changed(waiting[0], version=2, due_at=later, queue="t/z")]),
        "renew": lambda: queue.renew([ref(held[1])], 60.0),
        "release": lambda: queue.release([ref(held[1])]),
        "reclaim": lambda: queue.reclaim([(lost, TOKEN)], as_worker("w2")),
        "reserve": lambda: queue.reserve([KeyRequest(id=new_id(), unique=Unique(key="new"))]),
        "claim": lambda: claim(queue, "q", "t/", leave_suspects=True),
        "admit": lambda: queue.admit("urls_raw", [(parameter, new_entry())], 60.0),
        "remove": lambda: queue.remove([Removal(id=held[2].id, version=1, key="k")]),
        "free": lambda: queue.free([("new", KeyHolder(id=held[0].id))]),
        "prune": lambda: queue.prune(10),
    }
    refused = refused_of(own_server, calls, lambda: check_entries(queue))
    assert refused.keys() >= {"push", "claim", "reserve"}
    assert refused.keys() & {"replace", "renew", "release", "remove", "free", "prune"} == set()
    for name in refused:
        calls[name]()
        check_entries(queue)
    queue.close()


# --- arrangements ---------------------------------------------------------------------------------------


def test_the_driver_opens_a_queue(place: Place) -> None:
    open_queue = mrq_driver().open_queue
    assert open_queue is not None
    queue = open_queue(Opening(settings={"REDIS": place.url, "REDIS_PREFIX": place.prefix}))
    queue.prepare()
    entry = new_entry()
    assert queue.push([entry]) == [True]
    assert ids_of([one for one in queue.entries([entry.id]) if one is not None]) == [entry.id]
    queue.close()


def test_a_prefix_that_holds_whole_jobs_is_no_queue_half(place: Place) -> None:
    broker, queue = place.open(), place.open_queue()
    broker.prepare()
    with pytest.raises(ConfigError, match=r"records .* REDIS_PREFIX"):
        queue.prepare()
    [finding] = [one for one in queue.check() if one.subject == "layout"]
    assert finding.level == "error"
    assert "REDIS_PREFIX" in finding.advice
    broker.prepare()
    broker.close()
    queue.close()


def test_a_prefix_that_holds_a_queue_half_is_no_broker(place: Place) -> None:
    broker, queue = place.open(), place.open_queue()
    queue.prepare()
    with pytest.raises(ConfigError, match=r"another store.* STORE"):
        broker.prepare()
    [finding] = [one for one in broker.check() if one.subject == "layout"]
    assert finding.level == "error"
    assert "STORE" in finding.advice
    queue.prepare()
    [finding] = [one for one in queue.check() if one.subject == "layout"]
    assert finding.level == "ok"
    broker.close()
    queue.close()


@pytest.mark.parametrize("layout", ["99 queue", "1 something"])
def test_keys_of_a_newer_version_are_left_alone(place: Place, server: Server, layout: str) -> None:
    with server.client() as client:
        client.set("{" + place.prefix + "}:layout", layout)
    queue = place.open_queue()
    with pytest.raises(SchemaTooNew, match="upgrade"):
        queue.prepare()
    [finding] = [one for one in queue.check() if one.subject == "layout"]
    assert finding.level == "error"
    queue.close()


def test_entries_that_somebody_has_deleted_by_hand_are_passed_over(place: Place, server: Server) -> None:
    queue = place.open_queue()
    first, second = put_many(queue, 2)
    with server.client() as client:
        client.delete("{" + place.prefix + "}:j:" + first.id)
    assert take(queue) == [second.id]
    assert queue.counts(["q"])[0].waiting == 0
    queue.close()


def test_an_entry_of_an_id_that_is_used_twice_in_a_batch_stands_in_one_place(place: Place) -> None:
    queue = place.open_queue()
    first = new_entry()
    versions = [Entry(id=first.id, queue=f"q{number}", version=number, due_at=None) for number in (1, 2, 3)]
    assert queue.push(versions) == [True, True, True]
    assert queue.push(versions) == [False, False, True]
    check_entries(queue)
    queue.close()
