"""Reads a record, applies a transition of `lifecycle`, and writes the result by compare-and-set.

For drivers whose server can replace a record only if the record is unchanged since it was read. A changed
record is read again. So `lifecycle` alone holds the rules of a job's life, and no lock is held between
two calls.
(Optimistic concurrency control: H. T. Kung, J. T. Robinson, ACM TODS 6 (2), 1981.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol, TypeVar

from mrq_core.contract import lifecycle
from mrq_core.contract.messages import (
    Action,
    AddedKeys,
    Applied,
    Cancel,
    ChangeResult,
    Edit,
    Requeue,
    Settlement,
)
from mrq_core.contract.pair import ReadJob, Replacement, WriteResult
from mrq_core.contract.queries import Page
from mrq_core.contract.record import JobRecord, Status
from mrq_core.errors import BrokerUnavailable, RecordTooLarge

ATTEMPTS = 50
"""How often a job is read again after another process changed it first."""


S = TypeVar("S", bound=ReadJob)
_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


class Records(Protocol[S]):
    """The records of a driver."""

    def read(self, ids: Sequence[str]) -> tuple[datetime, list[S | None]]:
        """The server's time, and the records, including expired records. None: no such job."""
        ...

    def write(self, replacements: Sequence[Replacement[S]], now: datetime) -> list[WriteResult]:
        """Writes each replacement with its consequences, if the job is unchanged since it was read."""
        ...


class LeavesNoRoom(RecordTooLarge):
    """Jobs that the server could not claim after this change, because they would leave no room for a claim.
    Nothing of the call is written."""

    def __init__(self, message: str, *, job_ids: tuple[str, ...]) -> None:
        super().__init__(message)
        self.job_ids = job_ids


# --- changes by operators and rules -----------------------------------------------------------------


def act(records: Records[S], ids: Sequence[str], action: Action) -> list[ChangeResult]:
    """Applies the action to each job. See `requeue`, `cancel`, `move` and `remove` of `Broker`."""
    made = act_where(records, ids, action, lambda record: True)
    return [ChangeResult.UNKNOWN if change is None else change for change in made]


def act_where(
    records: Records[S], ids: Sequence[str], action: Action, is_match: Callable[[JobRecord], bool]
) -> list[ChangeResult | None]:
    """Applies the action to each job that matches at the moment of the change. None: no match."""

    def step(
        job_id: str, stored: S | None, now: datetime
    ) -> ChangeResult | tuple[ChangeResult, Replacement[S]] | None:
        if stored is None or lifecycle.has_expired(stored.record, now) or not is_match(stored.record):
            return None
        result, after = lifecycle.changed(stored.record, action, now)
        if result in (ChangeResult.REFUSED, ChangeResult.UNCHANGED):
            return result
        is_stop = isinstance(action, Cancel) and action.interrupt and result is ChangeResult.REQUESTED
        reserve = isinstance(action, Requeue)
        return result, Replacement(stored, after, reserve=reserve, ask_to_stop=is_stop)

    otherwise: dict[WriteResult, ChangeResult | None] = {WriteResult.HELD: ChangeResult.HELD}
    return _each(records, ids, str, step, otherwise)


def apply(records: Records[S], page: Page, action: Action, is_match: Callable[[JobRecord], bool]) -> Applied:
    """Applies the action to the jobs of a page that still match. See `Broker.apply`. Jobs that would leave no
    room for a claim count as too large, so that the next step gets past them."""
    ids = [record.id for record in page.records]
    made = _past_full(
        ids, str, lambda some: act_where(records, some, action, is_match), ChangeResult.TOO_LARGE
    )
    numbers: dict[ChangeResult, int] = {}
    for change in made:
        if change is not None:
            numbers[change] = numbers.get(change, 0) + 1
    return Applied(matched=sum(numbers.values()), changes=numbers, cursor=page.cursor)


