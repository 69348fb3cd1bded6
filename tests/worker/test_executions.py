"""What a worker holds. No broker is asked."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from mrq_core.contract.messages import Outcome
from mrq_core.contract.record import Status
from mrq_core.errors import CancelInterrupt, TimeoutInterrupt
from mrq_core.worker.executions import Executions
from tests.worker.records import execution


def test_jobs_that_were_claimed_together_under_one_token_are_held_each_for_itself() -> None:
    first, second = execution(), execution()
    assert first.claim.token == second.claim.token
    held = Executions()
    held.add(first)
    held.add(second)
    assert held.snapshot() == [first, second]
    first.decide(Outcome(status=Status.SUCCESS))
    assert held.undecided() == [second]
    held.remove([second])
    assert held.snapshot() == [first]


def test_an_outcome_is_decided_once() -> None:
    one = execution()
    assert one.decide(Outcome(status=Status.SUCCESS, result=1))
    assert not one.decide(Outcome(status=Status.TIMEOUT))
    assert one.outcome == Outcome(status=Status.SUCCESS, result=1)


@pytest.mark.parametrize("moment", range(4))
def test_a_request_to_interrupt_a_job_outlives_the_limits_of_its_import_and_its_run(moment: int) -> None:
    cancel, late = partial(CancelInterrupt, "cancelled"), partial(TimeoutInterrupt, "late")
    one = execution("a")
    steps: list[Callable[[], None]] = [
        partial(one.limit_import, 10.0, late),
        one.end_import,
        partial(one.limit_run, 20.0, late),
    ]
    steps.insert(moment, partial(one.interrupt_from, 5.0, cancel))
    for step in steps:
        step()
    assert isinstance(one.interrupt_at(6.0), CancelInterrupt)
    one.postpone(3.0)
    assert (one.deadline, one.due) == (23.0, (5.0, cancel))


def test_a_limit_that_is_over_before_a_request_decides() -> None:
    one = execution("a")
    one.limit_run(4.0, partial(TimeoutInterrupt, "late"))
    one.interrupt_from(5.0, partial(CancelInterrupt, "cancelled"))
    assert isinstance(one.interrupt_at(6.0), TimeoutInterrupt)
