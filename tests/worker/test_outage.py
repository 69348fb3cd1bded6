"""The trials of workers that have lost their broker, and what their logs say."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import gevent
import pytest

from mrq_core.contract.messages import Cancel
from mrq_core.contract.record import Status
from mrq_core.errors import BrokerUnavailable, CallRefused
from mrq_core.worker import outage
from mrq_core.worker.outage import Outage
from tests import brokers
from tests.redis.servers import Server as RedisServer
from tests.servers import ServerProcess
from tests.support import open_project, until
from tests.worker.conftest import TASKS

WORKERS = 50
WINDOW, IN_WINDOW = 0.1, 10
BACK_WITHIN = 5.0


class Server:
    """A broker that is away until a time. Notes when each worker meets it again."""

    def __init__(self, seconds: float) -> None:
        self.back_at = time.monotonic() + seconds
        self.calls: list[float] = []
        self.arrivals: list[float] = []

    def call(self) -> None:
        now = time.monotonic()
        self.calls.append(now)
        if now < self.back_at:
            raise BrokerUnavailable("away")
        self.arrivals.append(now)


def follow(server: Server, steps: tuple[str, ...] = ("claim", "settle", "poll")) -> Outage:
    """Starts the loops of one worker, which call the server until it is back."""
    followed = Outage(on_end=lambda: None)

    def loop(step: str) -> None:
        is_back = False
        while not is_back:
            if not followed.may_call(step):
                followed.wait()
                is_back = not followed.is_on
                continue
            try:
                server.call()
            except BrokerUnavailable as error:
                followed.failed(step, error)
            else:
                followed.worked(step)
                is_back = True

    for step in steps:
        gevent.spawn(loop, step)
    return followed


def wait_until(condition: Callable[[], bool]) -> None:
    """Runs the greenlets until the condition holds. Fails after 20 seconds."""
    with gevent.Timeout(20):
        gevent.sleep(0.01)  # the loops start
        while not condition():
            gevent.sleep(0.01)


def most_in_a_window(arrivals: list[float]) -> int:
    """The largest number of arrivals within any 100 ms."""
    arrivals = sorted(arrivals)
    return max(sum(first <= other < first + WINDOW for other in arrivals) for first in arrivals)


@pytest.mark.parametrize("seconds", [0.3, 3.0])
def test_fifty_workers_do_not_come_back_at_the_same_moment(seconds: float) -> None:
    server = Server(seconds)
    followed = [follow(server) for _ in range(WORKERS)]
    wait_until(lambda: all(not one.is_on for one in followed))
    assert len(server.arrivals) == WORKERS  # one trial of each worker, and not one of each step
    assert most_in_a_window(server.arrivals) <= IN_WINDOW
    assert max(server.arrivals) < server.back_at + BACK_WITHIN


def test_a_worker_tries_one_step_at_a_time_and_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("FIRST_MOST", 0.2), ("LEAST", 0.2), ("MOST", 0.4)):
        monkeypatch.setattr(outage, name, seconds)
    server = Server(3.0)
    followed = follow(server)
    wait_until(lambda: not followed.is_on)
    trials = server.calls[3:]  # each step fails once before it waits
    assert 7 < len(trials) <= 17
    assert min(later - earlier for earlier, later in pairwise(trials)) > 0.19


def test_a_worker_that_stops_tries_often(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(1.0)
    followed = follow(server, ("settle",))
    gevent.sleep(0.05)
    followed.hurry()
    wait_until(lambda: not followed.is_on)
    assert server.arrivals[0] - server.back_at < 0.4
    assert len(server.calls) < 100


def test_a_step_that_has_not_failed_says_nothing_about_the_outage(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mrq.worker")
    followed = Outage(on_end=lambda: None)
    followed.failed("settle", BrokerUnavailable("full"))
    followed.worked("poll")  # which reads only
    followed.failed("claim", BrokerUnavailable("full"))
    assert followed.steps == {"settle", "claim"}
    followed.worked("settle")
    assert followed.steps == {"claim"}
    followed.worked("claim")
    assert followed.steps == set()
    events = [record.getMessage().split()[0] for record in caplog.records]
    assert events == ["broker.away", "broker.back"]


def test_a_broker_that_refuses_claims_stays_away_and_takes_outcomes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, seconds in (("FIRST_MOST", 0.05), ("LEAST", 0.05), ("MOST", 0.1), ("_OTHERS_AFTER", 0.3)):
        monkeypatch.setattr(outage, name, seconds)
    caplog.set_level(logging.INFO, "mrq.worker")
    followed = Outage(on_end=lambda: None)
    called = dict.fromkeys(("claim", "settle", "poll"), 0)
    are_refused = True

    def loop(step: str) -> None:
        while True:
            if not followed.may_call(step):
                followed.wait()
                continue
            called[step] += 1
            if step == "claim" and are_refused:
                followed.failed(step, BrokerUnavailable("refused"))
            else:
                followed.worked(step)
            gevent.sleep(0.01)

    loops = [gevent.spawn(loop, step) for step in called]
    wait_until(lambda: called["claim"] > 20)
    followed.failed("renew", BrokerUnavailable("away"))  # as in the native thread, which does not ask
    followed.worked("renew")
    wait_until(lambda: called["claim"] > 30)
    assert called["settle"] > called["claim"]  # once it has worked, it waits no more
    assert followed.is_on
    are_refused = False
    wait_until(lambda: not followed.is_on)
    gevent.killall(loops)
    events = [record.getMessage().split()[0] for record in caplog.records]
    assert events == ["broker.away", "broker.back"]


def test_an_outage_ends_without_a_step_that_has_nothing_more_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "_ASKS_WITHIN", 0.1)
    followed = Outage(on_end=lambda: None)
    followed.failed("claim", BrokerUnavailable("away"))  # then all greenlets are busy
    gevent.sleep(0.15)
    followed.worked("poll")
    assert not followed.is_on


def test_the_log_tells_an_outage_once_and_its_end_once(own_server: ServerProcess, tmp_path: Path) -> None:
    with open_project(tmp_path, own_server.url) as project:
        project.write("tasks.py", TASKS)
        running = project.queue("tasks.noted", {"word": "x", "seconds": 3})
        worker = project.worker("--greenlets", "2", "--lease", "60", "--broker-timeout", "1")
        until(lambda: project.ledger() == ["start-x"], what="the job to start")
        for number in (1, 2):
            own_server.kill()
            until(lambda: worker.output.count("broker.away") >= number, what="the outage")  # noqa: B023
            away = time.monotonic()
            until(lambda: time.monotonic() > away + 6.0, what="some trials")  # noqa: B023
            own_server.start()
            back = time.monotonic()
            job = project.queue("tasks.Add", {"a": 1, "b": 1})
            assert project.ended(job).result == 2
            assert time.monotonic() < back + BACK_WITHIN
            until(lambda: worker.output.count("broker.back") >= number, what="the return")  # noqa: B023
        assert project.ended(running).claims == 1
        lines = [line for line in worker.output.splitlines() if " WARNING " in line or " ERROR " in line]
        events = [line.split(" - ", 1)[1].split()[0] for line in lines]
        assert events == ["broker.away", "broker.back"] * 2


TALKING = """
import pathlib
import time

