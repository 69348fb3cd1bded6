"""The conformance suite notices what is broken: without each part of the in-memory broker a test fails.

docs/mutations.md lists the same; a test here compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase
from msgspec.structs import replace

from mrq_core.contract import lifecycle
from mrq_core.contract.messages import Outcome, RawClaim
from mrq_core.contract.record import JobRecord, Status
from mrq_core.testing import MemoryBroker, MemoryData
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance import BrokerContract, BrokerFactory
from mrq_core.testing.conformance.against_model import MachineContract
from mrq_core.testing.memory import claiming, limits, search
from mrq_core.testing.memory import keeper as keeper_module
from mrq_core.testing.memory.logs import JobLog
from mrq_core.testing.memory.raw_items import RawItems
from mrq_core.testing.memory.state import MemoryState

PAGE = Path(__file__).parents[2] / "docs" / "mutations.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """What is taken away, the test that has to fail then, and how it is done."""

    without: str
    test: str
    owner: Any
    name: str
    instead: Callable[..., Any]
    arguments: dict[str, Any] | None = None
    """Of the test, beside the fixtures `broker` and `clock`."""


# --- what is put in place of the parts --------------------------------------------------------------


def _settle_unguarded(self: Any, settlement: Any, now: Any) -> bool:
    record = self._data.get(settlement.id)
    if record is None or record.status is not Status.STARTED:
        return record is not None
    self._data.put(lifecycle.settled(record, settlement.outcome, now), now)
    return True


def _settle_forgetful(self: Any, settlement: Any, now: Any) -> bool:
    record = self._data.get(settlement.id)
    if record is None or record.status is not Status.STARTED or record.token != settlement.token:
        return False
    self._data.put(lifecycle.settled(record, settlement.outcome, now), now)
    return True


_enqueue = MemoryBroker._enqueue


def _enqueue_anew(self: Any, job: Any, now: Any) -> Any:
    self._data.delete(job.record.id, keep_period=True)
    return _enqueue(self, job, now)


def _renew_nothing(self: Any, claims: Any, lease: float) -> list[bool]:
    return [True for _ in claims]


def _reserve_nothing(self: Any, unique: Any, job_id: str, now: Any) -> str:
    return job_id


_claimed = lifecycle.claimed


def _claimed_under_the_same_number(record: JobRecord, **how: Any) -> JobRecord:
    taken = _claimed(record, **how)
    return replace(taken, claims=1, token=lifecycle.make_token(1, how["nonce"]))


def _always(*_: Any, **__: Any) -> bool:
    return True


def _never(*_: Any, **__: Any) -> bool:
    return False


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _take_all_suspects(data: Any, suspects: Any, request: Any, now: Any, blocked: Any) -> list[JobRecord]:
    return [claiming._take(data, record, request, now, alone=True) for record in suspects]


def _turn_now(data: Any, record: JobRecord, now: Any) -> Any:
    return now


_turn = limits._turn


def _turn_charged_again(data: Any, record: JobRecord, now: Any) -> Any:
    data.limits.turns.pop(record.id, None)
    return _turn(data, record, now)


_settled = lifecycle.settled


def _settled_in_spite_of_a_cancel(record: JobRecord, outcome: Outcome, now: Any) -> JobRecord:
    return _settled(replace(record, cancel_requested=False), outcome, now)


_archived = lifecycle.archived


def _archived_without_history(record: JobRecord, now: Any) -> JobRecord:
    return replace(_archived(record, now), history=record.history)


def _raw_holds_anything(self: RawItems, claim: RawClaim) -> bool:
    return claim.job_id in self.leases


def _raw_claim_without_lease(self: RawItems, limit: int, lease: float, now: Any) -> list[RawClaim]:
    claims = _raw_claim(self, limit, lease, now)
    self.leases.clear()
    return claims


_raw_claim = RawItems.claim


def _put_any_version(
    self: MemoryState, namespace: str, name: str, value: Any, *, version: int, ttl: float | None = None
) -> Any:
    return self.put(namespace, name, value, ttl)


def _append_twice(self: JobLog, line: Any, max_size: int) -> None:
    self._lines[line.attempt, line.seq + len(self._lines)] = line


def _totals_without_started(records: Any) -> Any:
    return totals_of([record for record in records if record.status is not Status.STARTED])


totals_of = search.totals


MUTATIONS = [
    Mutation(
        without="The token guard of settle",
        test="test_a_late_settle_is_refused_after_a_new_claim",
        owner=MemoryBroker,
        name="_settle",
        instead=_settle_unguarded,
    ),
    Mutation(
        without="The memory of earlier settles",
        test="test_a_repeated_settle_gives_its_first_answer",
        owner=MemoryBroker,
        name="_settle",
        instead=_settle_forgetful,
    ),
    Mutation(
        without="The idempotency of enqueue",
        test="test_an_id_that_exists_is_left_as_it_is",
        owner=MemoryBroker,
        name="_enqueue",
        instead=_enqueue_anew,
    ),
    Mutation(
        without="The lease renewal",
        test="test_a_job_that_is_busy_for_three_leases_runs_once",
        owner=MemoryBroker,
        name="renew",
        instead=_renew_nothing,
    ),
    Mutation(
        without="The reservation of unique keys",
        test="test_of_two_jobs_with_the_same_key_in_one_call_the_first_is_created",
        owner=MemoryData,
        name="reserve",
        instead=_reserve_nothing,
    ),
    Mutation(
        without="The growth of claim numbers",
        test="test_a_lost_job_is_claimed_again_with_a_greater_number",
        owner=claiming,
        name="claimed",
        instead=_claimed_under_the_same_number,
    ),
    Mutation(
        without="The rule that a suspect is claimed alone",
        test="test_a_suspect_is_claimed_alone",
        owner=claiming,
        name="_take_suspect",
        instead=_take_all_suspects,
    ),
    Mutation(
        without="The end of poison jobs and of lost at_most_once jobs",
        test="test_an_at_most_once_job_is_failed_when_its_lease_runs_out",
        owner=claiming,
        name="after_lost_claim",
        instead=_nothing,
    ),
    Mutation(
        without="The due time of entries",
        test="test_a_delayed_job_is_never_early",
        owner=claiming,
        name="_is_due",
        instead=_always,
    ),
    Mutation(
        without="The check of limits",
        test="test_no_more_than_the_limit_run_at_once",
        owner=limits,
        name="has_room",
        instead=_always,
    ),
    Mutation(
        without="Letting parked jobs go",
        test="test_a_settle_lets_the_longest_parked_go",
        owner=keeper_module,
        name="let_go",
        instead=_nothing,
    ),
    Mutation(
        without="The check of rates",
        test="test_a_burst_starts_at_once_and_the_others_at_their_turns",
        owner=limits,
        name="_turn",
        instead=_turn_now,
    ),
    Mutation(
        without="The turn that is reserved under a rate",
        test="test_a_job_is_pushed_back_once_and_not_charged_again",
        owner=limits,
        name="_turn",
        instead=_turn_charged_again,
    ),
    Mutation(
        without="The cancel request at the end of an attempt",
        test="test_a_cancel_request_wins_over_an_outcome_that_would_run_the_job_again",
        owner=lifecycle,
        name="settled",
        instead=_settled_in_spite_of_a_cancel,
        arguments={"status": Status.RETRY},
    ),
    Mutation(
        without="The history of attempts",
        test="test_the_record_shows_both_attempts",
        owner=lifecycle,
        name="archived",
        instead=_archived_without_history,
    ),
    Mutation(
        without="The invisibility of expired records",
        test="test_an_expired_record_is_invisible_at_once",
        owner=lifecycle,
        name="has_expired",
        instead=_never,
    ),
    Mutation(
        without="The lease of a claimed parameter",
        test="test_a_lost_claim_is_delivered_again_under_its_job_id",
        owner=RawItems,
        name="claim",
        instead=_raw_claim_without_lease,
    ),
    Mutation(
        without="The token guard of admit",
        test="test_a_late_admit_is_refused_after_a_redelivery",
        owner=RawItems,
        name="holds",
        instead=_raw_holds_anything,
    ),
    Mutation(
        without="The version of shared state",
        test="test_compare_and_set_writes_only_on_the_version_it_names",
        owner=MemoryState,
        name="compare_and_set",
        instead=_put_any_version,
    ),
    Mutation(
        without="The idempotency of log lines",
        test="test_appending_again_changes_nothing",
        owner=JobLog,
        name="append",
        instead=_append_twice,
    ),
    Mutation(
        without="Started jobs in the totals",
        test="test_totals_and_queues_are_right_after_a_random_history",
        owner=keeper_module,
        name="totals",
        instead=_totals_without_started,
        arguments={"seed": 0},
    ),
]
NAMES = [mutation.without for mutation in MUTATIONS]


# --- the tests ----------------------------------------------------------------------------------------


def run_named_test(mutation: Mutation) -> None:
    """Calls the test of the suite as pytest would, on a new broker in memory."""
    contract, clock, data_ = BrokerContract(), ManualClock(), MemoryData()
    broker = MemoryBroker(clock=clock, data=data_)
    factory: BrokerFactory = lambda clock: MemoryBroker(clock=clock, data=data_)  # noqa: E731
    test = getattr(contract, mutation.test)
    wanted = test.__code__.co_varnames[1 : test.__code__.co_argcount]
    known = {"broker": broker, "clock": clock, "broker_factory": factory, "raw": broker.raw("some_set")}
    test(**{name: value for name, value in known.items() if name in wanted}, **(mutation.arguments or {}))


@pytest.mark.parametrize("mutation", MUTATIONS, ids=NAMES)
def test_the_named_test_passes_as_it_is(mutation: Mutation) -> None:
    run_named_test(mutation)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=NAMES)
def test_the_named_test_fails_without_the_part(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutation.owner, mutation.name, mutation.instead)
    with pytest.raises((AssertionError, ValueError)):
        run_named_test(mutation)


@pytest.mark.parametrize(
    ("name", "instead"),
    [("_settle", _settle_unguarded), ("_settle", _settle_forgetful), ("_enqueue", _enqueue_anew)],
)
def test_the_state_machine_notices_a_broken_driver(name: str, instead: Callable[..., Any]) -> None:
    broken = type("Broken", (MemoryBroker,), {name: instead})
    with pytest.raises(AssertionError):
        MachineContract().run(lambda clock: broken(clock=clock), [Phase.generate])


def test_the_page_lists_these_mutations() -> None:
    rows = re.findall(r"^\| ([^|`]+?) \| `(test_\w+)` \|$", PAGE.read_text(), re.M)
    assert rows == [(mutation.without, mutation.test) for mutation in MUTATIONS]
