"""The store when replies of the server get lost: what was written is written once, and the caller told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest
from pymongo.errors import AutoReconnect

from mrq_broker_mongo.jobs import recounting
from mrq_broker_mongo.store import MongoStore
from mrq_core import failpoints
from mrq_core.contract import lifecycle
from mrq_core.contract.messages import Note
from mrq_core.contract.pair import Replacement, StoredJob, WriteResult
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.shared_state import Versions
from mrq_core.errors import BrokerUnavailable
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import LEASE, new_job
from mrq_core.testing.conformance.store_kit import (
    FAILURE,
    RETRY,
    SUCCESS,
    entry_of,
    put,
    put_parent,
    read_one,
    settle_one,
    settlement_of,
    start_one,
    succeed_one,
    write_one,
)
from tests.mongo.kit import Place, lose_reply_to, open_store
from tests.mongo.recount import differences
from tests.proxy import Proxy

MOST_PLACES = 50


@dataclass
class Story:
    """Jobs in a store, and a call of another process that loses a reply."""

    store: MongoStore
    clock: ManualClock
    ids: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Puts there what the call needs."""

    def call(self, store: MongoStore) -> Any:
        raise NotImplementedError

    def check(self, answer: Any) -> None:
        """Looks at the answer, where there was one, and at what is stored in any case."""
        raise NotImplementedError

    def statuses(self) -> list[str | None]:
        return [None if one is None else one.record.status.value for one in self.store.read(self.ids)]

    def put(self, number: int, **fields: Any) -> list[str]:
        return [put(self.store, self.clock, **fields) for _ in range(number)]


class Insert(Story):
    """New jobs, one that is there, and one in whose place another has expired."""

    def begin(self) -> None:
        [there, expired] = self.put(2)
        start_one(self.store, self.clock, expired)
        settle_one(self.store, self.clock, expired, SUCCESS)
        self.clock.advance(2000.0)
        self.ids = [there, expired, new_job(self.clock).record.id, new_job(self.clock).record.id]
        self.jobs = [new_job(self.clock, id=job_id, params={"n": 1}) for job_id in self.ids]

    def call(self, store: MongoStore) -> Any:
        return [answer.created for answer in store.insert(self.jobs)]

    def check(self, answer: Any) -> None:
        if answer is None:
            self.call(self.store)
        assert answer in (None, [False, True, True, True])
        found = [read_one(self.store, job_id) for job_id in self.ids]
        assert [one.record.params for one in found] == [{}, {"n": 1}, {"n": 1}, {"n": 1}]
        assert [one.version for one in found] == [1] * 4


class Start(Story):
    """Fresh jobs under two tokens, one that is retried, and one that another worker has."""

    def begin(self) -> None:
        self.ids = self.put(6, params={"n": 1})
        start_one(self.store, self.clock, self.ids[3])
        settle_one(self.store, self.clock, self.ids[3], RETRY)
        found = [read_one(self.store, job_id) for job_id in self.ids]
        self.entries = [entry_of(one, "a" if place % 2 else "b") for place, one in enumerate(found)]
        start_one(self.store, self.clock, self.ids[2])

    def call(self, store: MongoStore) -> Any:
        return store.start(self.entries, worker="w2", lease=LEASE, now=self.clock.now())

    def check(self, answer: Any) -> None:
        assert self.statuses() == ["started"] * 6
        for place, entry in enumerate(self.entries):
            record = read_one(self.store, entry.id).record
            assert (record.token == entry.token) == (place != 2)
            assert record.claims == (2 if place == 3 else 1)
            if answer is not None:
                assert answer[place] == (None if place == 2 else record)


class Succeed(Story):
    """Of jobs that this process has not started, and one that was settled meanwhile."""

    def begin(self) -> None:
        self.ids = self.put(4)
        records = [start_one(self.store, self.clock, job_id) for job_id in self.ids]
        self.settlements = [settlement_of(record, SUCCESS) for record in records]
        assert succeed_one(self.store, self.clock, records[1])

    def call(self, store: MongoStore) -> Any:
        return store.succeed(self.settlements, self.clock.now())

    def check(self, answer: Any) -> None:
        assert answer in (None, [True, False, True, True])
        assert self.statuses() == ["success"] * 4
        assert [read_one(self.store, job_id).version for job_id in self.ids] == [3] * 4


