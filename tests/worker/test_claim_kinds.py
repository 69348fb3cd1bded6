"""Lease keeper, settler and last resort serve any kind of claim: here jobs, and raw parameters without a
record. gevent is used unpatched here."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from types import ModuleType

import gevent
import pytest

from mrq_core.client.client import Client
from mrq_core.config.settings import Config
from mrq_core.contract.broker import Broker
from mrq_core.contract.driver import Driver
from mrq_core.contract.messages import ClaimRef, ClaimRequest, Note, Outcome, RawItem, Settlement, Wanted
from mrq_core.contract.record import JobRecord, Status
from mrq_core.errors import BrokerUnavailable
from mrq_core.plugins.hookspecs import hookimpl
from mrq_core.running.context import JobContext
from mrq_core.running.job_log import JobLog
from mrq_core.testing.memory import MemoryBroker
from mrq_core.worker import giving_up
from mrq_core.worker.executions import ClaimKind, Execution, batches, job_execution
from mrq_core.worker.giving_up import GivingUp
from mrq_core.worker.leases import LeaseKeeper
from mrq_core.worker.outcomes import Outcomes
from mrq_core.worker.settling import Settler
from mrq_core.worker.standby import Standby
from mrq_core.worker.stopping import Stopping
from mrq_core.worker.worker_state import WorkerState
from tests.support import PATIENCE

LEASE = 0.6
DONE = Outcome(status=Status.SUCCESS, ttl=60.0)


class Counting(MemoryBroker):
    """The in-memory broker, which notes the size of each call about claims of jobs."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, int]] = []
        self.is_away = False

    def renew(self, claims: Sequence[ClaimRef], lease: float) -> list[bool]:
        self.calls.append(("renew", len(claims)))
        return super().renew(claims, lease)

    def annotate(self, notes: Sequence[Note]) -> list[bool]:
        self.calls.append(("annotate", len(notes)))
        return super().annotate(notes)

    def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        self.calls.append(("settle", len(settlements)))
        if self.is_away:
            raise BrokerUnavailable("away")
        return super().settle(settlements)

    def close(self) -> None:
        """Stays open: all threads share this one."""


