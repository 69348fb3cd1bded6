"""Changes of many jobs by a maintenance task, in bounded steps, with a dry run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from mrq_core.client.ambient import current_client
from mrq_core.contract import lifecycle
from mrq_core.contract.messages import CHUNK, Action, ChangeResult
from mrq_core.contract.queries import JobFilter, Order
from mrq_core.contract.record import JobRecord
from mrq_core.operations.actions import apply_to_ids
from mrq_core.running.context import get_current_job

_PAGE = 500


def change_matching(
    wanted: JobFilter, action: Action, *, is_meant: Callable[[JobRecord], bool], dry_run: bool
) -> int:
    """Applies the action to the matching jobs for which `is_meant` is true, oldest first. Returns the number
    of changed jobs, or with `dry_run` of those that would change.

    Atomic for each job; a job that another process changes meanwhile is changed only if its status still
    allows it. Leaves out the job of the calling task.
    """
    broker = current_client().broker
    own = get_current_job()
    cursor, changed = None, 0
    while True:
        page = broker.find(wanted, order=Order.OLDEST_FIRST, cursor=cursor, limit=min(_PAGE, CHUNK))
        meant = [
            record for record in page.records if is_meant(record) and (own is None or record.id != own.id)
        ]
        if dry_run:
            now = broker.now()
            answers = [lifecycle.changed(record, action, now)[0] for record in meant]
        else:
            answers = [answer for _, answer in apply_to_ids(broker, [record.id for record in meant], action)]
        changed += sum(answer in (ChangeResult.DONE, ChangeResult.REQUESTED) for answer in answers)
        cursor = page.cursor
        if cursor is None:
            return changed


def begins_after() -> datetime:
    """The time from which this task leaves jobs alone: a millisecond after its job was queued, or after now.

    Times are in milliseconds, so a job with the time of this task may have been queued before this task.
    """
    own = get_current_job()
    begun = current_client().broker.now() if own is None else own.record.queued_at
    return begun + timedelta(milliseconds=1)
