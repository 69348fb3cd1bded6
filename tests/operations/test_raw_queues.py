"""Raw queues as a dashboard shows them, on each broker."""

from __future__ import annotations

import pytest

from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import RawItem
from mrq_core.contract.naming import RawKind
from mrq_core.errors import InvalidValue
from mrq_core.operations.raw_queues import raw_queue_view, raw_size


def test_the_next_parameters_and_their_number(each_broker: Broker) -> None:
    each_broker.raw("in_raw").push([RawItem(param=f"p{n}") for n in range(30)])
    view = raw_queue_view(each_broker, "in_raw")
    assert (view.kind, view.size, view.future) == (RawKind.LIST, 30, None)
    assert [item.param for item in view.items] == [f"p{n}" for n in range(10)]
    assert raw_size(each_broker, "in_raw") == 30
    with pytest.raises(InvalidValue):
        raw_queue_view(each_broker, "in")


def test_the_future_of_a_timed_set(each_broker: Broker) -> None:
    now = each_broker.now().timestamp()
    seconds = [-60, -1, *range(100, 3600, 100), 5_000, 10_000_000]
    items = [RawItem(param=f"p{after}", score=now + after) for after in seconds]
    each_broker.raw("in_timed_set").push(items)
    future = raw_queue_view(each_broker, "in_timed_set").future
    assert future is not None
    assert (future.seconds, future.overdue, future.later) == (3600.0, 2, 2)
    assert (len(future.numbers), sum(future.numbers)) == (60, 35)


def test_the_future_of_an_empty_timed_set(each_broker: Broker) -> None:
    future = raw_queue_view(each_broker, "in_timed_set").future
    assert future is not None
    assert (sum(future.numbers), future.overdue, future.later) == (0, 0, 0)
