"""Error groups: their numbers, times, trend and order, on each broker."""

from __future__ import annotations

import time
from typing import Any

import pytest

from mrq_core.clock import after
from mrq_core.contract.broker import Broker
from mrq_core.contract.metrics import ERRORS, OVERFLOW, Metric
from mrq_core.contract.record import Status
from mrq_core.contract.terms import error_group
from mrq_core.errors import InvalidValue
from mrq_core.operations.errors import ErrorOrder, error_groups
from mrq_core.operations.queries.search import KnownSuccesses, LastSuccesses
from tests.operations.test_search import ran


def failed(broker: Broker, path: str, kind: str, message: str, status: Status = Status.FAILED) -> str:
    return ran(
        broker,
        status,
        path=path,
        exception_type=kind,
        exception_message=message,
        error_group=error_group(path, kind, "shop:charge"),
    )


def counted(broker: Broker, path: str, kind: str, hours_ago: float, count: int) -> Metric:
    group = error_group(path, kind, "shop:charge")
    at = after(broker.now(), -3600 * hours_ago)
    return Metric(name=ERRORS, at=at, tags=(("group", group), ("task", path)), count=count)


def names(broker: Broker, *args: Any, **more: Any) -> list[str]:
    return [one.exception_type for one in error_groups(broker, *args, **more).groups]


def test_a_group_tells_how_many_since_when_and_why(each_broker: Broker) -> None:
    first = failed(each_broker, "a.B", "shop.NoStock", "old lamps")
    failed(each_broker, "a.B", "shop.NoStock", "lamps", Status.TIMEOUT)
    last = failed(each_broker, "a.B", "shop.NoStock", "no lamps")
    each_broker.record_metrics(
        [
            counted(each_broker, "a.B", "shop.NoStock", 0, 2),
            counted(each_broker, "a.B", "shop.NoStock", 5, 3),
            counted(each_broker, "a.B", "shop.NoStock", 30, 99),
            Metric(name=ERRORS, at=each_broker.now(), tags=OVERFLOW, count=7),
        ]
    )
    [group] = error_groups(each_broker).groups
    assert (group.task, group.exception_type, group.frame) == ("a.B", "shop.NoStock", "shop:charge")
    assert (dict(group.numbers), group.number) == ({Status.FAILED: 2, Status.TIMEOUT: 1}, 3)
    records = each_broker.get([first, last])
    assert [record.ended_at for record in records if record] == [group.first_seen, group.last_seen]
    assert (group.sample_id, group.sample_message) == (last, "no lamps")
    assert (len(group.trend), sum(group.trend), group.trend[-6]) == (24, 5, 3)
    assert group.last_success is None


def test_a_success_of_the_task_after_the_last_error_is_told(each_broker: Broker) -> None:
    ran(each_broker, path="a.B")
    failed(each_broker, "a.B", "E", "x")
    assert error_groups(each_broker).groups[0].last_success is None
    ran(each_broker, path="a.C")
    assert error_groups(each_broker).groups[0].last_success is None
    success = ran(each_broker, path="a.B")
    [record] = each_broker.get([success])
    assert record is not None
    assert error_groups(each_broker).groups[0].last_success == record.ended_at
    known: KnownSuccesses = {record.path: (time.monotonic(), None)}
    kept = LastSuccesses(each_broker, known, seconds=1000.0)
    assert error_groups(each_broker, successes=kept).groups[0].last_success is None
    old = LastSuccesses(each_broker, known, seconds=0.0)
    assert error_groups(each_broker, successes=old).groups[0].last_success == record.ended_at


def test_groups_are_found_ordered_and_paged(each_broker: Broker) -> None:
    for kind, number in (("One", 1), ("Two", 2), ("Three", 3)):
        for _ in range(number):
            failed(each_broker, "a.B", kind, "x")
    failed(each_broker, "a.Other", "Four", "x")
    each_broker.record_metrics(
        [counted(each_broker, "a.B", "One", 2, 5), counted(each_broker, "a.B", "Two", 1, 1)]
    )
    assert names(each_broker, order=ErrorOrder.NUMBER) == ["Three", "Two", "One", "Four"]
    assert names(each_broker) == ["Two", "One", "Three", "Four"]
    assert names(each_broker, order=ErrorOrder.NAME) == ["One", "Three", "Two", "Four"]
    assert names(each_broker, "OTHER charge") == ["Four"]
    assert names(each_broker, "other lamp") == []
    page = error_groups(each_broker, limit=3, order=ErrorOrder.NUMBER)
    assert (len(page.groups), page.total) == (3, 4)
    assert names(each_broker, limit=3, order=ErrorOrder.NUMBER, cursor=page.cursor) == ["Four"]
    assert error_groups(each_broker, limit=3, cursor=page.cursor).cursor is None


def test_a_long_group_takes_task_and_type_from_its_newest_job(each_broker: Broker) -> None:
    path, kind = f"shop.{'T' * 150}", f"shop.{'E' * 150}"
    job_id = failed(each_broker, path, kind, "x")
    [group] = error_groups(each_broker).groups
    assert (group.task, group.exception_type) == (path, kind)
    each_broker.remove([job_id])
    assert error_groups(each_broker).groups == ()


@pytest.mark.parametrize("more", [{"limit": 0}, {"limit": 51}, {"cursor": "x"}, {"cursor": "-1"}])
def test_a_limit_and_a_cursor_are_checked(each_broker: Broker, more: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue, match=r"is .*: expected"):
        error_groups(each_broker, **more)
