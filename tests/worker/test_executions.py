"""What a worker holds. No broker is asked."""

from __future__ import annotations

from mrq_core.contract.messages import Outcome
from mrq_core.contract.record import Status
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
