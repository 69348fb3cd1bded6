"""Counts with a cursor, trees that do not exist, and names of queues whose jobs are gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from mrq_core.contract.broker import Broker
from mrq_core.contract.matching import GROUPS
from mrq_core.contract.messages import Move, RawItem
from mrq_core.contract.queries import JobFilter, Order, QueueCounts
from mrq_core.contract.record import Status
from mrq_core.contract.shared_state import Versions
from mrq_core.errors import InvalidValue
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import (
    Contract,
    bring_to,
    claim,
    put,
    put_many,
    run_in_threads,
    settle,
    started,
)

_PRUNES = 3
"""The calls of `prune` after which a driver has forgotten a name."""

FILTERS: dict[str, dict[str, Any]] = {
    "all": {},
    "statuses": {"statuses": (Status.QUEUED, Status.FAILED)},
    "queues": {"queues": ("a", "t/x")},
    "tree": {"queues": ("t/",)},
    "tree and statuses": {"queues": ("t/", "b"), "statuses": (Status.FAILED,)},
    "paths": {"paths": ("p1",)},
    "type": {"exception_types": ("E1",)},
    "words": {"error_words": ("rare",)},
    "group": {"error_groups": ("g0", "g1")},
    "several": {"queues": ("t/",), "paths": ("p0", "p1"), "statuses": (Status.FAILED, Status.QUEUED)},
    "params": {"params": {"n": 1}},
}


class CountContract(Contract):
    """What `count` promises beyond the numbers, and which names `queue_names` lists."""

    @pytest.mark.parametrize("group_by", [None, *GROUPS])
    @pytest.mark.parametrize("wanted", FILTERS.values(), ids=FILTERS.keys())
    def test_the_numbers_of_a_count_that_goes_on_from_its_cursor_add_up(
        self, broker: Broker, clock: ManualClock, wanted: dict[str, Any], group_by: str | None
    ) -> None:
        fill(broker, clock)
        chosen = JobFilter(**wanted)
        matching = broker.find(chosen, order=Order.OLDEST_FIRST, limit=1000).records
        expected = Counter(str(value) for one in matching if (value := _value(one, group_by)) is not None)
        whole = broker.count(chosen, group_by)
        assert (whole.is_complete, whole.number) == (True, expected.total())
        assert whole.numbers == (dict(expected) if group_by else {"": expected.total()})
        for index in (0, len(matching) // 2, len(matching) - 1):
            rest = broker.count(chosen, group_by, cursor=matching[index].id)
            behind = Counter(
                str(value) for one in matching[index + 1 :] if (value := _value(one, group_by)) is not None
            )
            assert rest.is_complete
            assert rest.numbers == (dict(behind) if group_by else {"": behind.total()})

    def test_a_count_refuses_a_malformed_cursor(self, broker: Broker) -> None:
        with pytest.raises(InvalidValue):
            broker.count(JobFilter(), cursor="x")

    def test_a_tree_that_does_not_exist_has_no_jobs(self, broker: Broker, clock: ManualClock) -> None:
        put_many(broker, clock, 3, "main")
        put(broker, clock, "maim/a")
        filters: tuple[dict[str, Any], ...] = (
            {},
            {"statuses": (Status.QUEUED,)},
            {"params": {}},
            {"workers": ("w",)},
        )
        for more in filters:
            wanted = JobFilter(queues=("main/",), **more)
            page = broker.find(wanted)
            assert (page.records, page.cursor, page.searched_until) == ((), None, None)
            assert broker.count(wanted).numbers == {"": 0}
            assert broker.count(wanted, "queue").numbers == {}
        assert broker.counts(["main/"]) == [QueueCounts(queue="main/")]
        assert broker.queue_names(prefix="main/") == []

    def test_counts_answer_for_many_queues(self, broker: Broker, clock: ManualClock) -> None:
        names = [f"q{number}" for number in range(250)]
        for name in names[::5]:
            put_many(broker, clock, 2, name)
            put(broker, clock, name, delay=100.0)
        found = broker.counts(names)
        assert [one.queue for one in found] == names
        assert {(one.waiting, one.due) for one in found[::5]} == {(3, 2)}
        assert {(one.waiting, one.due) for one in found if one not in found[::5]} == {(0, 0)}

    # --- names of queues -----------------------------------------------------------------------

    @pytest.mark.parametrize("how", ["remove", "prune", "move"])
    def test_the_name_of_a_queue_whose_jobs_are_gone_is_forgotten(
        self, broker: Broker, clock: ManualClock, how: str
    ) -> None:
        put(broker, clock, "kept")
        if how == "prune":
            settle(broker, started(broker, clock, "t/gone"), ttl=1.0)
        else:
            gone = put(broker, clock, "t/gone")
            assert broker.queue_names() == ["kept", "t/gone"]
            if how == "remove":
                broker.remove([gone])
            else:
                broker.move([gone], Move(queue="kept"))
        assert forgets(broker, clock, "t/gone")
        assert broker.queue_names() == ["kept"]
        assert broker.counts(["t/gone"]) == [QueueCounts(queue="t/gone")]
        put(broker, clock, "t/gone")
        assert broker.queue_names() == ["kept", "t/gone"]

    def test_more_names_than_one_prune_examines_are_forgotten(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        gone = [put(broker, clock, f"a{number}") for number in range(25)]
        put(broker, clock, "b")
        gone += [put(broker, clock, f"c{number}") for number in range(25)]
        broker.remove(gone)
        for _ in range(12):
            clock.advance(60.0)
            broker.prune(10)
        assert broker.queue_names() == ["b"]

    @pytest.mark.parametrize("status", list(Status))
    def test_the_name_of_a_queue_stays_while_a_job_has_it(
        self, broker: Broker, clock: ManualClock, status: Status
    ) -> None:
        bring_to(broker, clock, status)
        assert not forgets(broker, clock, "q")
        assert broker.queue_names() == ["q"]

    def test_the_name_of_a_raw_queue_stays_while_it_has_parameters(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        raw = broker.raw("urls_set")
        raw.push([RawItem(param="a")])
        assert not forgets(broker, clock, "urls_set")
        [claimed] = raw.claim(1, 1e6, "w")
        assert not forgets(broker, clock, "urls_set")
        assert raw.settle([claimed], [None]) == [True]
        assert forgets(broker, clock, "urls_set")
        raw.push([RawItem(param="b")])
        assert broker.queue_names() == ["urls_set"]
        assert not forgets(broker, clock, "urls_set")
        assert raw.remove(["b"]) == [True]
        assert forgets(broker, clock, "urls_set")

    def test_a_pause_outlives_the_name_of_its_queue(self, broker: Broker, clock: ManualClock) -> None:
        gone = put(broker, clock)
        broker.pause(["q"])
        broker.remove([gone])
        assert forgets(broker, clock, "q")
        put(broker, clock)
        assert broker.paused() == {"q"}
        assert broker.poll("w", Versions()).paused == frozenset({"q"})

    def test_no_queue_is_forgotten_that_holds_a_job_enqueued_meanwhile(
        self, broker: Broker, broker_factory: Callable[..., Broker], clock: ManualClock
    ) -> None:
        def enqueue(queue: str) -> None:
            for _ in range(15):
                broker.remove([put(broker, clock, queue)])
            put(broker, clock, queue)

        def prune(_: str) -> None:
            other = broker_factory(clock)
            for _step in range(15):
                clock.advance(60.0)
                other.prune()
            other.close()

        names = ["a", "t/b", "t/c"]
        run_in_threads(lambda work, name: work(name), [*((enqueue, name) for name in names), (prune, "")])
        assert broker.queue_names() == names
        assert not forgets(broker, clock, "a")
        assert broker.queue_names() == names


def forgets(broker: Broker, clock: ManualClock, queue: str) -> bool:
    """Whether the next calls of `prune` forget the name."""
    for _ in range(_PRUNES):
        if queue not in broker.queue_names():
            return True
        clock.advance(60.0)
        broker.prune()
    return queue not in broker.queue_names()


def fill(broker: Broker, clock: ManualClock) -> None:
    """Waiting, running, failed and expired jobs in several queues."""
    for number in range(24):
        queue = ("a", "b", "t/x", "t/y")[number % 4]
        put(broker, clock, queue, path=f"p{number % 3}", params={"n": number % 2})
    for number, record in enumerate(claim(broker, "a", "b", "t/", limit=15).records):
        if number % 5 == 0:
            settle(broker, record, ttl=1.0)
        elif number % 5 < 4:
            settle(
                broker,
                record,
                Status.FAILED,
                ttl=1.0 if number % 7 == 0 else 1e6,
                exception_type=f"shop.E{number % 2}",
                exception_message="rare" if number % 3 else "usual",
                error_group=f"g{number % 3}",
            )
    clock.advance(2.0)


def _value(record: Any, group_by: str | None) -> Any:
    return "" if group_by is None else getattr(record, group_by)
