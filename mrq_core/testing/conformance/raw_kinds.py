"""Raw queues: what tells the four kinds apart, and what can be seen and taken away while it waits."""

from __future__ import annotations

import pytest

from mrq_core.contract.broker import Broker
from mrq_core.contract.lifecycle import claim_number
from mrq_core.contract.messages import RawItem
from mrq_core.contract.naming import RawKind
from mrq_core.errors import InvalidValue
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import LEASE, Contract, named
from mrq_core.testing.conformance.raw import KINDS, SETS, admit, params_of, push, take_raw


def seconds(clock: ManualClock) -> float:
    return clock.now_ms() / 1000


def scored(*pairs: tuple[str, float]) -> list[RawItem]:
    return [RawItem(param=param, score=score) for param, score in pairs]


class RawKindContract(Contract):
    """What each kind of raw queue promises."""

    @pytest.fixture(autouse=True)
    def _needs_raw_queues(self) -> None:
        if not self.supports_raw:
            pytest.skip("this driver has no raw queues")

    # --- pushing -----------------------------------------------------------------------------------

    def test_a_list_keeps_what_was_pushed_twice_in_order(self, broker: Broker, clock: ManualClock) -> None:
        raw = broker.raw("a_raw")
        assert raw.push([RawItem(param=param) for param in ("b", "a", "b")]) == [True] * 3
        assert raw.push([RawItem(param="a")]) == [True]
        assert raw.size() == 4
        assert params_of(take_raw(raw)) == ["b", "a", "b", "a"]

    @pytest.mark.parametrize("kind", SETS)
    def test_a_set_holds_each_parameter_once(self, broker: Broker, clock: ManualClock, kind: RawKind) -> None:
        raw = broker.raw(f"a{kind}")
        push(raw, clock, "a", "b")
        again = scored(("a", 1.0), ("c", 2.0), ("c", 3.0))
        assert raw.push(again) == [False, True, False]
        assert raw.size() == 3
        assert sorted(params_of(take_raw(raw))) == ["a", "b", "c"]

    def test_a_set_gives_every_parameter_in_the_end(self, broker: Broker) -> None:
        raw = broker.raw("a_set")
        names = {f"{number:03}" for number in range(50)}
        raw.push([RawItem(param=name) for name in sorted(names)])
        taken: set[str] = set()
        for round_ in range(20):
            taken |= set(params_of(take_raw(raw, limit=5)))
            raw.push([RawItem(param=f"new {round_} {number}") for number in range(2)])
        assert names <= taken

    @pytest.mark.parametrize("kind", [RawKind.SORTED_SET, RawKind.TIMED_SET])
    def test_scores_order_the_parameters(self, broker: Broker, kind: RawKind) -> None:
        raw = broker.raw(f"a{kind}")
        raw.push(scored(("c", 3.5), ("a", -1.0), ("d", 1e9), ("b", 0.25)))
        claims = take_raw(raw)
        assert [(one.param, one.score) for one in claims] == [
            ("a", -1.0),
            ("b", 0.25),
            ("c", 3.5),
            ("d", 1e9),
        ]

    @pytest.mark.parametrize("kind", [RawKind.SORTED_SET, RawKind.TIMED_SET])
    def test_pushing_again_updates_the_score(self, broker: Broker, kind: RawKind) -> None:
        raw = broker.raw(f"a{kind}")
        raw.push(scored(("a", 1.0), ("b", 2.0)))
        assert raw.push(scored(("a", 3.0))) == [False]
        assert raw.peek(10) == scored(("b", 2.0), ("a", 3.0))
        assert params_of(take_raw(raw)) == ["b", "a"]

    # --- timed sets ----------------------------------------------------------------------------------

    def test_a_parameter_of_a_timed_set_is_never_early(self, broker: Broker, clock: ManualClock) -> None:
        raw = broker.raw("a_timed_set")
        raw.push(scored(("later", seconds(clock) + 10), ("now", seconds(clock))))
        assert params_of(take_raw(raw)) == ["now"]
        clock.advance(9.99)
        assert take_raw(raw) == []
        clock.advance(0.01)
        assert params_of(take_raw(raw)) == ["later"]

    def test_with_pushback_the_parameter_stays_and_is_due_again_later(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        raw = broker.raw("a_timed_set")
        push(raw, clock, "a")
        [first] = raw.claim(10, LEASE, "w1", 100.0)
        assert raw.claim(10, LEASE, "w1", 100.0) == []
        assert admit(raw, clock, first) == [True]
        [item] = raw.peek(10)
        assert item.param == "a"
        assert item.score == pytest.approx(seconds(clock) + 100)
        clock.advance(99.9)
        assert raw.claim(10, LEASE, "w1", 100.0) == []
        clock.advance(0.1)
        [second] = raw.claim(10, LEASE, "w1", 100.0)
        assert second.param == "a"
        assert second.job_id != first.job_id
        assert not second.redelivered
        assert admit(raw, clock, second) == [True]
        assert admit(raw, clock, first) == [True]

    def test_with_pushback_a_task_can_change_when_it_is_due_again_or_remove_it(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        raw = broker.raw("a_timed_set")
        push(raw, clock, "a", "b")
        raw.claim(10, LEASE, "w1", 100.0)
        assert raw.push(scored(("a", seconds(clock) + 5))) == [False]
        assert raw.remove(["b"]) == [True]
        clock.advance(5)
        assert params_of(raw.claim(10, LEASE, "w1", 100.0)) == ["a"]
        clock.advance(100)
        assert params_of(raw.claim(10, LEASE, "w1", 100.0)) == ["a"]

    def test_with_pushback_a_late_admit_is_refused_after_the_next_claim(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        raw = broker.raw("a_timed_set")
        push(raw, clock, "a")
        [first] = raw.claim(10, LEASE, "w1", 100.0)
        clock.advance(100)
        [second] = raw.claim(10, LEASE, "w2", 100.0)
        assert claim_number(second.token) > claim_number(first.token)
        assert admit(raw, clock, first) == [False]
        assert admit(raw, clock, second) == [True]
        assert broker.get([first.job_id]) == [None]

    def test_with_pushback_a_renewed_parameter_is_not_due_before_the_lease_ends(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        raw = broker.raw("a_timed_set")
        push(raw, clock, "a")
        [one] = raw.claim(10, LEASE, "w1", 10.0)
        clock.advance(9)
        assert raw.renew([one], LEASE) == [True]
        clock.advance(LEASE - 0.1)
        assert raw.claim(10, LEASE, "w2", 10.0) == []
        assert raw.settle([one], [None]) == [True]
        clock.advance(LEASE)
        assert raw.claim(10, LEASE, "w2", 10.0) == []

    # --- looking -----------------------------------------------------------------------------------------

    @pytest.mark.parametrize("kind", KINDS)
    def test_size_counts_what_waits(self, broker: Broker, clock: ManualClock, kind: RawKind) -> None:
        raw = broker.raw(f"a{kind}")
        assert raw.size() == 0
        push(raw, clock, "a", "b", "c")
        assert raw.size() == 3
        take_raw(raw, limit=1)
        assert raw.size() == 2

    @pytest.mark.parametrize("kind", KINDS)
    def test_peek_shows_what_waits_and_takes_nothing(
        self, broker: Broker, clock: ManualClock, kind: RawKind
    ) -> None:
        raw = broker.raw(f"a{kind}")
        assert raw.peek(10) == []
        push(raw, clock, "a", "b", "c", "d")
        [claimed] = take_raw(raw, limit=1)
        waiting = [item.param for item in raw.peek(10)]
        assert sorted([claimed.param, *waiting]) == ["a", "b", "c", "d"]
        assert [item.param for item in raw.peek(1, 1)] == waiting[1:2]
        assert [item.param for item in raw.peek(10, 2)] == waiting[2:]
        assert raw.peek(10, 3) == []
        assert raw.size() == 3

    @pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not RawKind.SET])
    def test_peek_shows_what_is_claimed_next(self, broker: Broker, clock: ManualClock, kind: RawKind) -> None:
        raw = broker.raw(f"a{kind}")
        push(raw, clock, "a", "b", "c")
        next_ones = [item.param for item in raw.peek(2)]
        assert params_of(take_raw(raw, limit=2)) == next_ones == ["a", "b"]

    @pytest.mark.parametrize("kind", [RawKind.SORTED_SET, RawKind.TIMED_SET])
    def test_a_histogram_counts_scores(self, broker: Broker, kind: RawKind) -> None:
        raw = broker.raw(f"a{kind}")
        names = [(f"{number}", float(score)) for number, score in enumerate((-1, 0, 1, 9, 10, 35, 39, 41))]
        raw.push(scored(*names))
        assert raw.histogram(0.0, 40.0, 4) == [3, 1, 0, 2]
        assert raw.histogram(0.0, 40.0, 1) == [6]
        assert raw.histogram(100.0, 200.0, 2) == [0, 0]

    # --- removing ----------------------------------------------------------------------------------------

    @pytest.mark.parametrize("kind", KINDS)
    def test_what_was_removed_is_not_claimed(self, broker: Broker, clock: ManualClock, kind: RawKind) -> None:
        raw = broker.raw(f"a{kind}")
        push(raw, clock, "a", "b", "c")
        assert raw.remove(["b", "z", "b", "a"]) == [True, False, False, True]
        assert raw.size() == 1
        assert params_of(take_raw(raw)) == ["c"]

    def test_of_equal_parameters_of_a_list_the_first_is_removed(self, broker: Broker) -> None:
        raw = broker.raw("a_raw")
        raw.push([RawItem(param=param) for param in ("a", "b", "a", "c", "a")])
        assert raw.remove(["a", "a"]) == [True, True]
        assert params_of(take_raw(raw)) == ["b", "c", "a"]

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_claimed_parameter_is_not_removed(
        self, broker: Broker, clock: ManualClock, kind: RawKind
    ) -> None:
        raw = broker.raw(f"a{kind}")
        push(raw, clock, "a")
        [one] = take_raw(raw)
        assert raw.remove(["a"]) == [False]
        assert admit(raw, clock, one) == [True]

    # --- names -------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("kind", KINDS)
    def test_subqueues_are_queues_of_the_kind_of_their_root(
        self, broker: Broker, clock: ManualClock, kind: RawKind
    ) -> None:
        root, first, second = (broker.raw(f"a{kind}{sub}") for sub in ("", "/x", "/y"))
        push(first, clock, "a", "b")
        push(second, clock, "a")
        assert (root.size(), first.size(), second.size()) == (0, 2, 1)
        assert first.push(scored(("a", 0.0))) == [kind is RawKind.LIST]
        assert params_of(take_raw(second)) == ["a"]
        assert take_raw(root) == []
        assert first.size() == (3 if kind is RawKind.LIST else 2)

    @pytest.mark.parametrize("kind", KINDS)
    def test_what_waits_in_a_raw_queue_is_known_and_not_waited_for(
        self, broker: Broker, clock: ManualClock, kind: RawKind
    ) -> None:
        assert not broker.wait(named(f"a{kind}/"), 0.0)
        push(broker.raw(f"a{kind}/x"), clock, "a")
        assert broker.queue_names(prefix=f"a{kind}/") == [f"a{kind}/x"]
        assert broker.wait(named("q", f"a{kind}/x"), 0.0)
        assert broker.wait(named(f"a{kind}/"), 0.0)
        assert not broker.wait(named("b_set"), 0.0)

    @pytest.mark.parametrize("name", ["plain", "a_setx", "main/a_set", "_set"])
    def test_a_name_without_the_suffix_is_no_raw_queue(self, broker: Broker, name: str) -> None:
        with pytest.raises(InvalidValue):
            broker.raw(name)

    @pytest.mark.parametrize("kind", KINDS)
    def test_each_delivery_of_a_parameter_is_counted(
        self, broker: Broker, clock: ManualClock, kind: RawKind
    ) -> None:
        raw = broker.raw(f"a{kind}")
        push(raw, clock, "a")
        numbers = []
        for _ in range(4):
            [one] = take_raw(raw)
            numbers.append(claim_number(one.token))
            clock.advance(LEASE)
        assert numbers == [1, 2, 3, 4]