from mrq_core import log, set_current_job_progress, task


@task
def talk():
    wait_for("speak")
    log.warning("a line in the outage")
    set_current_job_progress(0.5)
    wait_for("end")


def wait_for(name):
    while not pathlib.Path(name).exists():
        time.sleep(0.01)
"""


@pytest.mark.parametrize("name", ["redis", pytest.param("redis+mongo", marks=pytest.mark.campaign)])
def test_logs_and_progress_are_stored_while_claims_are_refused(name: str, tmp_path: Path) -> None:
    server = RedisServer()
    address = brokers.address_of(name, tmp_path)
    try:
        with (
            server.client() as client,
            open_project(tmp_path, f"{server.url}?prefix=talk", address.store) as project,
        ):
            project.write("talking.py", TALKING)
            job = project.queue("talking.talk")
            worker = project.worker("--greenlets", "2", "--lease", "60")
            until(lambda: project.client.fetch(job).status == Status.STARTED, what="the job to start")
            other = project.queue("talking.talk")
            until(lambda: project.client.fetch(other).status == Status.STARTED, what="no free greenlet")
            third = project.queue("talking.talk")
            client.config_set("maxmemory", "100kb")
            project.client.broker.cancel([other], Cancel(interrupt=True))
            worker.until_output("broker.away")
            project.write("speak", "")
            broker = project.client.broker
            until(lambda: "a line in the outage" in str(broker.read_logs(job).lines), what="the line")
            until(lambda: project.client.fetch(job).progress == 0.5, what="the progress")
            assert "broker.back" not in worker.output
            assert project.client.fetch(third).status == Status.QUEUED
            client.config_set("maxmemory", "0")
            project.write("end", "")
    finally:
        server.stop()


def test_a_refused_claim_lets_the_other_steps_call_at_once() -> None:
    followed = Outage(on_end=lambda: None)
    followed.failed("claim", CallRefused("full"))
    assert followed.may_call("settle")
    followed.worked("settle")
    assert followed.may_call("poll")
    followed.failed("poll", CallRefused("full"))
    assert not followed.may_call("poll")
    assert followed.may_call("settle")
    assert followed.is_on
    followed.failed("poll", BrokerUnavailable("away"))
    assert not followed.may_call("report")


@pytest.mark.parametrize("name", ["redis", pytest.param("redis+mongo", marks=pytest.mark.campaign)])
def test_outcomes_are_stored_at_once_while_claims_are_refused(name: str, tmp_path: Path) -> None:
    server = RedisServer()
    address = brokers.address_of(name, tmp_path)
    try:
        with (
            server.client() as client,
            open_project(tmp_path, f"{server.url}?prefix=talk", address.store) as project,
        ):
            project.write("talking.py", TALKING)
            project.write("speak", "")
            job = project.queue("talking.talk")
            worker = project.worker("--greenlets", "2", "--lease", "60")
            until(lambda: project.client.fetch(job).progress == 0.5, what="the job to wait for its end")
            project.client.queue_job("talking.talk", delay=1.0)
            client.config_set("maxmemory", "100kb")
            worker.until_output("broker.away")
            refused = time.monotonic()
            project.write("end", "")
            until(lambda: project.client.fetch(job).status == Status.SUCCESS, what="the outcome")
            assert time.monotonic() < refused + outage._OTHERS_AFTER / 2
            assert "broker.back" not in worker.output
            client.config_set("maxmemory", "0")
    finally:
        server.stop()
