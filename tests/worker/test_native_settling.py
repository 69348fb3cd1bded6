"""Two settle the same outcomes: the settler, in the hub, and the native thread. gevent is used unpatched."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType

import gevent
import pytest

from mrq_core.client.client import Client
from mrq_core.config.settings import Config
from mrq_core.contract.driver import Driver
from mrq_core.contract.messages import ClaimRequest, Outcome, Settlement, Wanted
from mrq_core.contract.queries import LogLine
from mrq_core.contract.record import Status
from mrq_core.errors import BrokerUnavailable
from mrq_core.plugins.hookspecs import hookimpl
from mrq_core.running.context import JobContext
from mrq_core.running.job_log import JobLog
from mrq_core.testing.memory import MemoryBroker
from mrq_core.worker.executions import Execution, job_execution
from mrq_core.worker.native_settling import NativeSettler
from mrq_core.worker.settling import Settler
from mrq_core.worker.standby import Standby
from mrq_core.worker.worker_state import WorkerState
from tests.support import PATIENCE

DONE = Outcome(status=Status.SUCCESS, ttl=60.0)


class Noting(MemoryBroker):
    """The in-memory broker. Notes the calls of both threads, and calls `before` and `after` settling."""

    def __init__(self) -> None:
        super().__init__()
        self.hub = threading.get_ident()
        self.calls: dict[str, list[str]] = {"hub": [], "native": []}
        self.before: Callable[[str], None] = lambda thread: None
        self.after: Callable[[str], None] = lambda thread: None

    @property
    def thread(self) -> str:
        return "hub" if threading.get_ident() == self.hub else "native"

    def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        self.calls[self.thread].append("settle")
        self.before(self.thread)
        answers = super().settle(settlements)
        self.after(self.thread)
        return answers

    def append_logs(self, lines: Sequence[LogLine], max_size: int) -> None:
        self.calls[self.thread].append("logs")
        super().append_logs(lines, max_size)

    def close(self) -> None:
        """Stays open: both threads share this one."""


class Bench:
    """A settler and a native thread at work."""

    def __init__(self) -> None:
        self.broker = broker = Noting()

        @hookimpl
        def mrq_driver() -> Driver:
            return Driver(name="bench", summary="", open_broker=lambda opening: broker)

        module = ModuleType("config")
        setattr(module, mrq_driver.__name__, mrq_driver)
        self.client = Client(Config(broker="bench", module=module))
        self.settled: list[Execution] = []
        self.state = WorkerState(self.client, on_settled=self.settled.append)
        self.settler = Settler(self.state)
        self.native = NativeSettler(self.state, self.settler)
        self.standby = Standby(self.state, [self.native])
        self.greenlet = gevent.spawn(self.settler.run)
        self.standby.start()

    def close(self) -> None:
        self.greenlet.kill()
        self.standby.stop()
        self.native.close()

    def end(self, number: int) -> list[Execution]:
        """Claims jobs, which log a line and end at once."""
        self.client.queue_jobs("a.B", [{"n": n} for n in range(number)])
        request = ClaimRequest(worker="w", wanted=(Wanted(name="default"),), limit=number, lease=60.0)
        executions = []
        for record in self.broker.claim(request).records:
            log = JobLog(record.id, record.claims, 10_000)
            execution = job_execution(JobContext(record, self.client, log))
            log.write("INFO", "a line", 0)
            self.state.executions.add(execution)
            assert execution.decide(DONE)
            self.state.executions.ended(execution)
            self.settler.add(execution)
            executions.append(execution)
        return executions

    def statuses(self, executions: Sequence[Execution]) -> set[Status]:
        return {self.client.fetch(execution.record.id).status for execution in executions}

    def block_until(self, condition: Callable[[], bool]) -> None:
        """Blocks the hub until the native thread makes the condition true."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def assert_counted_once(self, executions: Sequence[Execution]) -> None:
        assert self.settler.drain(PATIENCE)
        assert self.settled == executions
        assert self.state.counts == {"success": len(executions)}
        assert len(self.state.executions) == 0
        for execution in executions:
            lines = self.broker.read_logs(execution.record.id).lines
            assert [line.message for line in lines] == ["a line"]


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def test_the_native_thread_settles_what_the_settler_has_not_begun(bench: Bench) -> None:
    executions = bench.end(3)
    bench.block_until(lambda: bench.statuses(executions) == {Status.SUCCESS})
    assert bench.broker.calls == {"hub": [], "native": ["logs", "settle"]}
    assert bench.settled == []  # counted and observed in the hub only
    bench.assert_counted_once(executions)
    assert bench.broker.calls["hub"] == []


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_batch_with_which_the_hub_is_caught_is_counted_once(bench: Bench, moment: str) -> None:
    caught, go_on = gevent.event.Event(), gevent.event.Event()

    def wait_in_hub(thread: str) -> None:
        if thread == "hub":
            caught.set()
            go_on.wait()

    setattr(bench.broker, moment, wait_in_hub)
    executions = bench.end(3)
    assert caught.wait(PATIENCE)
    bench.block_until(lambda: bool(bench.settler.settled_natively))
    assert bench.statuses(executions) == {Status.SUCCESS}
    go_on.set()
    bench.assert_counted_once(executions)
    assert bench.broker.calls == {"hub": ["logs", "settle"], "native": ["settle"]}


