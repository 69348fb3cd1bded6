"""The settler before a broker that fails now and then. gevent is used unpatched here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import gevent
import pytest

from mrq_core.client.client import Client
from mrq_core.config.sources import load_config
from mrq_core.contract.messages import ClaimRequest, Outcome, Settlement, Wanted
from mrq_core.contract.queries import LogLine
from mrq_core.contract.record import JobRecord, Status
from mrq_core.errors import BrokerCorrupt, BrokerError, BrokerUnavailable, RecordTooLarge
from mrq_core.running.context import JobContext
from mrq_core.running.job_log import JobLog
from mrq_core.testing.memory import MemoryBroker
from mrq_core.worker.executions import Execution, job_execution
from mrq_core.worker.native_settling import settle_natively
from mrq_core.worker.settling import Settler
from mrq_core.worker.worker_state import WorkerState


class Failing(MemoryBroker):
    """The in-memory broker, which fails as `fail` says before it does anything."""

    fail: Callable[[Sequence[Settlement]], None] | None = None
    fail_logs: Callable[[], None] | None = None

    def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        if self.fail is not None:
            self.fail(settlements)
        return super().settle(settlements)

    def append_logs(self, lines: Sequence[LogLine], max_size: int) -> None:
        if self.fail_logs is not None:
            self.fail_logs()
        super().append_logs(lines, max_size)


class Bench:
    """A settler at work, and the jobs it is to settle."""

    def __init__(self) -> None:
        config = load_config({"broker": "sqlite:///never-opened"}, environ={})
        self.broker = Failing()
        self.client = Client(config, self.broker)
        self.settled: list[Execution] = []
        state = WorkerState(self.client, on_settled=self.settled.append)
        self.executions = state.executions
        self.settler = Settler(state)
        self.greenlet = gevent.spawn(self.settler.run)

    def run(self, number: int) -> list[Execution]:
        """So many jobs, claimed, with a line in their log, and successful."""
        self.client.queue_jobs("a.B", [{"n": n} for n in range(number)])
        request = ClaimRequest(worker="w", wanted=(Wanted(name="default"),), limit=number, lease=60.0)
        executions = [self._execution(record) for record in self.broker.claim(request).records]
        for n, execution in enumerate(executions):
            execution.context.log.write("INFO", f"line {n}", 0)
            execution.decide(Outcome(status=Status.SUCCESS, result=n, ttl=60.0, total_time=0.1))
            self.executions.ended(execution)
            self.settler.add(execution)
        return executions

    def _execution(self, record: JobRecord) -> Execution:
        execution = job_execution(JobContext(record, self.client, JobLog(record.id, record.claims, 10_000)))
        self.executions.add(execution)
        return execution

    def record(self, execution: Execution) -> JobRecord:
        return self.client.fetch(execution.record.id)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.greenlet.kill()


def test_outcomes_are_kept_while_the_broker_is_away_and_settled_after(bench: Bench) -> None:
    failures: list[int] = []

    def away_twice(settlements: Sequence[Settlement]) -> None:
        if len(failures) < 2:
            failures.append(len(settlements))
            raise BrokerUnavailable("away")

    bench.broker.fail = away_twice
    executions = bench.run(5)
    assert bench.settler.drain(30)
    assert failures == [5, 5]
    assert [bench.record(execution).result for execution in executions] == [0, 1, 2, 3, 4]
    assert len(bench.executions) == 0
    assert bench.settled == executions


def test_logs_that_could_not_be_stored_are_stored_once_later(bench: Bench) -> None:
    failures: list[int] = []

    def away_once() -> None:
        if not failures:
            failures.append(1)
            raise BrokerUnavailable("away")

    bench.broker.fail_logs = away_once
    executions = bench.run(3)
    assert bench.settler.drain(30)
    for n, execution in enumerate(executions):
        assert [line.message for line in bench.broker.read_logs(execution.record.id).lines] == [f"line {n}"]


@pytest.mark.parametrize(
    "error",
    [
        BrokerCorrupt("unreadable"), BrokerError("refused"), RecordTooLarge("16 MB"),
        ValueError("a driver's bug"),
    ],
)  # fmt: skip
def test_one_outcome_that_cannot_be_stored_fails_alone(
    bench: Bench, error: Exception, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not isinstance(error, RecordTooLarge):  # fails at once
        monkeypatch.setattr("mrq_core.worker.settling.KEPT_FOR", 0.3)

    def choke(settlements: Sequence[Settlement]) -> None:
        if any(one.outcome.status is Status.SUCCESS and one.outcome.result == 1 for one in settlements):
            raise error

    bench.broker.fail = choke
    executions = bench.run(3)
    assert bench.settler.drain(30)
    assert [bench.record(e).status for e in executions] == [Status.SUCCESS, Status.FAILED, Status.SUCCESS]
    assert "could not be stored" in (bench.record(executions[1]).traceback or "")
    assert len(bench.executions) == 0
    assert set(bench.settled) == set(executions)
    [failed] = [record for record in caplog.records if record.getMessage().startswith("job.failed ")]
    assert f"id={executions[1].record.id} path=a.B" in failed.getMessage()
    assert failed.getMessage().endswith(f"{type(error).__name__}: {error}")
    assert (failed.levelname, failed.exc_info and failed.exc_info[1]) == ("ERROR", error)
    has_bug = isinstance(error, ValueError)  # a traceback helps its author
    assert any("settle.broke" in record.getMessage() for record in caplog.records) == has_bug


@pytest.mark.parametrize(
    "error",
    [
        BrokerCorrupt("unreadable"), BrokerError("refused"), RecordTooLarge("16 MB"),
        TypeError("of a library"), OSError("none left"),
    ],
)  # fmt: skip
def test_outcomes_are_kept_while_nothing_can_be_settled(
    bench: Bench, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mrq_core.worker.settling._BACKOFF_MOST", 0.05)
    monkeypatch.setattr("mrq_core.worker.settling.KEPT_FOR", 0.2)
    failures: list[int] = []

    def choke(settlements: Sequence[Settlement]) -> None:
        if len(failures) < 30:
            failures.append(len(settlements))
            raise error

    bench.broker.fail = choke
    executions = bench.run(3)
    assert bench.settler.drain(30)
    assert [bench.record(execution).status for execution in executions] == [Status.SUCCESS] * 3
    assert len(bench.executions) == 0


def test_an_outcome_that_alone_is_refused_for_seconds_is_kept(bench: Bench) -> None:
    """Though the broker settles others meanwhile, as one does that an operator keeps from long operations."""
    latest = time.monotonic() + 2.0

    def choke(settlements: Sequence[Settlement]) -> None:
        if any(one.outcome.result == 1 for one in settlements) and time.monotonic() < latest:
            raise BrokerError("operation was interrupted")

    bench.broker.fail = choke
    executions = bench.run(3)
    assert bench.settler.drain(30)
    assert [bench.record(execution).status for execution in executions] == [Status.SUCCESS] * 3


def test_a_success_is_not_turned_into_a_failure_because_the_broker_was_away(bench: Bench) -> None:
    calls: list[int] = []

    def choke_then_away(settlements: Sequence[Settlement]) -> None:
        calls.append(len(settlements))
        if len(calls) == 1:
            raise ValueError("a driver's bug, which passes")
        if len(calls) == 2:
            raise BrokerUnavailable("away")

    bench.broker.fail = choke_then_away
    executions = bench.run(2)
    assert bench.settler.drain(30)
    assert [bench.record(execution).status for execution in executions] == [Status.SUCCESS] * 2


def test_an_outcome_that_is_refused_is_let_go(bench: Bench) -> None:
    def requeue_first(settlements: Sequence[Settlement]) -> None:
        bench.broker.fail = None
        outcome = Outcome(status=Status.QUEUED, delay=0.0)
        bench.broker.settle([Settlement(id=s.id, token=s.token, outcome=outcome) for s in settlements])
        request = ClaimRequest(worker="other", wanted=(Wanted(name="default"),), limit=10, lease=60.0)
        assert bench.broker.claim(request).records

    bench.broker.fail = requeue_first
    executions = bench.run(1)
    assert bench.settler.drain(30)
    assert bench.record(executions[0]).worker == "other"
    assert len(bench.executions) == 0


def test_one_outcome_with_an_error_of_the_system_fails_alone(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mrq_core.worker.settling.KEPT_FOR", 0.3)
    sizes: list[int] = []

    def choke(settlements: Sequence[Settlement]) -> None:
        sizes.append(len(settlements))
        if any(one.outcome.status is Status.SUCCESS and one.outcome.result == 1 for one in settlements):
            raise OSError(90, "Message too long")

    bench.broker.fail = choke
    executions = bench.run(3)
    assert bench.settler.drain(30)
    assert [bench.record(e).status for e in executions] == [Status.SUCCESS, Status.FAILED, Status.SUCCESS]
    assert "Message too long" in (bench.record(executions[1]).traceback or "")
    assert sizes[:2] == [3, 3]
    assert set(sizes[2:]) == {1}  # the other outcomes do not wait for the bad one
    said = {record.getMessage() for record in caplog.records if "settle.failed id=" in record.getMessage()}
    assert said == {
        f"settle.failed id={executions[1].record.id}: the outcome of this job cannot be stored now "
        "error=OSError: [Errno 90] Message too long"
    }
    assert len(bench.executions) == 0


def test_a_process_that_lacks_something_keeps_all_outcomes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def lacks(*given: object) -> None:
        calls.append(len(given))
        if len(calls) < 30:
            raise OSError(24, "Too many open files")

    bench.broker.fail = lacks
    monkeypatch.setattr("mrq_core.worker.settling._BACKOFF_MOST", 0.05)
    executions = bench.run(3)
    assert bench.settler.drain(30)
    assert [bench.record(execution).status for execution in executions] == [Status.SUCCESS] * 3


def test_while_the_hub_is_blocked_one_bad_outcome_does_not_keep_the_others(bench: Bench) -> None:
    def choke(settlements: Sequence[Settlement]) -> None:
        if any(one.outcome.result in bad for one in settlements):
            raise OSError(90, "Message too long")

    bench.broker.fail = choke
    executions = bench.run(3)
    kind = executions[0].kind
    bad = {0, 1, 2}
    with pytest.raises(OSError, match="Message too long"):
        settle_natively(bench.broker, kind, executions, 10_000)
    bad = {1}
    answers = settle_natively(bench.broker, kind, executions, 10_000)
    assert [answers[0], answers[2]] == [True, True]
    assert isinstance(answers[1], OSError)
