"""Which queues a worker asks for, and in which order."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mrq_core.contract.messages import Wanted
from mrq_core.errors import ConfigError, InvalidValue
from mrq_core.worker.strategy import Strategy


def names(wanted: tuple[Wanted, ...]) -> list[str]:
    return [one.name for one in wanted]


def test_sequential_asks_for_queues_in_order_without_quotas() -> None:
    strategy = Strategy("sequential", ["a", "b", "a", "c/"])
    for _ in range(3):
        wanted = strategy.wanted(10, frozenset())
        assert names(wanted) == ["a", "b", "c/"]
        assert [one.quota for one in wanted] == [None] * 3


def test_parallel_gives_each_queue_its_share_and_its_turn() -> None:
    strategy = Strategy("parallel,burst", ["a", "b", "c"])
    first = [names(strategy.wanted(10, frozenset()))[0] for _ in range(6)]
    assert sorted(first[:3]) == ["a", "b", "c"]
    assert first[:3] == first[3:]
    assert [one.quota for one in strategy.wanted(10, frozenset())] == [4, 4, 4]
    assert strategy.is_burst


def test_a_queue_in_reverse_is_asked_for_by_its_name() -> None:
    strategy = Strategy("sequential", ["a_reverse", "b", "_reverse", "main/"])
    wanted = strategy.wanted(5, frozenset())
    assert [(one.name, one.reverse) for one in wanted] == [
        ("a", True), ("b", False), ("_reverse", False), ("main/", False)
    ]  # fmt: skip
    assert strategy.queues == ("a", "b", "_reverse", "main/")
    assert names(strategy.wanted(5, frozenset({"a"}))) == ["b", "_reverse", "main/"]


def test_paused_queues_are_left_out_and_paused_subqueues_excluded() -> None:
    strategy = Strategy("sequential", ["a", "tree/", "tree/x", "b"])
    wanted = strategy.wanted(5, frozenset({"a", "tree/x"}))
    assert names(wanted) == ["tree/", "b"]
    assert wanted[0].exclude == {"a", "tree/x"}


@pytest.mark.parametrize(
    ("name", "paused", "expected"),
    [
        ("a", {"a"}, True),
        ("a", {"b"}, False),
        ("a", set(), False),
        ("tree/x", {"tree/"}, True),
        ("tree/x/y", {"tree/"}, True),
        ("tree/", {"tree/"}, True),
        ("tree", {"tree/"}, False),
        ("trees/x", {"tree/"}, False),
        ("tree//", {"tree/"}, True),
        ("a//b", {"a//"}, True),
        ("/", {"/"}, True),
        ("/a", {"/"}, True),
        ("two words/x", {"two words/"}, True),
    ],
)
def test_a_queue_is_paused_by_its_name_or_by_a_tree_around_it(
    name: str, paused: set[str], expected: bool
) -> None:
    wanted = Strategy("sequential", ["other", name]).wanted(1, frozenset(paused))
    assert (names(wanted) == ["other"]) is expected


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Strategy("fast", ["a"]), "sequential, parallel or burst"),
        (lambda: Strategy("sequential,parallel", ["a"]), "burst and one of the others"),
        (lambda: Strategy("sequential", []), "QUEUES is empty"),
    ],
)
def test_a_strategy_that_makes_no_sense_is_refused(make: Callable[[], Strategy], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()


def test_a_queue_name_that_makes_no_sense_is_refused() -> None:
    assert Strategy("sequential", ["two words", "a,b", "main/"]).queues == ("two words", "a,b", "main/")
    with pytest.raises(InvalidValue, match="expected a name of 1 to 200 characters"):
        Strategy("sequential", ["high", ""])
