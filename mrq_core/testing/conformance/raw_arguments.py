"""Raw queues: values that no raw queue can have are refused before anything is changed."""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import force_setattr

from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import CHUNK, RawClaim, RawItem
from mrq_core.contract.naming import RawKind
from mrq_core.contract.raw import RawQueue
from mrq_core.errors import InvalidValue
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import LEASE, Contract
from mrq_core.testing.conformance.raw import KINDS, admit, job_of, take_raw

NO_NUMBERS: list[Any] = [
    "1",
    b"1",
    None,
    [1],
    {},
    True,
    False,
    timedelta(seconds=1),
    Decimal(1),
    1j,
    object(),
]
NOT_FINITE: list[Any] = [math.nan, math.inf, -math.inf, 10**400, -(10**400)]
NO_SECONDS = [*(value for value in NO_NUMBERS if value is not None), *NOT_FINITE, -1, -0.001, 1.1e9]
NO_COUNTS = [*NO_NUMBERS, *NOT_FINITE, -1, 1.0, 2**63, 2**31, CHUNK + 1]
NO_TEXTS: list[Any] = [5, None, b"a", True, "a\udcff", ["a"]]


class Number(float):
    """A float whose methods give other values."""

    def __float__(self) -> float:
        return 99.0

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__


class Level(enum.IntEnum):
    ONE = 1


class TextName(str, enum.Enum):  # noqa: UP042 - str() of a member is its name
    PARAM = "a"
    QUEUE = "odd_sorted_set"


class Hostile(list[Any]):
    def __iter__(self) -> Any:
        raise RuntimeError("no iter")


