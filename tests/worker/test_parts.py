"""Parts of the worker that can be tried without a whole one. gevent is used unpatched here."""

from __future__ import annotations

import threading
from collections.abc import Callable

import gevent
import pytest

from mrq_core.contract.messages import Outcome, Wanted
from mrq_core.contract.record import Status
from mrq_core.errors import ConfigError, InvalidValue, TimeoutInterrupt
from mrq_core.worker.blocking import run_blocking
from mrq_core.worker.strategy import Strategy, is_paused
from tests.worker.records import execution


def test_run_blocking_returns_what_the_function_returns_and_lets_others_run() -> None:
    release = threading.Event()
    seen: list[str] = []

    def other() -> None:
        seen.append("other")
        release.set()

    def block() -> int:
        assert release.wait(10)
        seen.append("blocked")
        return 42

    gevent.spawn(other)
    assert run_blocking(block) == 42
    assert seen == ["other", "blocked"]


def test_run_blocking_raises_what_the_function_raised() -> None:
    def broken() -> None:
        raise LookupError("from the thread")

    with pytest.raises(LookupError, match="from the thread"):
        run_blocking(broken)


def test_run_blocking_is_not_left_before_its_function_has_ended() -> None:
    started, release, ended = threading.Event(), threading.Event(), threading.Event()

    def block() -> None:
        started.set()
        assert release.wait(10)
        ended.set()

    greenlet = gevent.spawn(run_blocking, block)
    while not started.is_set():
        gevent.sleep(0.001)
    had_ended: list[bool] = []
    greenlet.link(lambda _: had_ended.append(ended.is_set()))
    greenlet.kill(block=False)
    gevent.sleep(0)
    release.set()
    while not had_ended:
        gevent.sleep(0.001)
    value: object = greenlet.value
    assert isinstance(value, gevent.GreenletExit)
    assert had_ended == [True]


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
    ],
)
def test_a_queue_is_paused_by_its_name_or_by_a_tree_around_it(
    name: str, paused: set[str], expected: bool
) -> None:
    assert is_paused(name, frozenset(paused)) is expected


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
    with pytest.raises(InvalidValue, match="without spaces"):
        Strategy("sequential", ["two words"])


def test_an_outcome_is_decided_once() -> None:
    one = execution()
    assert one.decide(Outcome(status=Status.SUCCESS, result=1))
    assert not one.decide(Outcome(status=Status.TIMEOUT))
    assert one.outcome == Outcome(status=Status.SUCCESS, result=1)


def test_a_shield_holds_an_interrupt_back_until_it_is_left() -> None:
    context = execution().context
    context.in_code = True
    interrupt = TimeoutInterrupt("too long")
    reached: list[str] = []

    def shielded_code() -> None:
        with context.shield():
            with context.shield():
                assert not context.accept(interrupt, threading.get_ident())
            reached.append("left the inner shield")
        reached.append("left the outer shield")

    with pytest.raises(TimeoutInterrupt):
        shielded_code()
    assert reached == ["left the inner shield"]
    assert context.accept(interrupt, threading.get_ident())
    context.in_code = False
    assert not context.accept(interrupt, threading.get_ident())
