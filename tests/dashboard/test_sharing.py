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


class Key:
    """A key that counts how often it is hashed: twice by a visit that makes the value, else once."""

    def __init__(self) -> None:
        self.hashed = 0

    def __hash__(self) -> int:
        self.hashed += 1
        return 1

    def until_all_wait(self, shared: Shared, visits: int) -> None:
        """Waits until one visit makes the value, and all others found that."""
        until(lambda: self.hashed >= visits + 1)
        with shared._lock:
            pass


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
    make, key = Counted(), Key()
    make.go.clear()
    visits = [in_thread(lambda: shared.get(key, -1.0, make)) for _ in range(6)]
    key.until_all_wait(shared, len(visits))
    make.go.set()
    for thread, said in visits:
        thread.join()
        assert said == [1]


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
    go, key = threading.Event(), Key()

    def fail() -> int:
        assert go.wait(30)
        raise error

    visits = [in_thread(lambda: shared.get(key, 60.0, fail)) for _ in range(2)]
    key.until_all_wait(shared, len(visits))
    go.set()
    for thread, said in visits:
        thread.join()
        assert said == [error]
    assert shared.get(key, 60.0, lambda: 7) == 7


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