def add_search_keys(records: Records[S], added: Sequence[AddedKeys]) -> list[ChangeResult]:
    """Adds search keys to jobs, except those that would leave no room for a claim. See
    `Broker.add_search_keys`."""

    def step(
        one: AddedKeys, stored: S | None, now: datetime
    ) -> ChangeResult | tuple[ChangeResult, Replacement[S]]:
        if stored is None or lifecycle.has_expired(stored.record, now):
            return ChangeResult.UNKNOWN
        after = lifecycle.with_keys(stored.record, one.search_keys)
        return ChangeResult.REFUSED if after is None else (ChangeResult.DONE, Replacement(stored, after))

    def id_of(one: AddedKeys) -> str:
        return one.id

    return _past_full(added, id_of, lambda some: _each(records, some, id_of, step, {}), ChangeResult.REFUSED)


def edit(records: Records[S], edits: Sequence[Edit]) -> list[ChangeResult]:
    """Edits waiting jobs. See `Broker.edit`."""

    def step(
        one: Edit, stored: S | None, now: datetime
    ) -> ChangeResult | tuple[ChangeResult, Replacement[S]]:
        if stored is None or lifecycle.has_expired(stored.record, now):
            return ChangeResult.UNKNOWN
        after = lifecycle.edited(stored.record, one, now)
        return ChangeResult.REFUSED if after is None else (ChangeResult.DONE, Replacement(stored, after))

    return _each(records, edits, lambda one: one.id, step, {})


# --- settling in full -------------------------------------------------------------------------------


def settle(records: Records[S], settlements: Sequence[Settlement]) -> list[bool]:
    """Ends claims. See `Broker.settle`."""

    def step(settlement: Settlement, stored: S | None, now: datetime) -> bool | tuple[bool, Replacement[S]]:
        if stored is None:
            return False
        record = stored.record
        if record.token != settlement.token or record.status is not Status.STARTED:
            return lifecycle.was_settled_by(record, settlement.token)
        after = lifecycle.settled(record, settlement.outcome, now)
        is_as_wished = after.status is settlement.outcome.status  # and not cancelled instead
        followups = settlement.outcome.followups if is_as_wished else ()
        return True, Replacement(stored, after, followups)

    return _each(records, settlements, lambda settlement: settlement.id, step, {})


def _past_full(
    items: Sequence[_Item],
    id_of: Callable[[_Item], str],
    change: Callable[[Sequence[_Item]], Sequence[_Answer | ChangeResult]],
    otherwise: ChangeResult,
) -> list[_Answer | ChangeResult]:
    """The answers of the change, and `otherwise` for the jobs for which it raises LeavesNoRoom."""
    full: set[str] = set()
    while True:
        try:
            answers = iter(change([item for item in items if id_of(item) not in full]))
        except LeavesNoRoom as error:
            if full.issuperset(error.job_ids):
                raise
            full.update(error.job_ids)
        else:
            return [otherwise if id_of(item) in full else next(answers) for item in items]


def _each(
    records: Records[S],
    items: Sequence[_Item],
    id_of: Callable[[_Item], str],
    step: Callable[[_Item, S | None, datetime], _Answer | tuple[_Answer, Replacement[S]]],
    otherwise: Mapping[WriteResult, _Answer],
) -> list[_Answer]:
    """Performs one step for each item, in order. A later item of the same job sees the earlier change.

    A step returns an answer, or an answer with the replacement that has to be written first. `otherwise` maps
    other results of the write to answers.
    """
    answers: dict[int, _Answer] = {}
    left = list(range(len(items)))
    for _ in range(ATTEMPTS):
        if not left:
            break
        # One item for each job in a round.
        chosen = list({id_of(items[index]): index for index in reversed(left)}.values())[::-1]
        now, found = records.read([id_of(items[index]) for index in chosen])
        planned: list[tuple[int, _Answer, Replacement[S]]] = []
        for index, stored in zip(chosen, found, strict=True):
            made = step(items[index], stored, now)
            if isinstance(made, tuple):
                planned.append((index, *made))
            else:
                answers[index] = made
        results = records.write([replacement for *_, replacement in planned], now)
        for (index, answer, _), result in zip(planned, results, strict=True):
            if result is WriteResult.DONE:
                answers[index] = answer
            elif result in otherwise:
                answers[index] = otherwise[result]
        left = [index for index in left if index not in answers]
    if left:
        raise BrokerUnavailable(
            f"{len(left)} jobs were changed by other processes before this call could write them: try again"
        )
    return [answers[index] for index in range(len(items))]
