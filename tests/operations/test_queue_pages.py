"""Pages of queues, on each broker."""

from __future__ import annotations

from mrq_core.contract.broker import Broker
from mrq_core.operations.queues import QueueOrder, all_names, pause_queues, queue_page
from tests.dashboard.scenes import put, take


def names_of(broker: Broker, order: QueueOrder) -> list[str]:
    return [counts.queue for counts in queue_page(broker, order=order).queues]


def test_queues_are_found_and_paged(each_broker: Broker) -> None:
    for number in range(25):
        put(each_broker, f"Main/{number:02}")
    put(each_broker, "other")
    pause_queues(each_broker, ["gone/", "other"])
    page = queue_page(each_broker, "main", first=10, limit=10)
    assert [counts.queue for counts in page.queues] == [f"Main/{number}" for number in range(10, 20)]
    assert {counts.due for counts in page.queues} == {1}
    assert (page.number, page.total, page.other_paused) == (25, 26, ("gone/",))
    assert page.paused_as("other") == "other"
    assert page.paused_as("Main/10") is None
    assert len(all_names(each_broker)) == 26
    assert queue_page(each_broker, "none").queues == ()


def test_queues_are_ordered(each_broker: Broker) -> None:
    put(each_broker, "later", delay=600.0)
    for queue, number in (("oldest", 1), ("three", 3), ("two", 2)):
        for _ in range(number):
            put(each_broker, queue)
    assert names_of(each_broker, QueueOrder.NAME) == ["later", "oldest", "three", "two"]
    assert names_of(each_broker, QueueOrder.DUE) == ["three", "two", "oldest", "later"]
    assert names_of(each_broker, QueueOrder.WAITING) == ["three", "two", "later", "oldest"]
    assert names_of(each_broker, QueueOrder.OLDEST)[-1] == "later"
    take(each_broker, "two")
    assert names_of(each_broker, QueueOrder.RUNNING)[0] == "two"
