"""Values that pages share: made once while pages are live, and made anew after each change."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from mrq_core.client.client import Client
from mrq_core.errors import BrokerUnavailable
from mrq_dashboard.sharing import Shared
from tests.dashboard.test_live import Served, Tab
from tests.dashboard.test_live import served as served
from tests.support import until


class Counted:
    """Makes 1, 2, 3, ... and can be held while it makes one."""

    def __init__(self) -> None:
        self.number = 0
        self.go = threading.Event()
        self.go.set()

    def __call__(self) -> int:
        self.number += 1
        made = self.number
        assert self.go.wait(30)
        return made


@pytest.fixture
def shared() -> Shared:
    made = Shared()
    made.is_live = True
    return made


def in_thread(function: Callable[[], int]) -> tuple[threading.Thread, list[object]]:
    said: list[object] = []

    def run() -> None:
        try:
            said.append(function())
        except Exception as error:
            said.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, said


def test_a_value_is_shared_while_it_is_new(shared: Shared) -> None:
    make = Counted()
    assert [shared.get("a", 60.0, make) for _ in range(3)] == [1, 1, 1]
    assert shared.get("b", 60.0, make) == 2
    assert shared.get("a", -1.0, make) == 3


def test_a_value_is_made_for_each_visit_where_nobody_notices_changes() -> None:
    make, shared = Counted(), Shared()
    assert [shared.get("a", 60.0, make) for _ in range(3)] == [1, 2, 3]


def test_of_visits_at_the_same_time_one_makes_the_value(shared: Shared) -> None:
    make = Counted()
    make.go.clear()
    first = in_thread(lambda: shared.get("a", -1.0, make))
    until(lambda: make.number == 1)
    others = [in_thread(lambda: shared.get("a", -1.0, make)) for _ in range(5)]
    make.go.set()
    for thread, said in [first, *others]:
        thread.join()
        assert said == [1] or said[0] in range(2, 7)  # one that came after the first had ended
    assert first[1] == [1]


def test_after_a_change_a_value_that_is_being_made_is_not_shared(shared: Shared) -> None:
    make = Counted()
    make.go.clear()
    thread, said = in_thread(lambda: shared.get("a", 60.0, make))
    until(lambda: make.number == 1)
    shared.forget()
    later, told = in_thread(lambda: shared.get("a", 60.0, make))
    until(lambda: make.number == 2)
    make.go.set()
    thread.join()
    later.join()
    assert (said, told) == ([1], [2])
    assert shared.get("a", 60.0, make) == 2


@pytest.mark.parametrize("error", [BrokerUnavailable("away"), TimeoutError("slow"), ValueError("odd")])
def test_an_error_is_raised_to_those_who_wait_and_is_not_kept(error: Exception, shared: Shared) -> None:
    go, begun = threading.Event(), threading.Event()

    def fail() -> int:
        begun.set()
        assert go.wait(30)
        raise error

    first, said = in_thread(lambda: shared.get("a", 60.0, fail))
    assert begun.wait(30)
    second, told = in_thread(lambda: shared.get("a", 60.0, lambda: 5))
    until(lambda: second.is_alive() and not told)
    go.set()
    first.join()
    second.join()
    assert said == [error]
    assert told in ([error], [5])  # it waited, or came after the first had ended
    assert shared.get("a", 60.0, lambda: 7) in (5, 7)


def test_a_change_of_which_pages_are_told_makes_values_old(served: Served, client: Client) -> None:
    shared, make = served.app.state.site.backend.shared, Counted()
    with Tab(served.address) as tab:
        tab.until("ready")
        for number in range(1, 4):
            assert [shared.get("a", 3600.0, make) for _ in range(2)] == [number, number]
            client.queue_job("a.B", queue="mail")
            tab.until_topics("jobs", "queues", "tasks")
    until(lambda: not shared.is_live)


def test_an_action_makes_values_old(site: TestClient) -> None:
    shared, make = site.app.state.site.backend.shared, Counted()  # type: ignore[attr-defined]
    shared.is_live = True
    assert shared.get("a", 3600.0, make) == 1
    site.post(
        "/views", data={"name": "x", "query": "status:failed"}, headers={"sec-fetch-site": "same-origin"}
    )
    assert shared.get("a", 3600.0, make) == 2
