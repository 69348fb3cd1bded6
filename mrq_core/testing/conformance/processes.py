"""Eight claimers as processes, forked and spawned, and as greenlets."""

from __future__ import annotations

import multiprocessing
import sys
from collections import Counter
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import ChangeResult, Edit
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import Status
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import (
    BrokerFactory,
    Contract,
    claim,
    lose,
    put_many,
    settle,
    take,
)

CLAIMERS = 8
SECONDS = 60.0
"""How long the parts of a test wait for each other."""


class ProcessContract(Contract):
    """What holds when several processes work on the same data."""

    @pytest.fixture
    def process_factory(self) -> BrokerFactory | None:
        """Like `broker_factory`, and can be pickled: a function of a module, or a partial of one.

        None: the driver cannot be opened from several processes.
        """
        return None

    @pytest.fixture
    def opener(self, process_factory: BrokerFactory | None) -> BrokerFactory:
        if process_factory is None:
            pytest.skip("this driver cannot be opened from several processes")
        return process_factory

    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_eight_processes_never_share_a_live_claim(
        self, broker: Broker, opener: BrokerFactory, clock: ManualClock, tmp_path: Path, method: str
    ) -> None:
        ids = put_many(broker, clock, 240)
        context = multiprocessing.get_context(method)
        barrier = context.Barrier(CLAIMERS)
        paths = [tmp_path / f"taken-{number}" for number in range(CLAIMERS)]
        run(context, [(_claim_all, (opener, clock, barrier, path)) for path in paths])
        taken = [line for path in paths for line in path.read_text().splitlines()]
        assert Counter(taken) == Counter(ids)
        assert broker.totals().by_status() == {Status.SUCCESS: 240}
        assert {record.claims for record in broker.find(JobFilter(), limit=240).records} == {1}

    def test_a_claim_in_one_process_sees_an_edit_in_another_or_refuses_it(
        self, broker: Broker, opener: BrokerFactory, clock: ManualClock, tmp_path: Path
    ) -> None:
        ids = put_many(broker, clock, 200, params={"n": 0}, search_keys={"n": 0})
        context = multiprocessing.get_context("spawn")
        paths = [tmp_path / f"w{number}" for number in range(3)]
        edits = tmp_path / "edited"
        barrier = context.Barrier(len(paths) + 1)
        calls = [(_claim_all, (opener, clock, barrier, path)) for path in paths]
        run(context, [*calls, (_edit_all, (opener, clock, barrier, ids, edits))])
        taken = [line for path in paths for line in path.read_text().splitlines()]
        assert Counter(taken) == Counter(ids)
        edited = set(edits.read_text().splitlines())
        assert {
            record.id for record in broker.find(JobFilter(search_keys={"n": 1}), limit=1000).records
        } == edited
        for record in broker.get(ids):
            assert record is not None
            assert (record.claims, record.edits) == (1, int(record.id in edited))
            assert record.params == record.search_keys == {"n": int(record.id in edited)}
        assert broker.totals().by_status() == {Status.SUCCESS: 200}

    def test_a_broker_goes_on_working_in_forked_children_and_in_their_parent(
        self, broker: Broker, opener: BrokerFactory, clock: ManualClock, tmp_path: Path
    ) -> None:
        put_many(broker, clock, 30)
        [first] = claim(broker, limit=1).records
        context = multiprocessing.get_context("fork")
        paths = [tmp_path / f"taken-{number}" for number in range(3)]
        barrier = context.Barrier(3)
        run(context, [(_work, (broker, barrier, path)) for path in paths])
        assert sum(len(path.read_text().splitlines()) for path in paths) == 29
        assert settle(broker, first, ttl=1000.0)
        assert broker.totals().by_status() == {Status.SUCCESS: 30}

    def test_jobs_of_a_killed_process_are_claimed_again(
        self, broker: Broker, opener: BrokerFactory, clock: ManualClock, tmp_path: Path
    ) -> None:
        ids = put_many(broker, clock, 2)
        context = multiprocessing.get_context("spawn")
        barrier = context.Barrier(2)
        process = context.Process(target=_claim_and_hang, args=(opener, clock, barrier))
        process.start()
        try:
            barrier.wait(SECONDS)
        finally:
            process.kill()
            process.join(SECONDS)
        assert take(broker) == []
        lose(clock)
        assert take(broker, worker="w2", lost_limit=10) == ids


class GreenletContract(Contract):
    """What holds when the greenlets of one hub share a broker."""

    def test_eight_greenlets_never_share_a_live_claim(self, broker: Broker, clock: ManualClock) -> None:
        monkey = sys.modules.get("gevent.monkey")
        if monkey is None or not monkey.is_module_patched("threading"):
            pytest.skip("gevent has not patched this process")
        import gevent

        ids = put_many(broker, clock, 200)
        taken: list[str] = []

        def work(name: str) -> None:
            while records := claim(broker, limit=3, worker=name).records:
                gevent.sleep(0)
                for record in records:
                    taken.append(record.id)
                    assert settle(broker, record, ttl=1000.0)

        greenlets = [gevent.spawn(work, f"w{number}") for number in range(CLAIMERS)]
        gevent.joinall(greenlets, timeout=SECONDS, raise_error=True)
        assert Counter(taken) == Counter(ids)
        assert broker.totals().by_status() == {Status.SUCCESS: 200}


def run(context: BaseContext, calls: list[tuple[object, tuple[object, ...]]]) -> None:
    """Runs each call in a separate process, all at once. Their output shows whether they succeeded."""
    processes: list[BaseProcess] = [
        context.Process(target=target, args=arguments)  # type: ignore[attr-defined]
        for target, arguments in calls
    ]
    for process in processes:
        process.start()
    for process in processes:
        if not wait([process.sentinel], SECONDS):
            process.kill()
        process.join()
    # In a process that gevent has patched, the hub may have taken the exit code: then it is None.
    assert not any(process.exitcode for process in processes)


def _claim_all(opener: BrokerFactory, clock: ManualClock, barrier: Barrier, path: Path) -> None:
    broker = opener(clock)
    _work(broker, barrier, path)
    broker.close()


def _work(broker: Broker, barrier: Barrier, path: Path) -> None:
    """Claims and settles until nothing is left; writes down what it took."""
    taken: list[str] = []
    barrier.wait(SECONDS)
    while records := claim(broker, limit=5, worker=path.name).records:
        for record in records:
            taken.append(record.id)
            assert settle(broker, record, ttl=1000.0)
    path.write_text("\n".join(taken))


def _edit_all(
    opener: BrokerFactory, clock: ManualClock, barrier: Barrier, ids: list[str], path: Path
) -> None:
    """Edits the jobs from the end, as if no job was claimed; writes down the edited jobs."""
    broker = opener(clock)
    edits = [
        Edit(id=job_id, claims=0, edits=0, params={"n": 1}, search_keys={"n": 1}, priority=number % 3)
        for number, job_id in enumerate(reversed(ids))
    ]
    barrier.wait(SECONDS)
    edited: list[str] = []
    for start in range(0, len(edits), 10):
        part = edits[start : start + 10]
        answers = broker.edit(part)
        edited += [edit.id for edit, answer in zip(part, answers, strict=True) if answer is ChangeResult.DONE]
    path.write_text("\n".join(edited))
    broker.close()


def _claim_and_hang(opener: BrokerFactory, clock: ManualClock, barrier: Barrier) -> None:
    claim(opener(clock), worker="w1")
    barrier.wait(SECONDS)
    barrier.wait(SECONDS)
