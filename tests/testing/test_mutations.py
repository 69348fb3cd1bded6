"""The conformance suite notices broken rules: without each of these rules, a test of the suite fails.

docs/mutations.md has the same list; a test here compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase
from msgspec.structs import replace

from mrq_core.contract import lifecycle, matching, rules, terms
from mrq_core.contract.codec import JsonObject
from mrq_core.contract.driver import Opening
from mrq_core.contract.messages import (
    Action,
    Cancel,
    ChangeResult,
    ClaimRequest,
    Edit,
    Limit,
    Move,
    Outcome,
    RawClaim,
    Remove,
    Requeue,
)
from mrq_core.contract.metrics import Resolution
from mrq_core.contract.record import JobRecord, Status
from mrq_core.contract.services import StoreServices
from mrq_core.contract.terms import Term, key_term, terms_of
from mrq_core.drivers import rollups
from mrq_core.drivers.limits import HORIZON_US, Spacing, spacing_of
from mrq_core.drivers.rollups import Cell
from mrq_core.embedded.broker import EmbeddedBroker
from mrq_core.embedded.jobs.terms import TermChanges
from mrq_core.embedded.raw import claiming as embedded_raw
from mrq_core.ids import derived_id
from mrq_core.testing import MemoryBroker, MemoryData
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance import BrokerContract, BrokerFactory
from mrq_core.testing.conformance.against_model import MachineContract
from mrq_core.testing.memory.jobs import (
    claiming,
    enqueueing,
    limits,
    positions,
    renewing,
    searching,
    settling,
    totals,
    trees,
)
from mrq_core.testing.memory.jobs.uniques import UniqueKeys
from mrq_core.testing.memory.raw.claiming import RawClaims
from mrq_core.testing.memory.shared.logs import JobLog
from mrq_core.testing.memory.shared.state import MemoryState, StateItems

PAGE = Path(__file__).parents[2] / "docs" / "mutations.md"


def memory_brokers(folder: Path) -> BrokerFactory:
    data = MemoryData()
    return lambda clock: MemoryBroker(clock=clock, data=data)


def sqlite_brokers(folder: Path) -> BrokerFactory:
    settings = {"SQLITE": str(folder / "mrq.sqlite3")}
    return lambda clock: EmbeddedBroker(Opening(settings=settings, clock=clock))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """A rule, the test that fails without the rule, and the function that breaks the rule."""

    without: str
    test: str
    owner: Any
    name: str
    instead: Callable[..., Any]
    arguments: dict[str, Any] | None = None
    """Arguments of the test, besides the fixtures."""
    brokers: Callable[[Path], BrokerFactory] = memory_brokers
    """The brokers that the test runs on. The in-memory broker needs no `was_admitted_by`."""


# --- jobs ---------------------------------------------------------------------------------------------


def _settle_unguarded(data: MemoryData, settlement: Any, now: Any) -> bool:
    record = data.get(settlement.id)
    if record is None or record.status is not Status.STARTED:
        return record is not None
    data.put(lifecycle.settled(record, settlement.outcome, now), now)
    return True


def _settle_forgetful(data: MemoryData, settlement: Any, now: Any) -> bool:
    record = data.get(settlement.id)
    if record is None or record.status is not Status.STARTED or record.token != settlement.token:
        return False
    data.put(lifecycle.settled(record, settlement.outcome, now), now)
    return True


_enqueue = enqueueing.enqueue


def _enqueue_anew(data: MemoryData, job: Any, now: Any) -> Any:
    data.delete(job.record.id, keep_period=True)
    return _enqueue(data, job, now)


def _reserve_nothing(self: UniqueKeys, unique: Any, job_id: str, now: Any) -> str:
    return job_id


def _is_below(queue: str, name: str) -> bool:
    return queue == name if not name.endswith("/") else queue.startswith(name) and queue != name


_reserve = UniqueKeys.reserve
_written = UniqueKeys.written


def _reserve_in_one_namespace(self: UniqueKeys, unique: Any, job_id: str, now: Any) -> str:
    return _reserve(self, replace(unique, until="done"), job_id, now)


def _written_as_done(self: UniqueKeys, record: JobRecord, now: Any) -> None:
    _written(self, record, now)
    if record.is_ended:
        self.forget(record.id, keep_period=True)


def _written_without_expiry(self: UniqueKeys, record: JobRecord, now: Any) -> None:
    _written(self, replace(record, expires_at=None), now)


_claimed = lifecycle.claimed


def _claimed_under_the_same_number(record: JobRecord, **how: Any) -> JobRecord:
    taken = _claimed(record, **how)
    return replace(taken, claims=1, token=lifecycle.make_token(1, how["nonce"]))


# --- rules --------------------------------------------------------------------------------------------


def _task_key_of_another_task(path: str) -> str:
    return f"task:{path}2"


def _changed_by_version_only(known: Any, version: int, now_ms: int) -> bool:
    return bool(known.rules != version)


_requests_in = rules.requests_in


def _requests_in_that_never_expire(value: Any, now_ms: int) -> Any:
    return _requests_in(value, 0)


def _pause_until_any_time(self: StoreServices, namespace: str, names: Any, until: Any) -> None:
    now = self.now()
    for name in names:
        ttl = None if until is None else (until - now).total_seconds()
        self.state.put(namespace, name, rules.pause_value(now, until), ttl=ttl)


def _always(*_: Any, **__: Any) -> bool:
    return True


def _never(*_: Any, **__: Any) -> bool:
    return False


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _latest_cell(self: Cell, other: Cell) -> Cell:
    return other


_cells_of = rollups.cells_of


def _minutes_only(metrics: Any) -> Any:
    return {k: cell for k, cell in _cells_of(metrics).items() if k.resolution is Resolution.MINUTE}


def _cells_by_names_of_tags(metrics: Any) -> Any:
    return _cells_of([replace(one, tags=tuple((name, "") for name, _ in one.tags)) for one in metrics])


def _hash_as_id(parent: str, token: str, index: int, at: Any) -> str:
    return derived_id(0.0, parent, token, str(index))


_settled = lifecycle.settled


def _settled_in_spite_of_a_cancel(record: JobRecord, outcome: Outcome, now: Any) -> JobRecord:
    return _settled(replace(record, cancel_requested=False), outcome, now)


_archived = lifecycle.archived


def _archived_without_history(record: JobRecord) -> JobRecord:
    return replace(_archived(record), history=record.history)


_totals = totals.totals


def _totals_without_started(data: MemoryData) -> Any:
    visible = MemoryData()
    visible.records = {record.id: record for record in data.all() if record.status is not Status.STARTED}
    return _totals(visible)


# --- lost claims --------------------------------------------------------------------------------------

_after_lost_claim = lifecycle.after_lost_claim


_count = searching.count


def _count_from_the_first_job(data: MemoryData, wanted: Any, group_by: Any, now: Any, cursor: Any) -> Any:
    return _count(data, wanted, group_by, now, None)


def _forget_queues_without_jobs(self: MemoryData) -> None:
    self.queues &= {record.queue for record in self.records.values()}


def _forget_queues_without_entries(self: MemoryData) -> None:
    used = {name for name, raw in self.raw.items() if raw.leases or len(raw.items)}
    self.queues &= {*self.entries, *used}


def _lost_in_spite_of_a_cancel(record: JobRecord, request: ClaimRequest, now: Any) -> JobRecord | None:
    return _after_lost_claim(replace(record, cancel_requested=False), request, now)


def _lost_before_this_time(record: JobRecord, request: ClaimRequest, now: Any) -> JobRecord | None:
    return _after_lost_claim(replace(record, lost_claims=record.lost_claims - 1), request, now)


def _lost_at_any_time(record: JobRecord, request: ClaimRequest, now: Any) -> JobRecord | None:
    losses = sum(attempt.lost for attempt in record.history)
    return _after_lost_claim(replace(record, lost_claims=losses), request, now)


def _lost_with_its_token(record: JobRecord, request: ClaimRequest, now: Any) -> JobRecord | None:
    ended = _after_lost_claim(record, request, now)
    return None if ended is None else replace(ended, token=record.token)


_take_all = claiming._take_all


def _take_suspects_without_limit(
    data: MemoryData, suspects: list[JobRecord], request: ClaimRequest, now: Any
) -> list[JobRecord]:
    return _take_all(data, suspects, replace(request, lost_limit=request.limit), now)


_losses_after = lifecycle._losses_after


def _row_that_goes_on(record: JobRecord, outcome: Outcome) -> tuple[int, int]:
    return _losses_after(record, outcome) if outcome.lost else (record.lost_claims, record.solo_deaths)


def _row_that_an_interrupt_ends(record: JobRecord, outcome: Outcome) -> tuple[int, int]:
    return _losses_after(record, outcome) if outcome.lost else (0, 0)


def _row_without_deaths(record: JobRecord, outcome: Outcome) -> tuple[int, int]:
    return _losses_after(record, outcome)[0], record.solo_deaths


def _lost_but_not_archived(record: JobRecord, outcome: Outcome, now: Any) -> JobRecord:
    after = _settled(record, replace(outcome, lost=False), now)
    losses, deaths = _losses_after(record, outcome)
    return replace(after, lost_claims=losses, solo_deaths=deaths)


def _settled_by_attempts_that_were_not_lost(record: JobRecord, token: str) -> bool:
    return _was_settled_by(
        replace(record, history=tuple(one for one in record.history if not one.lost)), token
    )


_was_settled_by = lifecycle.was_settled_by
_requeued = lifecycle.requeued


def _requeued_in_the_same_row(record: JobRecord, **how: Any) -> JobRecord:
    return replace(_requeued(record, **how), lost_claims=record.lost_claims)


# --- changes by operators and rules -------------------------------------------------------------------

_changed = lifecycle.changed


def _changed_though_started(record: JobRecord, action: Action, now: Any) -> Any:
    if isinstance(action, Remove):
        return ChangeResult.DONE, None
    return _changed(record, action, now)


def _changed_though_queued(record: JobRecord, action: Action, now: Any) -> Any:
    if isinstance(action, Requeue) and record.status is Status.QUEUED:
        return ChangeResult.DONE, record
    return _changed(record, action, now)


def _changed_though_successful(record: JobRecord, action: Action, now: Any) -> Any:
    if isinstance(action, Cancel) and record.status is Status.SUCCESS:
        return ChangeResult.DONE, lifecycle.cancelled(record, now=now, ttl=action.ttl)
    return _changed(record, action, now)


def _changed_at_once(record: JobRecord, action: Action, now: Any) -> Any:
    if isinstance(action, Cancel) and record.status is Status.STARTED:
        return ChangeResult.DONE, lifecycle.cancelled(record, now=now, ttl=action.ttl)
    return _changed(record, action, now)


def _changed_though_ended(record: JobRecord, action: Action, now: Any) -> Any:
    if isinstance(action, Move):
        return ChangeResult.DONE, replace(record, queue=action.queue)
    return _changed(record, action, now)


def _changed_though_there(record: JobRecord, action: Action, now: Any) -> Any:
    answer, after = _changed(record, action, now)
    return ChangeResult.DONE if answer is ChangeResult.UNCHANGED else answer, after


def _changed_and_updated(record: JobRecord, action: Action, now: Any) -> Any:
    answer, after = _changed(record, action, now)
    return answer, None if after is None else replace(after, updated_at=now)


# --- names of queues ----------------------------------------------------------------------------------


_use_of = positions._use_of


def _all_before(data: MemoryData, record: JobRecord, now: Any) -> int:
    entries = data.entries[record.queue].values()
    return sum((-other.priority, other.id) < (-record.priority, record.id) for other in entries)


def _use_before_any_lease_ends(data: MemoryData, key: str, now: Any) -> Any:
    return _use_of(data, key, now - timedelta(days=1))


def _no_number(*_: Any) -> int:
    return 0


_edited = lifecycle.edited


def _edited_at_any_version(record: JobRecord, edit: Edit, now: Any) -> JobRecord | None:
    return _edited(record, replace(edit, claims=record.claims, edits=record.edits), now)


def _edited_in_any_status(record: JobRecord, edit: Edit, now: Any) -> JobRecord | None:
    waiting = replace(record, status=Status.QUEUED, ended_at=None)
    after = _edited(waiting, edit, now)
    return after and replace(after, status=record.status, ended_at=record.ended_at)


def _edited_with_its_search_keys(record: JobRecord, edit: Edit, now: Any) -> JobRecord | None:
    after = _edited(record, edit, now)
    return after and replace(after, search_keys=record.search_keys)


def _edited_and_due(record: JobRecord, edit: Edit, now: Any) -> JobRecord | None:
    after = _edited(record, edit, now)
    return after and replace(after, due_at=after.due_at or now)


def _edited_and_updated(record: JobRecord, edit: Edit, now: Any) -> JobRecord | None:
    after = _edited(record, edit, now)
    return after and replace(after, updated_at=now)


def _covered_by_its_own_name(queue: str, names: Any) -> bool:
    return queue in names


def _covered_by_any_beginning(queue: str, names: Any) -> bool:
    return any(queue.startswith(name) for name in names)


# --- limits -------------------------------------------------------------------------------------------


def _allowed_now(data: Any, record: JobRecord, now: Any) -> Any:
    return now


_allowed_at = limits._allowed_at


def _charged_again(data: Any, record: JobRecord, now: Any) -> Any:
    data.limits.allowed.pop(record.id, None)
    return _allowed_at(data, record, now)


def _uncut(spacing: Spacing, even_us: int, now_us: int) -> int:
    return even_us


def _charged_beyond_the_horizon(data: Any, record: JobRecord, now: Any) -> Any:
    allowed_at = _allowed_at(data, record, now)
    for key in record.limit_keys if isinstance(allowed_at, str) else ():
        even_us, spacing = data.limits.rates[key]
        data.limits.rates[key] = even_us + spacing.interval_us, spacing
    return allowed_at


def _open_early(spacing: Spacing, even_us: int) -> int:
    return even_us - spacing.burst_us - 2 * HORIZON_US


def _spacing_without_burst(limit: Limit) -> Spacing | None:
    spacing = spacing_of(limit)
    return None if spacing is None else spacing._replace(burst_us=0)


def _spacing_of_a_burst_below_one(limit: Limit) -> Spacing | None:
    spacing = spacing_of(limit)
    if spacing is None or limit.rate is None:
        return None
    return spacing._replace(burst_us=round(spacing.interval_us * (limit.rate - 1)))


def _spacing_in_seconds(limit: Limit) -> Spacing | None:
    spacing = spacing_of(limit)
    if spacing is None:
        return None
    return Spacing(*(us // 1_000_000 * 1_000_000 for us in spacing))


# --- terms --------------------------------------------------------------------------------------------

_change_terms = TermChanges.change


def _add_terms_only(self: TermChanges, before: JobRecord | None, after: JobRecord | None) -> None:
    if after is not None:
        _change_terms(self, None, after)


def _change_error_terms_only(self: TermChanges, before: JobRecord | None, after: JobRecord | None) -> None:
    if before is not None and after is not None:
        _change_terms(self, before, after)


def _has_any_term(record: JobRecord, parts: Any) -> bool:
    return not parts or any(terms_of(record) & part for part in parts)


def _key_term_of_text(name: str, value: Any) -> Term:
    return key_term(name, value if isinstance(value, str) else str(value))


def _with_keys_anew(record: JobRecord, keys: JsonObject) -> JobRecord | None:
    merged = {**record.search_keys, **keys}
    return None if merged == record.search_keys else replace(record, search_keys=merged)


def _start_of(text: str) -> str:
    return text.replace("\0", " ")[:200]


# --- raw queues, state and logs -----------------------------------------------------------------------


def _raw_holds_anything(self: RawClaims, claim: RawClaim) -> bool:
    return claim.job_id in self.leases


_raw_claim = RawClaims.claim


def _raw_claim_without_lease(self: RawClaims, limit: int, lease: float, now: Any) -> list[RawClaim]:
    claims = _raw_claim(self, limit, lease, now)
    self.leases.clear()
    return claims


def _admitted_by_its_latest_token(record: JobRecord, token: str) -> bool:
    return record.token == token


def _put_any_version(
    self: MemoryState, namespace: str, name: str, value: Any, *, version: int, ttl: float | None = None
) -> Any:
    return self.put(namespace, name, value, ttl)


def _append_twice(self: JobLog, line: Any, max_size: int) -> None:
    self._lines[line.attempt, line.seq + len(self._lines)] = line


MUTATIONS = [
    Mutation(
        without="The token guard of settle",
        test="test_a_late_settle_is_refused_after_a_new_claim",
        owner=settling,
        name="settle",
        instead=_settle_unguarded,
    ),
    Mutation(
        without="The memory of earlier settles",
        test="test_a_repeated_settle_gives_its_first_answer",
        owner=settling,
        name="settle",
        instead=_settle_forgetful,
    ),
    Mutation(
        without="The idempotency of enqueue",
        test="test_an_id_that_exists_is_left_as_it_is",
        owner=enqueueing,
        name="enqueue",
        instead=_enqueue_anew,
    ),
    Mutation(
        without="The lease renewal",
        test="test_a_job_that_is_busy_for_three_leases_runs_once",
        owner=renewing,
        name="renew",
        instead=_always,
    ),
    Mutation(
        without="The reservation of unique keys",
        test="test_of_two_jobs_with_the_same_key_in_one_call_the_first_is_created",
        owner=UniqueKeys,
        name="reserve",
        instead=_reserve_nothing,
    ),
    Mutation(
        without="Keys until record after the end of the job",
        test="test_a_key_until_record_is_held_after_the_job_has_ended",
        owner=UniqueKeys,
        name="written",
        instead=_written_as_done,
        arguments={"status": Status.SUCCESS},
    ),
    Mutation(
        without="The release of keys until record by expiry",
        test="test_an_expired_record_lets_its_key_go_at_once",
        owner=UniqueKeys,
        name="written",
        instead=_written_without_expiry,
    ),
    Mutation(
        without="The separation of keys until record",
        test="test_keys_until_record_are_separate_from_all_others",
        owner=UniqueKeys,
        name="reserve",
        instead=_reserve_in_one_namespace,
        arguments={"until": "done"},
    ),
    Mutation(
        without="The growth of claim numbers",
        test="test_a_lost_job_is_claimed_again_with_a_greater_number",
        owner=lifecycle,
        name="claimed",
        instead=_claimed_under_the_same_number,
    ),
    Mutation(
        without="The limit of suspects",
        test="test_suspects_are_claimed_beside_waiting_jobs_up_to_their_limit",
        owner=claiming,
        name="_take_all",
        instead=_take_suspects_without_limit,
    ),
    Mutation(
        without="The end of poison jobs and of lost at_most_once jobs",
        test="test_an_at_most_once_job_is_failed_when_its_lease_runs_out",
        owner=lifecycle,
        name="after_lost_claim",
        instead=_nothing,
    ),
    Mutation(
        without="The due time of entries",
        test="test_a_delayed_job_is_never_early",
        owner=trees,
        name="is_due",
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
        owner=limits,
        name="let_go",
        instead=_nothing,
    ),
    Mutation(
        without="The check of rates",
        test="test_a_burst_starts_at_once_and_the_others_at_their_turns",
        owner=limits,
        name="_allowed_at",
        instead=_allowed_now,
    ),
    Mutation(
        without="The start time that is reserved under a rate",
        test="test_a_job_is_pushed_back_once_and_not_charged_again",
        owner=limits,
        name="_allowed_at",
        instead=_charged_again,
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
        owner=RawClaims,
        name="claim",
        instead=_raw_claim_without_lease,
    ),
    Mutation(
        without="The token guard of admit",
        test="test_a_late_admit_is_refused_after_a_redelivery",
        owner=RawClaims,
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
        owner=totals,
        name="totals",
        instead=_totals_without_started,
        arguments={"seed": 0},
    ),
    Mutation(
        without="The cursor of a count",
        test="test_the_numbers_of_a_count_that_goes_on_from_its_cursor_add_up",
        owner=searching,
        name="count",
        instead=_count_from_the_first_job,
        arguments={"wanted": {}, "group_by": None},
    ),
    Mutation(
        without="The end of the names of queues",
        test="test_the_name_of_a_queue_whose_jobs_are_gone_is_forgotten",
        owner=MemoryData,
        name="forget_queues",
        instead=_nothing,
        arguments={"how": "remove"},
    ),
    Mutation(
        without="The names of queues with ended jobs",
        test="test_the_name_of_a_queue_stays_while_a_job_has_it",
        owner=MemoryData,
        name="forget_queues",
        instead=_forget_queues_without_entries,
        arguments={"status": Status.SUCCESS},
    ),
    Mutation(
        without="The names of queues with parameters",
        test="test_the_name_of_a_raw_queue_stays_while_it_has_parameters",
        owner=MemoryData,
        name="forget_queues",
        instead=_forget_queues_without_jobs,
    ),
    Mutation(
        without="The cancel request of a lost job",
        test="test_a_lost_job_whose_cancellation_was_requested_is_cancelled",
        owner=lifecycle,
        name="after_lost_claim",
        instead=_lost_in_spite_of_a_cancel,
    ),
    Mutation(
        without="The latest loss among ten in a row",
        test="test_the_tenth_lost_claim_in_a_row_fails_a_job",
        owner=lifecycle,
        name="after_lost_claim",
        instead=_lost_before_this_time,
    ),
    Mutation(
        without="The exception for losses that are not in a row",
        test="test_ten_lost_claims_that_are_not_in_a_row_fail_no_job",
        owner=lifecycle,
        name="after_lost_claim",
        instead=_lost_at_any_time,
    ),
    Mutation(
        without="The end of a row of lost claims by a finished attempt",
        test="test_lost_claims_in_a_row_are_counted_until_an_attempt_is_finished",
        owner=lifecycle,
        name="_losses_after",
        instead=_row_that_goes_on,
    ),
    Mutation(
        without="The row of lost claims across an interrupt",
        test="test_an_unfinished_attempt_does_not_end_the_row",
        owner=lifecycle,
        name="_losses_after",
        instead=_row_that_an_interrupt_ends,
        arguments={"status": Status.INTERRUPT},
    ),
    Mutation(
        without="The end of a row of lost claims by a requeue",
        test="test_requeueing_a_poison_job_gives_it_new_chances",
        owner=lifecycle,
        name="requeued",
        instead=_requeued_in_the_same_row,
    ),
    Mutation(
        without="The count of solo deaths",
        test="test_a_lost_attempt_that_fails_its_job_counts",
        owner=lifecycle,
        name="_losses_after",
        instead=_row_without_deaths,
    ),
    Mutation(
        without="The archive of a lost attempt",
        test="test_a_lost_attempt_is_archived_and_the_job_is_due_at_once",
        owner=lifecycle,
        name="settled",
        instead=_lost_but_not_archived,
    ),
    Mutation(
        without="The memory of a settled lost attempt",
        test="test_a_lost_attempt_is_settled_once",
        owner=lifecycle,
        name="was_settled_by",
        instead=_settled_by_attempts_that_were_not_lost,
    ),
    Mutation(
        without="The end of the token of a job that a lost claim ended",
        test="test_a_settle_after_the_condemnation_is_refused",
        owner=lifecycle,
        name="after_lost_claim",
        instead=_lost_with_its_token,
    ),
    Mutation(
        without="The refusal to remove a started job",
        test="test_a_started_job_is_not_removed",
        owner=lifecycle,
        name="changed",
        instead=_changed_though_started,
    ),
    Mutation(
        without="The refusal to requeue a queued job",
        test="test_a_job_requeued_twice_in_one_call_is_queued_once",
        owner=lifecycle,
        name="changed",
        instead=_changed_though_queued,
    ),
    Mutation(
        without="The refusal to cancel a successful job",
        test="test_every_illegal_transition_is_refused",
        owner=lifecycle,
        name="changed",
        instead=_changed_though_successful,
    ),
    Mutation(
        without="The rule that a cancel only marks a started job",
        test="test_cancelling_a_started_job_only_marks_it",
        owner=lifecycle,
        name="changed",
        instead=_changed_at_once,
    ),
    Mutation(
        without="The refusal to move an ended job",
        test="test_only_waiting_jobs_are_moved",
        owner=lifecycle,
        name="changed",
        instead=_changed_though_ended,
        arguments={"status": Status.SUCCESS},
    ),
    Mutation(
        without="The rule that a move leaves a job that is in the queue already",
        test="test_a_job_that_is_moved_to_its_own_queue_is_unchanged",
        owner=lifecycle,
        name="changed",
        instead=_changed_though_there,
        arguments={"status": Status.QUEUED},
    ),
    Mutation(
        without="The unchanged update time of a moved job",
        test="test_moving_a_retried_job_does_not_change_when_its_attempt_ended",
        owner=lifecycle,
        name="changed",
        instead=_changed_and_updated,
    ),
    Mutation(
        without="The due time of the jobs before a waiting job",
        test="test_a_larger_priority_that_is_due_later_is_not_ahead",
        owner=positions,
        name="_due_before",
        instead=_all_before,
    ),
    Mutation(
        without="The end of the leases of holders",
        test="test_a_holder_holds_until_its_lease_ends",
        owner=positions,
        name="_use_of",
        instead=_use_before_any_lease_ends,
    ),
    Mutation(
        without="The order of parked jobs",
        test="test_a_parked_job_tells_its_key_and_the_jobs_before_it",
        owner=positions,
        name="_parked_before",
        instead=_no_number,
    ),
    Mutation(
        without="The guard of an edit",
        test="test_an_edit_is_refused_after_another_edit",
        owner=lifecycle,
        name="edited",
        instead=_edited_at_any_version,
    ),
    Mutation(
        without="The claim number in the guard of an edit",
        test="test_an_edit_is_refused_after_a_claim",
        owner=lifecycle,
        name="edited",
        instead=_edited_at_any_version,
    ),
    Mutation(
        without="The refusal to edit a started job",
        test="test_only_waiting_jobs_are_edited",
        owner=lifecycle,
        name="edited",
        instead=_edited_in_any_status,
        arguments={"status": Status.STARTED},
    ),
    Mutation(
        without="The new search keys of an edited job",
        test="test_params_without_search_keys_leave_none",
        owner=lifecycle,
        name="edited",
        instead=_edited_with_its_search_keys,
    ),
    Mutation(
        without="The parking of an edited job",
        test="test_a_parked_job_stays_parked_with_its_new_priority",
        owner=lifecycle,
        name="edited",
        instead=_edited_and_due,
    ),
    Mutation(
        without="The new charge of a job with a new due time",
        test="test_a_job_with_a_new_due_time_is_charged_anew",
        owner=lifecycle,
        name="is_rescheduled",
        instead=_never,
        arguments={"delay": 15.0},
    ),
    Mutation(
        without="The unchanged update time of an edited job",
        test="test_editing_a_retried_job_keeps_its_attempt",
        owner=lifecycle,
        name="edited",
        instead=_edited_and_updated,
    ),
    Mutation(
        without="The parking of jobs of a paused task",
        test="test_a_claim_parks_the_jobs_of_a_paused_task",
        owner=limits,
        name="task_key",
        instead=_task_key_of_another_task,
    ),
    Mutation(
        without="The news that a pause has ended by itself",
        test="test_a_pause_until_a_time_ends_by_itself_and_poll_says_so",
        owner=rules,
        name="is_changed",
        instead=_changed_by_version_only,
    ),
    Mutation(
        without="The refusal of a pause whose end is past",
        test="test_a_pause_whose_end_is_past_changes_nothing",
        owner=StoreServices,
        name="_pause",
        instead=_pause_until_any_time,
        arguments={"seconds": 1e6},
    ),
    Mutation(
        without="The version of the rules",
        test="test_every_process_is_told_of_a_changed_limit_rule_once",
        owner=StateItems,
        name="written",
        instead=_nothing,
    ),
    Mutation(
        without="The expiry of requests",
        test="test_a_request_is_in_each_answer_until_it_expires",
        owner=rules,
        name="requests_in",
        instead=_requests_in_that_never_expire,
        arguments={"worker": "w1"},
    ),
    Mutation(
        without="The mark of a claim that met denied jobs only",
        test="test_jobs_of_denied_tasks_are_left_to_other_workers_in_their_order",
        owner=claiming,
        name="_meets_denied",
        instead=_never,
        arguments={"queue": "q"},
    ),
    Mutation(
        without="The exclusion of queues",
        test="test_an_excluded_queue_is_left_alone",
        owner=trees,
        name="is_covered",
        instead=_never,
    ),
    Mutation(
        without="The exclusion of whole trees",
        test="test_excluded_subqueues_and_trees_are_left_out",
        owner=trees,
        name="is_covered",
        instead=_covered_by_its_own_name,
    ),
    Mutation(
        without="The end of a name in exclusions",
        test="test_excluded_subqueues_and_trees_are_left_out",
        owner=trees,
        name="is_covered",
        instead=_covered_by_any_beginning,
    ),
    Mutation(
        without="Trees in the filter of jobs",
        test="test_find_by_queues_and_trees",
        owner=matching,
        name="is_covered",
        instead=_covered_by_its_own_name,
    ),
    Mutation(
        without="The queue with the name of a tree",
        test="test_a_tree_contains_the_queue_with_its_name",
        owner=trees,
        name="is_in",
        instead=_is_below,
    ),
    Mutation(
        without="The time in the ids of follow-ups",
        test="test_ids_of_follow_ups_embed_the_time_of_the_outcome_and_keep_their_order",
        owner=lifecycle,
        name="followup_id",
        instead=_hash_as_id,
    ),
    Mutation(
        without="The burst of a rate",
        test="test_a_burst_starts_at_once_and_the_others_at_their_turns",
        owner=limits,
        name="spacing_of",
        instead=_spacing_without_burst,
    ),
    Mutation(
        without="The burst of one under a rate below one",
        test="test_a_rate_below_one_lets_one_start_at_a_time",
        owner=limits,
        name="spacing_of",
        instead=_spacing_of_a_burst_below_one,
    ),
    Mutation(
        without="The cut of the time of a rate whose rule has changed",
        test="test_a_changed_rule_cuts_the_time_of_its_rate_to_one_interval",
        owner=Spacing,
        name="cut",
        instead=_uncut,
    ),
    Mutation(
        without="The check of reserved starts that come late",
        test="test_jobs_whose_turns_have_passed_start_at_the_rate",
        owner=Spacing,
        name="may_start",
        instead=lambda spacing, start_us, now_us: True,
    ),
    Mutation(
        without="The charge of parked jobs only when they are let go",
        test="test_a_job_beyond_the_horizon_is_parked_and_not_charged",
        owner=limits,
        name="_allowed_at",
        instead=_charged_beyond_the_horizon,
    ),
    Mutation(
        without="The time at which a rate lets parked jobs go",
        test="test_next_due_is_the_time_at_which_the_next_job_is_let_go",
        owner=Spacing,
        name="opens_at_us",
        instead=_open_early,
    ),
    Mutation(
        without="Intervals shorter than a second",
        test="test_a_rate_is_never_exceeded",
        owner=limits,
        name="spacing_of",
        instead=_spacing_in_seconds,
    ),
    Mutation(
        without="The end of the terms of an exception",
        test="test_the_terms_of_an_exception_end_with_the_next_attempt",
        owner=TermChanges,
        name="change",
        instead=_add_terms_only,
        arguments={"kind": "retry"},
        brokers=sqlite_brokers,
    ),
    Mutation(
        without="The end of the search keys of a removed job",
        test="test_search_keys_stay_with_the_job",
        owner=TermChanges,
        name="change",
        instead=_add_terms_only,
        brokers=sqlite_brokers,
    ),
    Mutation(
        without="The search keys of follow-ups and admitted jobs",
        test="test_followups_and_admitted_jobs_are_found_by_their_keys",
        owner=TermChanges,
        name="change",
        instead=_change_error_terms_only,
        brokers=sqlite_brokers,
    ),
    Mutation(
        without="The totals of error groups",
        test="test_error_groups_are_counted_in_the_totals",
        owner=TermChanges,
        name="_count",
        instead=_nothing,
        brokers=sqlite_brokers,
    ),
    Mutation(
        without="Every part of a filter by terms",
        test="test_a_job_needs_a_term_of_each_part",
        owner=matching,
        name="has_terms",
        instead=_has_any_term,
        arguments={"wanted": {"error_words": ("stock", "chairs")}},
    ),
    Mutation(
        without="The JSON type of search keys",
        test="test_search_keys_compare_by_json_type",
        owner=terms,
        name="key_term",
        instead=_key_term_of_text,
    ),
    Mutation(
        without="The value of a search key that a job has",
        test="test_search_keys_are_added_to_stored_jobs",
        owner=lifecycle,
        name="with_keys",
        instead=_with_keys_anew,
        arguments={"status": Status.QUEUED},
    ),
    Mutation(
        without="The hash of long values",
        test="test_long_values_with_the_same_start_are_different",
        owner=terms,
        name="_bounded",
        instead=_start_of,
    ),
    Mutation(
        without="The addition of metrics",
        test="test_metrics_of_a_minute_are_added_up",
        owner=Cell,
        name="__add__",
        instead=_latest_cell,
    ),
    Mutation(
        without="The roll-ups by hour",
        test="test_metrics_are_added_up_by_hour_too",
        owner=rollups,
        name="cells_of",
        instead=_minutes_only,
    ),
    Mutation(
        without="The values of tags in a series",
        test="test_series_differ_in_each_of_their_tags",
        owner=rollups,
        name="cells_of",
        instead=_cells_by_names_of_tags,
    ),
    Mutation(
        without="The memory of earlier admissions",
        test="test_a_repeated_admit_gives_its_first_answer",
        owner=embedded_raw,
        name="was_admitted_by",
        instead=_never,
        brokers=sqlite_brokers,
    ),
    Mutation(
        without="The token in the memory of admissions",
        test="test_a_late_admit_is_refused_after_a_redelivery",
        owner=embedded_raw,
        name="was_admitted_by",
        instead=_always,
        brokers=sqlite_brokers,
    ),
    Mutation(
        without="The history in the memory of admissions",
        test="test_a_repeated_admit_gives_its_first_answer_after_a_later_claim",
        owner=embedded_raw,
        name="was_admitted_by",
        instead=_admitted_by_its_latest_token,
        brokers=sqlite_brokers,
    ),
]
NAMES = [mutation.without for mutation in MUTATIONS]


# --- the tests ----------------------------------------------------------------------------------------


def run_named_test(mutation: Mutation, folder: Path) -> None:
    """Calls the test of the suite as pytest would, on a new broker."""
    contract, clock = BrokerContract(), ManualClock()
    factory = mutation.brokers(folder)
    broker = factory(clock)
    test = getattr(contract, mutation.test)
    wanted = test.__code__.co_varnames[1 : test.__code__.co_argcount]
    known = {
        "broker": broker,
        "denying": broker,
        "clock": clock,
        "broker_factory": factory,
        "raw": broker.raw("some_set"),
        "hour": Resolution.HOUR.start_of(clock.now()),
    }
    try:
        test(**{name: value for name, value in known.items() if name in wanted}, **(mutation.arguments or {}))
    finally:
        broker.close()


@pytest.mark.parametrize("mutation", MUTATIONS, ids=NAMES)
def test_the_named_test_passes_with_the_rule(mutation: Mutation, tmp_path: Path) -> None:
    run_named_test(mutation, tmp_path)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=NAMES)
def test_the_named_test_fails_without_the_rule(
    mutation: Mutation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutation.owner, mutation.name, mutation.instead)
    with pytest.raises((AssertionError, ValueError)):
        run_named_test(mutation, tmp_path)


def _broken(name: str, instead: Callable[..., Any]) -> type[MemoryBroker]:
    """A broker with another `settle` or `enqueue`. The model beside it stays whole."""

    def method(self: MemoryBroker, items: Any) -> list[Any]:
        with self.locked() as now:
            return [instead(self._data, item, now) for item in items]

    return type("Broken", (MemoryBroker,), {name: method})


@pytest.mark.parametrize(
    ("name", "instead"),
    [("settle", _settle_unguarded), ("settle", _settle_forgetful), ("enqueue", _enqueue_anew)],
)
def test_the_state_machine_notices_a_broken_driver(name: str, instead: Callable[..., Any]) -> None:
    broken = _broken(name, instead)
    with pytest.raises(AssertionError):
        MachineContract().run(lambda clock: broken(clock=clock), [Phase.generate])


def test_the_page_lists_these_mutations() -> None:
    rows = re.findall(r"^\| ([^|`]+?) \| `(test_\w+)` \|$", PAGE.read_text(), re.M)
    assert rows == [(mutation.without, mutation.test) for mutation in MUTATIONS]