class RawClaims(ClaimKind):
    """Claims of raw parameters that have no record: the claim of an execution is a RawClaim."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.calls: list[tuple[str, int]] = []

    def renew(self, broker: Broker, executions: Sequence[Execution], lease: float) -> list[bool]:
        self.calls.append(("renew", len(executions)))
        return broker.raw(self.queue).renew([execution.claim for execution in executions], lease)

    def annotate(self, broker: Broker, executions: Sequence[Execution], progress: Sequence[float]) -> None:
        self.calls.append(("annotate", len(executions)))

    def settle(
        self, broker: Broker, executions: Sequence[Execution], outcomes: Sequence[Outcome]
    ) -> list[bool]:
        self.calls.append(("settle", len(executions)))
        claims = [execution.claim for execution in executions]
        return broker.raw(self.queue).settle(claims, [outcome.delay for outcome in outcomes])


class Bench:
    """The state of a worker that holds jobs and raw parameters."""

    def __init__(self) -> None:
        self.broker = broker = Counting()

        @hookimpl
        def mrq_driver() -> Driver:
            return Driver(name="bench", summary="", open_broker=lambda opening: broker)

        module = ModuleType("config")
        setattr(module, mrq_driver.__name__, mrq_driver)
        self.client = Client(Config(broker="bench", lease=LEASE, module=module))
        assert self.client.broker is broker
        self.settled: list[Execution] = []
        self.state = WorkerState(self.client, on_settled=self.settled.append)
        self.raw = RawClaims("urls_set")

    def hold_jobs(self, number: int) -> list[Execution]:
        self.client.queue_jobs("a.B", [{"n": n} for n in range(number)])
        request = ClaimRequest(worker="w", wanted=(Wanted(name="default"),), limit=number, lease=LEASE)
        return [
            self._hold(job_execution(self._context(record))) for record in self.broker.claim(request).records
        ]

    def hold_parameters(self, number: int) -> list[Execution]:
        queue = self.broker.raw(self.raw.queue)
        queue.push([RawItem(param=f"p{n}") for n in range(number)])
        now = datetime.now(UTC)
        executions = []
        for claim in queue.claim(number, LEASE, "w"):
            record = JobRecord(
                id=claim.job_id, path="a.B", params={"p": claim.param}, queue=self.raw.queue, queued_at=now,
                updated_at=now,
            )  # fmt: skip
            executions.append(self._hold(Execution(self._context(record), self.raw, claim)))
        return executions

    def _context(self, record: JobRecord) -> JobContext:
        return JobContext(record, self.client, JobLog(record.id, record.claims, 10_000))

    def _hold(self, execution: Execution) -> Execution:
        self.state.executions.add(execution)
        return execution

    def status_of(self, executions: Sequence[Execution]) -> list[Status]:
        return [self.client.fetch(execution.record.id).status for execution in executions]

    def claimable(self) -> list[str]:
        """The parameters that another worker can claim now. Claims them."""
        return sorted(claim.param for claim in self.broker.raw(self.raw.queue).claim(100, 60.0, "other"))


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def settler(bench: Bench) -> Iterator[Settler]:
    made = Settler(bench.state)
    greenlet = gevent.spawn(made.run)
    yield made
    greenlet.kill()


def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition that greenlets or native threads make true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        gevent.sleep(0.01)


def settle(bench: Bench, settler: Settler, executions: Sequence[Execution], outcome: Outcome = DONE) -> None:
    for execution in executions:
        assert execution.decide(outcome)
        bench.state.executions.ended(execution)
        settler.add(execution)


def test_executions_are_grouped_by_kind_in_chunks() -> None:
    bench = Bench()
    jobs, parameters = bench.hold_jobs(1), bench.hold_parameters(2)
    assert list(batches([])) == []
    mixed = [parameters[0], jobs[0], parameters[1]]
    assert list(batches(mixed)) == [(bench.raw, parameters), (jobs[0].kind, jobs)]
    assert [len(chunk) for _, chunk in batches(jobs * 2001)] == [1000, 1000, 1]


def test_the_lease_keeper_renews_each_kind_in_one_call_and_notices_lost_claims(bench: Bench) -> None:
    jobs, parameters = bench.hold_jobs(3), bench.hold_parameters(2)
    gone = parameters[0]
    keeper = LeaseKeeper(bench.state)
    standby = Standby(bench.state, [keeper])
    standby.start()
    try:
        # Longer than a lease: without renewals, the claims would be over.
        until(lambda: len(bench.raw.calls) >= 6 and len(bench.broker.calls) >= 6)
        assert set(bench.broker.calls) == {("renew", 3)}
        assert set(bench.raw.calls) == {("renew", 2)}
        assert bench.claimable() == []
        assert bench.broker.raw(bench.raw.queue).settle([gone.claim], [None]) == [True]
        until(lambda: gone.lost)
        until(lambda: bench.raw.calls[-1] == ("renew", 1))
    finally:
        standby.stop()
        keeper.close()
    assert [execution.lost for execution in [*jobs, *parameters]] == [False, False, False, True, False]


class Asking:
    """A duty that asks for the broker all the time, and finds it away."""

    def perform(self, now: float, broker: Callable[[], Broker]) -> None:
        with suppress(BrokerUnavailable):
            broker()


def test_leases_are_renewed_while_other_calls_find_the_broker_away(bench: Bench) -> None:
    """As where one of two servers is away, which has no part in renewals."""
    [job] = bench.hold_jobs(1)
    keeper = LeaseKeeper(bench.state)
    standby = Standby(bench.state, [keeper, Asking()])
    bench.state.outage.failed("poll", BrokerUnavailable("away"))
    standby.start()
    try:
        for number in range(12):
            began = time.monotonic()
            until(lambda number=number: len(bench.broker.calls) > number)  # type: ignore[misc]
            assert time.monotonic() - began < LEASE
            assert bench.state.outage.steps == {"poll"}  # what works says nothing of what does not
    finally:
        standby.stop()
        keeper.close()
    assert not job.lost


def test_the_settler_settles_each_kind_in_one_call(bench: Bench, settler: Settler) -> None:
    jobs, parameters = bench.hold_jobs(3), bench.hold_parameters(4)
    again = Outcome(status=Status.RETRY, delay=0.0)
    settle(bench, settler, [jobs[0], parameters[0], jobs[1], parameters[1], jobs[2]])
    settle(bench, settler, parameters[2:], again)
    assert settler.drain(PATIENCE)
    assert bench.broker.calls == [("settle", 3)]
    assert bench.raw.calls == [("settle", 4)]
    assert bench.status_of(jobs) == [Status.SUCCESS] * 3
    assert bench.claimable() == sorted(execution.claim.param for execution in parameters[2:])
    assert len(bench.state.executions) == 0
    assert bench.state.counts == {"success": 5, "retry": 2}
    assert len(bench.settled) == 7


def test_a_kind_that_cannot_be_settled_does_not_repeat_another(bench: Bench, settler: Settler) -> None:
    jobs, parameters = bench.hold_jobs(2), bench.hold_parameters(2)
    bench.broker.is_away = True
    settle(bench, settler, [*parameters, *jobs])
    until(lambda: len(bench.broker.calls) >= 2)
    bench.broker.is_away = False
    assert settler.drain(PATIENCE)
    assert bench.raw.calls == [("settle", 2)]
    assert bench.status_of(jobs) == [Status.SUCCESS] * 2
    assert bench.state.counts == {"success": 4}


def test_a_refused_outcome_of_any_kind_is_not_counted(bench: Bench, settler: Settler) -> None:
    kept, lost = bench.hold_parameters(2)
    assert bench.broker.raw(bench.raw.queue).remove([lost.claim.param]) == [False]  # it is claimed
    until(lambda: bench.claimable() != [])  # the leases are over, and another worker claims
    settle(bench, settler, [kept, lost])
    assert settler.drain(PATIENCE)
    assert bench.settled == []
    assert len(bench.state.executions) == 0


def test_progress_is_stored_by_kind(bench: Bench, settler: Settler) -> None:
    jobs, parameters = bench.hold_jobs(2), bench.hold_parameters(1)
    for execution in [*jobs, *parameters]:
        execution.context.set_progress(0.5)
    settler.flush_running()
    settler.flush_running()
    assert bench.broker.calls == [("annotate", 2)]
    assert bench.raw.calls == [("annotate", 1)]
    assert [bench.client.fetch(job.record.id).progress for job in jobs] == [0.5, 0.5]


def test_the_last_resort_settles_every_kind(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    class Exit(BaseException):
        """The end of the process."""

    def leave(code: int) -> None:
        raise Exit(code)

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(giving_up, "end_process_within", lambda seconds, code, reason: None)
    jobs, parameters = bench.hold_jobs(2), bench.hold_parameters(2)
    for ended in (jobs[0], parameters[0]):
        ended.decide(DONE)
    stopping = Stopping(bench.state)
    with pytest.raises(Exit, match="1"):
        GivingUp(bench.state, Outcomes(bench.client.config, bench.client.plugins), stopping).give_up(jobs[1])
    stopping.restore_signals()
    assert bench.broker.calls == [("settle", 2)]
    assert bench.raw.calls == [("settle", 2)]
    assert bench.status_of(jobs) == [Status.SUCCESS, Status.INTERRUPT]
    assert bench.claimable() == [parameters[1].claim.param]