def test_the_first_answer_counts_though_the_job_is_removed_before_the_second(bench: Bench) -> None:
    caught, go_on = gevent.event.Event(), gevent.event.Event()

    def wait_in_hub(thread: str) -> None:
        if thread == "hub":
            caught.set()
            go_on.wait()

    bench.broker.before = wait_in_hub
    executions = bench.end(1)
    assert caught.wait(PATIENCE)
    bench.block_until(lambda: bool(bench.settler.settled_natively))
    bench.broker.remove([executions[0].record.id])
    go_on.set()
    assert bench.settler.drain(PATIENCE)
    assert bench.state.counts == {"success": 1}


def test_a_slow_broker_is_not_asked_twice_while_the_hub_responds(bench: Bench) -> None:
    bench.broker.before = lambda thread: gevent.sleep(1.0)
    executions = bench.end(3)
    bench.assert_counted_once(executions)
    assert bench.broker.calls == {"hub": ["logs", "settle"], "native": []}


def test_outcomes_wait_for_a_broker_that_is_away(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    def away_twice(thread: str) -> None:
        if bench.broker.calls["native"].count("settle") < 3:
            raise BrokerUnavailable("away")

    bench.broker.before = away_twice
    executions = bench.end(3)
    bench.block_until(lambda: bench.statuses(executions) == {Status.SUCCESS})
    bench.assert_counted_once(executions)
    gevent.sleep(0.05)  # the hub logs what the native thread has sent
    assert "thread.broke" not in caplog.text


def test_an_outcome_that_breaks_the_native_settle_is_left_to_the_settler(bench: Bench) -> None:
    def break_there(thread: str) -> None:
        if thread == "native":
            raise ValueError("a driver's bug")

    bench.broker.before = break_there
    executions = bench.end(3)
    bench.block_until(lambda: bench.broker.calls["native"].count("settle") == 4)  # all, and each alone
    assert bench.statuses(executions) == {Status.STARTED}
    block_ends = time.monotonic() + 1.0
    bench.block_until(lambda: time.monotonic() > block_ends)
    assert bench.broker.calls["native"].count("settle") == 4
    bench.assert_counted_once(executions)


def test_the_native_thread_remembers_nothing_that_is_settled(bench: Bench) -> None:
    executions = bench.end(100)
    bench.block_until(lambda: bench.statuses(executions) == {Status.SUCCESS})
    assert len(bench.native._waiting_since) == 100
    bench.assert_counted_once(executions)
    deadline = time.monotonic() + PATIENCE
    while bench.native._waiting_since or bench.native._finished:
        assert time.monotonic() < deadline
        gevent.sleep(0.01)
    assert not bench.settler.settled_natively
