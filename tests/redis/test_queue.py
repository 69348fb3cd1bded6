"""The queue half on Redis keeps its contract, and stores and costs no more than it has to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import redis

from mrq_core.clock import from_ms
from mrq_core.contract.messages import Limit, RawItem, Unique
from mrq_core.contract.pair import Entry, KeyHolder, KeyRequest, Removal
from mrq_core.ids import new_id
from mrq_core.testing import ManualClock
from mrq_core.testing.conformance import QueueContract, QueueFactory
from mrq_core.testing.conformance.queue_kit import (
    TOKEN,
    as_worker,
    claim,
    end,
    ids_of,
    new_entry,
    put,
    put_many,
    ref,
    suspect,
    take,
)
from tests.redis.kit import Place, open_queue
from tests.redis.recount_entries import check_entries
from tests.redis.servers import Server
from tests.redis.test_cost import calls, in_all

EACH = 1000
"""The number of entries in one call."""


class TestRedisQueue(QueueContract):
    @pytest.fixture
    def queue_factory(self, place: Place) -> Iterator[QueueFactory]:
        """Counts everything anew when the test is over."""
        yield partial(open_queue, place)
        queue = place.open_queue()
        check_entries(queue)
        queue.close()


def keys_of(place: Place) -> set[str]:
    with redis.Redis.from_url(place.url) as client:
        start = "{" + place.prefix + "}:"
        return {key.decode()[len(start) :] for key in client.scan_iter(start + "*")}


# --- what is stored -------------------------------------------------------------------------------------


def test_a_waiting_entry_is_a_short_hash_and_a_place_in_a_line(place: Place) -> None:
    queue = place.open_queue()
    entry = put(queue, due_at=from_ms(1_750_000_000_000))
    assert keys_of(place) == {f"j:{entry.id}", "w:0:q", "queues", "wake:q"}
    with redis.Redis.from_url(place.url) as client:
        key = "{" + place.prefix + "}:j:" + entry.id
        assert client.hgetall(key) == {b"q": b"q", b"d": b"1750000000000"}
        assert client.object("encoding", key) in (b"ziplist", b"listpack")
    queue.close()


def test_a_waiting_entry_reclaims_less_than_a_third_of_what_a_job_takes(place: Place, server: Server) -> None:
    queue = place.open_queue()
    put(queue)
    with server.client() as client:
        before = int(dict(client.info("memory"))["used_memory"])
        for _ in range(10):
            put_many(queue, EACH)
        after = int(dict(client.info("memory"))["used_memory"])
    assert (after - before) / (10 * EACH) < 320
    queue.close()


def test_nothing_is_left_of_an_entry_that_was_removed(place: Place) -> None:
    clock = ManualClock()
    queue = place.open_queue(clock)
    first, second = put_many(queue, 2, "t/x", limit_keys=("k",), unique=Unique(key="u"))
    assert ids_of(claim(queue, "t/", limits={"k": Limit(concurrency=1)}).entries) == [first.id]
    assert queue.remove([Removal(id=one.id, version=1) for one in (first, second)]) == [True, True]
    assert {key for key in keys_of(place) if not key.startswith("wake:")} == {"queues"}
    queue.close()


def test_a_released_entry_wakes_a_waiter(place: Place) -> None:
    queue = place.open_queue()
    put(queue)
    [entry] = claim(queue).entries
    assert take(queue) == []  # which deletes the tokens that woke no worker
    assert "wake:q" not in keys_of(place)
    assert queue.release([ref(entry)]) == [True]
    assert "wake:q" in keys_of(place)
    queue.close()


# --- what it costs ----------------------------------------------------------------------------------------


def test_each_batch_is_one_script(place: Place, server: Server) -> None:
    queue = place.open_queue()
    queue.prune(1)
    entries = [new_entry() for _ in range(EACH)]
    keys = [KeyRequest(id=entry.id, unique=Unique(key=entry.id)) for entry in entries]
    held: list[Entry] = []

    def scripts(work: Callable[[], object]) -> int:
        counted = calls(server, work)
        return counted.get("evalsha", 0) + counted.get("eval", 0) - counted.get("script|load", 0)

    def twice(work: Callable[[], object]) -> int:
        """How many scripts the second of two calls runs: the server knows them then."""
        work()
        return scripts(work)

    assert twice(lambda: queue.push(entries)) == 2
    assert twice(lambda: queue.entries(ids_of(entries))) == 2
    assert twice(lambda: queue.reserve(keys)) == 2
    assert twice(lambda: queue.free([(key.unique.key, KeyHolder(id=key.id)) for key in keys])) == 2
    claim(queue, limit=0)
    assert scripts(lambda: held.extend(claim(queue, limit=EACH).entries)) == 1
    assert len(held) == EACH
    assert twice(lambda: queue.renew([ref(entry) for entry in held], 60.0)) == 2
    assert twice(lambda: queue.reclaim([(entry, TOKEN) for entry in held], as_worker("w"))) == 2
    assert twice(lambda: queue.release([ref(entry) for entry in held])) == 2
    assert twice(lambda: queue.remove([Removal(id=entry.id, version=1) for entry in held])) == 2
    assert twice(lambda: queue.prune(EACH)) == 1
    assert twice(queue.now) == 1
    line = queue.raw("urls_raw")
    line.push([RawItem(param=str(number)) for number in range(EACH)])
    claims = line.claim(EACH, 60.0, "w")
    admitted = [(one, Entry(id=one.job_id, queue="q", version=1, due_at=None)) for one in claims]
    assert twice(lambda: queue.admit("urls_raw", admitted, 60.0)) == 2
    queue.close()


def test_calls_cost_the_same_however_long_the_queue_is(place: Place, server: Server) -> None:
    queue = place.open_queue()

    def everything() -> None:
        put_many(queue, 20)
        entries = claim(queue, limit=20).entries
        assert len(entries) == 20
        queue.renew([ref(entry) for entry in entries], 60.0)
        queue.entries(ids_of(entries))
        assert all(queue.release([ref(entry) for entry in entries[:10]]))
        for entry in entries[10:]:
            end(queue, entry)
        queue.counts(["q"])
        queue.prune(10)

    numbers = []
    for queued in (100, 10_000):
        for start in range(0, queued, EACH):
            put_many(queue, min(EACH, queued - start))
        everything()  # the scripts are there by now
        numbers.append(in_all(server, lambda: everything()))
    assert numbers[0] == numbers[1]
    queue.close()


def test_what_is_done_for_each_entry_of_a_batch_is_two_commands(place: Place, server: Server) -> None:
    queue = place.open_queue()
    put(queue)
    assert len(take(queue, limit=1)) == 1
    queue.remove([])
    pushed = calls(server, lambda: put_many(queue, 500))
    entries: list[Entry] = []
    taken = calls(server, lambda: entries.extend(claim(queue, limit=500).entries))
    removals = [Removal(id=entry.id, token=entry.token) for entry in entries]
    removed = calls(server, lambda: queue.remove(removals))
    assert len(entries) == 500
    for counted in (pushed, taken):
        assert (counted["hmget"], counted["hset"]) == (500, 500)
    assert (removed["hmget"], removed["del"]) == (500, 500)
    for counted in (pushed, taken, removed):
        assert sum(number for name, number in counted.items() if name[0] == "z") < 12
    queue.close()


def test_a_claim_is_given_a_bounded_number_of_suspects(place: Place) -> None:
    clock = ManualClock()
    queue = place.open_queue(clock)
    entries = put_many(queue, 50)
    assert len(take(queue, limit=50, lease=1.0)) == 50
    clock.advance(1)
    assert ids_of(claim(queue).suspects) == ids_of(entries[:20])
    queue.close()


def test_a_suspect_that_was_put_off_can_be_renewed_and_taken(place: Place) -> None:
    clock = ManualClock()
    queue = place.open_queue(clock)
    limits = {"k": Limit(concurrency=1)}
    suspect(queue, clock, limit_keys=("k",))
    [seen] = claim(queue, limits=limits).suspects
    put(queue, limit_keys=("k",))
    assert len(take(queue, limits=limits, leave_suspects=True)) == 1
    assert claim(queue, limits=limits).suspects == ()
    assert queue.entries([seen.id]) == [seen]
    assert queue.reclaim([(seen, TOKEN)], as_worker("w2")) == [True]
    queue.close()


def test_an_entry_that_comes_as_claimed_needs_a_lease(place: Place) -> None:
    queue = place.open_queue()
    with pytest.raises(ValueError, match="lease"):
        queue.push([Entry(id=new_id(), queue="q", version=1, due_at=None, token=TOKEN)])
    queue.close()


def test_a_key_of_another_kind_is_not_ended_by_a_period_that_is_over(place: Place) -> None:
    clock = ManualClock()
    queue = place.open_queue(clock)
    first, second = new_id(), new_id()
    queue.reserve([KeyRequest(id=first, unique=Unique(key="k", until="period", period=5.0))])
    clock.advance(5)
    [holder] = queue.reserve([KeyRequest(id=second, unique=Unique(key="k"))])
    queue.prune(10)
    [again] = queue.reserve([KeyRequest(id=first, unique=Unique(key="k"))])
    assert (holder.id, again.id) == (second, second)
    queue.close()