class Write(Story):
    """An end with follow-ups, a job that is to stop, one that is deleted, and one that has changed."""

    def begin(self) -> None:
        self.ids = self.put(4)
        for job_id in self.ids[:2]:
            start_one(self.store, self.clock, job_id)
        found = [read_one(self.store, job_id) for job_id in self.ids]
        now = self.clock.now()
        first, second, _, fourth = (one.record for one in found)
        followups = (new_job(self.clock),)
        self.replacements: list[Replacement[StoredJob]] = [
            Replacement(found[0], lifecycle.settled(first, FAILURE, now), followups),
            Replacement(found[1], lifecycle.settled(second, RETRY, now), ask_to_stop=True),
            Replacement(found[2], None),
            Replacement(found[3], lifecycle.cancelled(fourth, now=now, ttl=50.0)),
        ]
        moved = msgspec.structs.replace(fourth, queue="x")
        assert write_one(self.store, self.clock, found[3], moved) is WriteResult.DONE

    def call(self, store: MongoStore) -> Any:
        return store.write(self.replacements, self.clock.now())

    def check(self, answer: Any) -> None:
        assert answer in (None, [WriteResult.DONE, WriteResult.DONE, WriteResult.DONE, WriteResult.CHANGED])
        if answer is not None:
            assert self.statuses() == ["failed", "retry", None, "queued"]
            assert [read_one(self.store, one).version for one in self.ids if one != self.ids[2]] == [3, 3, 2]
            [(parent, followups)] = self.store.unfinished(10)
            assert (parent, len(followups)) == (self.ids[0], 1)
            assert self.store.poll("w", Versions()).versions.signals > 0


class Annotate(Story):
    def begin(self) -> None:
        self.ids = self.put(2)
        record = start_one(self.store, self.clock, self.ids[0])
        token = record.token or ""
        self.notes = [Note(id=job_id, token=token, progress=0.5) for job_id in self.ids]

    def call(self, store: MongoStore) -> Any:
        return store.annotate(self.notes, self.clock.now())

    def check(self, answer: Any) -> None:
        assert answer == [True, False]
        assert read_one(self.store, self.ids[0]).record.progress == 0.5


class Finish(Story):
    def begin(self) -> None:
        self.ids = [put_parent(self.store, self.clock) for _ in range(3)]
        self.followups = dict(self.store.unfinished(10))

    def call(self, store: MongoStore) -> Any:
        return store.finish(self.ids[0], [one.record.id for one in self.followups[self.ids[0]]])

    def check(self, answer: Any) -> None:
        assert [parent for parent, _ in self.store.unfinished(10)] == self.ids[1:]


class Prune(Story):
    def begin(self) -> None:
        self.ids = self.put(3)
        for job_id in self.ids[:2]:
            start_one(self.store, self.clock, job_id)
            settle_one(self.store, self.clock, job_id, SUCCESS)
        self.clock.advance(2000.0)

    def call(self, store: MongoStore) -> Any:
        return store.prune(10)

    def check(self, answer: Any) -> None:
        assert answer in (None, 2)
        self.clock.advance(61.0)
        self.store.prune(10)
        assert self.statuses() == [None, None, "queued"]


STORIES = [Insert, Start, Succeed, Write, Annotate, Finish, Prune]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(store_place: Place, clock: ManualClock) -> Iterator[MongoStore]:
    store = store_place.open_store(clock)
    store.prepare()
    yield store
    store.close()


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_whichever_reply_is_lost_what_was_written_is_written_once(
    store: MongoStore, clock: ManualClock, store_place: Place, story: type[Story]
) -> None:
    """Where the caller is not told of it, all is as it should be at once."""
    for number in range(MOST_PLACES):
        store_place.clear()
        store.prepare()
        one = story(store, clock)
        mine = open_store(store_place, clock)
        answer = None
        losing = _Losing(number)
        failpoints.hook = losing
        try:
            answer = one.call(mine)
            assert differences(store._connection) == {}
        except BrokerUnavailable:
            pass
        finally:
            failpoints.hook = None
            mine.close()
        one.check(answer)
        recounting.recount(store._connection)
        assert differences(store._connection) == {}
        if losing.left >= 0:
            assert number > 0
            return
    pytest.fail(f"{story.__name__} has more than {MOST_PLACES} places")


class _Losing:
    """Loses the reply with this number."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, name: str) -> None:
        if name.endswith(".after"):
            self.left -= 1
            if self.left == -1:
                raise AutoReconnect("the connection was lost before the reply came")


# --- over the network -------------------------------------------------------------------------------


@pytest.fixture
def behind(proxy: Proxy, store_place: Place, clock: ManualClock) -> Iterator[MongoStore]:
    """A store behind the proxy, prepared and at work."""
    store = open_store(replace(store_place, url=f"mongodb://127.0.0.1:{proxy.port}/mrq"), clock)
    store.prepare()
    yield store
    assert proxy.lost == 1
    assert differences(store._connection) == {}
    store.close()


LOST: list[tuple[type[Story], str]] = [
    (Insert, "insert"),
    (Start, "update"),
    (Succeed, "update"),
    (Write, "update"),
]


@pytest.mark.parametrize(("story", "command"), LOST, ids=lambda one: getattr(one, "__name__", one))
def test_a_call_whose_reply_was_lost_is_repeated_and_answers_as_the_first_time(
    store: MongoStore,
    clock: ManualClock,
    behind: MongoStore,
    proxy: Proxy,
    store_place: Place,
    story: type[Story],
    command: str,
) -> None:
    one = story(store, clock)
    assert behind.count(JobFilter()).numbers[""] > 0
    lose_reply_to(proxy, store_place, command)
    answer = one.call(behind)
    assert answer is not None
    one.check(answer)
