"""Changes by operators and rules: requeue, cancel, move, edit, remove, added search keys."""

from __future__ import annotations

from datetime import datetime

from mrq_core.contract import lifecycle
from mrq_core.contract.messages import Action, AddedKeys, Cancel, ChangeResult, Edit, Requeue
from mrq_core.testing.memory.data import MemoryData


def change(data: MemoryData, job_id: str, action: Action, now: datetime) -> ChangeResult:
    """Applies the action to one job. See `requeue`, `cancel`, `move` and `remove` of `Broker`."""
    before = data.visible(job_id, now)
    if before is None:
        return ChangeResult.UNKNOWN
    answer, after = lifecycle.changed(before, action, now)
    if answer in (ChangeResult.REFUSED, ChangeResult.UNCHANGED):
        return answer
    if isinstance(action, Requeue) and not data.uniques.reserve_again(job_id, now):
        return ChangeResult.HELD
    if after is None:
        data.delete(job_id)
        return answer
    data.put(after, now)
    if answer is ChangeResult.REQUESTED and isinstance(action, Cancel) and action.interrupt:
        data.signals.append(job_id)
    return answer


def edit(data: MemoryData, edit: Edit, now: datetime) -> ChangeResult:
    """Edits one waiting job. See `Broker.edit`."""
    before = data.visible(edit.id, now)
    if before is None:
        return ChangeResult.UNKNOWN
    after = lifecycle.edited(before, edit, now)
    if after is None:
        return ChangeResult.REFUSED
    if lifecycle.is_rescheduled(before, after):
        data.limits.forget(edit.id)
    data.put(after, now)
    return ChangeResult.DONE


def add_search_keys(data: MemoryData, added: AddedKeys, now: datetime) -> ChangeResult:
    """Adds search keys to one job. See `Broker.add_search_keys`."""
    before = data.visible(added.id, now)
    if before is None:
        return ChangeResult.UNKNOWN
    after = lifecycle.with_keys(before, added.search_keys)
    if after is None:
        return ChangeResult.REFUSED
    data.put(after, now)
    return ChangeResult.DONE