class RawArgumentContract(Contract):
    """What raw queues refuse, whatever their kind."""

    @pytest.fixture(params=KINDS)
    def odd(self, broker: Broker, request: pytest.FixtureRequest) -> RawQueue:
        if not self.supports_raw:
            pytest.skip("this driver has no raw queues")
        return broker.raw(f"odd{request.param}")

    def test_values_that_no_raw_queue_can_have_are_refused(
        self, broker: Broker, odd: RawQueue, clock: ManualClock
    ) -> None:
        assert odd.push([RawItem(param="a"), RawItem(param="b")]) == [True, True]
        [one] = odd.claim(1, LEASE, "w1")
        record = job_of(clock, one)
        is_timed = odd.kind is RawKind.TIMED_SET
        scores = [value for value in NO_NUMBERS if value is not None] + NOT_FINITE
        scores += [1e300, -1e300, 253_402_300_800, -62_135_596_801] if is_timed else []
        pushback = "seconds, from 0 to" if is_timed else "expected it for timed sets only"
        calls: list[tuple[Callable[[], object], str]] = [
            *((lambda v=v: odd.push([good(), RawItem(param="c", score=v)]), "^score is ") for v in scores),
            *((lambda v=v: odd.push([good(), RawItem(param=v)]), "^param is ") for v in NO_TEXTS),
            *((lambda v=v: odd.push(v), "^items (is|has) ") for v in LISTS),
            *((lambda v=v: odd.claim(v, LEASE, "w1"), "^limit is .* from 0 to 1000$") for v in NO_COUNTS),
            *((lambda v=v: odd.claim(1, v, "w1"), "^lease is .*seconds") for v in [*NO_SECONDS, None]),
            *((lambda v=v: odd.claim(1, LEASE, v), "^worker is ") for v in NO_TEXTS),
            *((lambda v=v: odd.claim(1, LEASE, "w1", v), "^pushback is .*" + pushback) for v in NO_SECONDS),
            *((lambda v=v: odd.renew([one], v), "^lease is .*seconds") for v in [*NO_SECONDS, None]),
            *((lambda v=v: odd.renew(v, LEASE), "^claims (is|has) ") for v in LISTS),
            *((lambda v=v: odd.renew([changed(one, **v)], LEASE), words) for v, words in CLAIMS),
            *((lambda v=v: odd.settle([one], [v]), "^due_again is .*seconds") for v in NO_SECONDS),
            *((lambda v=v: odd.settle([one], v), "^due_again (is|has) ") for v in [5, "a", [], [1.0, 2.0]]),
            *((lambda v=v: odd.settle([changed(one, **v)], [None]), words) for v, words in CLAIMS),
            *((lambda v=v: odd.admit([(one, record)], v), "^lease is ") for v in [*NO_SECONDS, None]),
            *((lambda v=v: odd.admit(v, LEASE), "^claims (is|has) ") for v in [*LISTS, [one], [(one, one)]]),
            *((lambda v=v: odd.peek(v), "^limit is .* from 0 to 1000$") for v in NO_COUNTS),
            *((lambda v=v: odd.peek(1, v), "^offset is ") for v in [*NO_NUMBERS, *NOT_FINITE, -1, 2**63]),
            *((lambda v=v: odd.remove([v]), "^param is ") for v in NO_TEXTS),
            *((lambda v=v: odd.remove(v), "^params is ") for v in LISTS[:-1]),
            *((lambda v=v: odd.histogram(v, 1.0, 1), "^start is ") for v in [*NO_NUMBERS, *NOT_FINITE]),
            *((lambda v=v: odd.histogram(0.0, v, 1), "^stop is ") for v in [*NO_NUMBERS, *NOT_FINITE]),
            *((lambda v=v: odd.histogram(0.0, 1.0, v), "^buckets is ") for v in [*NO_COUNTS, 0]),
            (lambda: odd.histogram(-1e308, 1e308, 1), "^start is .*not so far apart"),
            (lambda: odd.histogram(0.0, 1e308, 1000), "^start is .*not so far apart"),
        ]  # fmt: skip
        for call, words in calls:
            with pytest.raises(InvalidValue) as caught:
                call()
            text = str(caught.value)
            assert re.search(words, text), (words, text)
            assert len(text) < 500
            assert text.isprintable()
        [left] = odd.peek(10)
        assert left.param != one.param
        assert odd.settle([one], [None]) == [True]
        assert (odd.size(), broker.totals().by_status()) == (1, {})

    def test_the_ends_of_what_a_raw_queue_can_have_work(
        self, broker: Broker, odd: RawQueue, clock: ManualClock
    ) -> None:
        assert odd.push([]) == []
        assert broker.queue_names() == []
        assert (odd.claim(0, LEASE, "w1"), odd.peek(0), odd.peek(10, 10**12)) == ([], [], [])
        assert (odd.renew([], 0), odd.settle([], []), odd.admit([], 1), odd.remove([])) == ([], [], [], [])
        extremes = {"first": -62_135_596_800, "last": 253_402_300_799}
        odd.push([RawItem(param=param, score=score) for param, score in extremes.items()])
        assert odd.histogram(5, 5, 1) == odd.histogram(7.0, 5, 1) == [0]
        assert sum(odd.histogram(-1e300, 1e300, 1000)) in (0, 2)
        taken = odd.claim(CHUNK, 1e9, "w1")
        assert {one.param for one in taken} >= {"first"}
        assert all(odd.renew(taken, 1e9))
        assert all(odd.settle(taken, [1e9] * len(taken)))
        if odd.kind is RawKind.TIMED_SET:
            odd.push([RawItem(param="again", score=0)])
            assert len(odd.claim(CHUNK, LEASE, "w1", 0)) == 1
            assert len(odd.claim(CHUNK, LEASE, "w1", 1e9)) == 1
        assert take_raw(odd) == []

    def test_plain_values_are_taken_from_subclasses(self, broker: Broker, clock: ManualClock) -> None:
        if not self.supports_raw:
            pytest.skip("this driver has no raw queues")
        queue = broker.raw(TextName.QUEUE)
        assert queue.push([RawItem(param=TextName.PARAM, score=Number(2.5))]) == [True]
        assert queue.push([RawItem(param="b", score=Level.ONE)]) == [True]
        assert queue.histogram(Number(0.0), Number(4.0), Level.ONE) == [2]
        assert [(item.param, item.score) for item in queue.peek(10)] == [("b", 1.0), ("a", 2.5)]
        assert queue.remove([TextName.PARAM]) == [True]
        [one] = queue.claim(Level.ONE, Number(60.0), "w1")
        assert (one.param, broker.queue_names()) == ("b", ["odd_sorted_set"])
        assert admit(queue, clock, one) == [True]


def good() -> RawItem:
    """An item that could be stored, beside one that cannot."""
    return RawItem(param="stored")


LISTS: list[Any] = [5, None, "a", b"a", {"a": 1}, Hostile(), True, [object()]]
CLAIMS: list[tuple[dict[str, Any], str]] = [
    *(({"param": value}, "^param is ") for value in NO_TEXTS),
    *(({"job_id": value}, "^job_id is ") for value in [*NO_TEXTS, "a", "A" * 24]),
    *(({"token": value}, "^token is ") for value in NO_TEXTS),
]


def changed(one: RawClaim, **fields: object) -> RawClaim:
    """A claim with values of another type."""
    other = RawClaim(param=one.param, job_id=one.job_id, token=one.token)
    for name, value in fields.items():
        force_setattr(other, name, value)
    return other
