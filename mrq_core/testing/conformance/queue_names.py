"""Names of queues: any text, and trees that contain the queue with the name of the tree."""

from __future__ import annotations

import pytest

from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import ChangeResult, Move, RawItem, Requeue, Wanted
from mrq_core.contract.queries import JobFilter, QueueCounts
from mrq_core.contract.record import Status
from mrq_core.contract.shared_state import Versions
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import (
    Contract,
    claim,
    lose,
    put,
    record_of,
    settle,
    take,
    take_one,
)

NAMES = [
    *("two words", " ", " x ", "a,b", 'say "hi"', "it's", "'", "{}", "{a}b", "*", "?[a-z]", "$x", "a.b"),
    *(
        "/",
        "//",
        "/a",
        "a//b",
        "a/ /b",
        "main/",
        "main/sub/",
        "100% _",
        "\\",
        "a:b",
        "-x",
        "\n",
        "a\tb\x1b[31m",
    ),
    *("größe", "очередь", "\U0001f680", "\U0001f680/\U0001f680", "\ufffd", "\U0010ffff", "\u202e"),
    *("q" * 200, "\U0001f680" * 200),
]


def found(broker: Broker, *queues: str) -> set[str]:
    """The queues of the jobs that a filter by these names finds."""
    return {record.queue for record in broker.find(JobFilter(queues=queues), limit=100).records}


class QueueNameContract(Contract):
    """What every call promises for any name of a queue."""

    @pytest.mark.parametrize("name", NAMES)
    def test_any_text_is_the_name_of_a_queue(self, broker: Broker, clock: ManualClock, name: str) -> None:
        other = put(broker, clock, "other")
        job_id = put(broker, clock, name)
        assert record_of(broker, job_id).queue == name
        assert broker.counts([name])[0].waiting == 1
        assert broker.queue_names() == sorted([name, "other"])
        assert broker.queue_names(prefix=name) == [name]
        assert broker.totals().by_queue[name] == {Status.QUEUED: 1}
        assert found(broker, name) == {name}
        assert broker.count(JobFilter(queues=(name,))).numbers == {"": 1}
        assert broker.count(JobFilter(), "queue").numbers == {name: 1, "other": 1}
        record = take_one(broker, name)
        assert record.id == job_id
        assert broker.counts([name]) == [QueueCounts(queue=name, claimed=1)]
        assert settle(broker, record, Status.RETRY, delay=0.0, is_retry=True)
        assert settle(broker, take_one(broker, name), Status.FAILED, ttl=100.0)
        assert broker.requeue([job_id], Requeue()) == [ChangeResult.DONE]
        assert broker.move([other], Move(queue=name)) == [ChangeResult.DONE]
        assert set(take(broker, name)) == {job_id, other}
        lose(clock)
        assert set(take(broker, name, lost_limit=10)) == {job_id, other}

    def test_any_name_is_paused_and_excluded(self, broker: Broker, clock: ManualClock) -> None:
        broker.pause(NAMES)
        assert broker.paused() == set(NAMES)
        assert broker.poll("w", Versions()).paused == frozenset(NAMES)
        broker.resume(NAMES)
        assert broker.paused() == frozenset()
        subqueues = [f"tree/{number}{name}"[:200] for number, name in enumerate(NAMES, 10)]
        jobs = {name: put(broker, clock, name) for name in subqueues}
        for name in subqueues[::5]:
            excluded = Wanted(name="tree/", exclude=frozenset(subqueues) - {name})
            assert take(broker, excluded) == [jobs[name]]
        assert take(broker, Wanted(name="tree/", exclude=frozenset(subqueues))) == []

    @pytest.mark.parametrize("kind", ["_raw", "_set", "_sorted_set", "_timed_set"])
    def test_any_text_before_its_suffix_names_a_raw_queue(self, broker: Broker, kind: str) -> None:
        if not self.supports_raw:
            pytest.skip("this driver has no raw queues")
        roots = [before + kind for before in ("two words", "a,b", "{}", "\U0001f680", "\n", "*")]
        for name in [name for root in roots for name in (root, f"{root}/", f"{root}/ {root}")]:
            raw = broker.raw(name)
            assert raw.push([RawItem(param="p")]) == [True]
            assert raw.size() == 1
            assert broker.wait([Wanted(name=name)], 0.0)
            [claimed] = raw.claim(1, 60.0, "w")
            assert claimed.param == "p"
            assert raw.size() == 0

    def test_a_tree_contains_the_queue_with_its_name(self, broker: Broker, clock: ManualClock) -> None:
        names = ["main", "main-", "main/", "main/a", "main/a/", "main/a/b", "main0"]
        jobs = {name: put(broker, clock, name) for name in names}
        inside = {"main/", "main/a", "main/a/", "main/a/b"}
        assert found(broker, "main/") == inside
        assert found(broker, "main/a/") == {"main/a/", "main/a/b"}
        assert found(broker, "main/", "main0") == {*inside, "main0"}
        assert broker.count(JobFilter(queues=("main/",))).numbers == {"": 4}
        assert broker.count(JobFilter(queues=("main/",)), "queue").numbers == dict.fromkeys(inside, 1)
        assert set(broker.queue_names(prefix="main/")) == inside
        assert broker.counts(["main/"])[0].waiting == 1
        assert broker.wait([Wanted(name="main/a/")], 0.0)
        assert set(take(broker, "main/a/")) == {jobs["main/a/"], jobs["main/a/b"]}
        assert set(take(broker, "main/")) == {jobs["main/"], jobs["main/a"]}
        assert take(broker, "main/") == []
        assert set(take(broker, "main", "main-", "main0")) == {jobs["main"], jobs["main-"], jobs["main0"]}

    def test_the_queue_with_the_name_of_a_tree_is_claimed_from_like_its_subqueues(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        for name in ("main/", "main/a", "main/b"):
            for _ in range(3):
                put(broker, clock, name)
        first = [record_of(broker, take_one(broker, "main/").id).queue for _ in range(6)]
        assert sorted(first[:3]) == sorted(first[3:]) == ["main/", "main/a", "main/b"]
        assert len(take(broker, "main/")) == 3

    def test_only_jobs_of_the_queue_with_the_name_of_a_tree_are_claimed_in_any_order(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        ids = [put(broker, clock, "main/") for _ in range(4)]
        assert take(broker, "main/", limit=2) == ids[:2]
        assert take(broker, Wanted(name="main/", reverse=True), limit=1) == ids[3:]
        assert take(broker, "main/") == ids[2:3]

    def test_an_excluded_tree_excludes_the_queue_with_its_name(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        put(broker, clock, "main/sub/")
        job_id = put(broker, clock, "main/sub")
        assert take(broker, Wanted(name="main/", exclude=frozenset({"main/"}))) == []
        assert take(broker, Wanted(name="main/", exclude=frozenset({"main/sub/"}))) == [job_id]

    def test_a_delayed_or_lost_job_of_the_queue_with_the_name_of_a_tree_is_due_in_the_tree(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        delayed = put(broker, clock, "main/", delay=5.0)
        answer = claim(broker, "main/")
        assert (answer.records, answer.next_due) == ((), record_of(broker, delayed).due_at)
        clock.advance(5.0)
        assert take(broker, "main/") == [delayed]
        assert claim(broker, "main/").next_due == record_of(broker, delayed).due_at
        lose(clock)
        assert take(broker, "main/") == [delayed]
