"""Changing: one script reads records, and another replaces each record that has not changed.

`mrq_core.drivers.replacing` makes the changes: requeue, cancel, move, remove, and settle in full.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import islice

from mrq_broker_redis.jobs import enqueueing, records
from mrq_broker_redis.jobs import limits as limit_rules
from mrq_broker_redis.jobs.records import Stored
from mrq_broker_redis.server import layout
from mrq_broker_redis.server.connection import Connection
from mrq_broker_redis.server.layout import Contents
from mrq_core.clock import from_ms
from mrq_core.contract import lifecycle
from mrq_core.contract.messages import Limit
from mrq_core.contract.pair import Replacement, WriteResult
from mrq_core.contract.record import JobRecord, Status

BATCH = 100
"""The most jobs that one script reads or writes."""
_WRITTEN = (WriteResult.CHANGED, WriteResult.DONE, WriteResult.HELD)
"""The result by the answer of the script."""


class Records:
    """The records of a prefix. See `mrq_core.drivers.replacing.Records`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def read(self, ids: Sequence[str]) -> tuple[datetime, list[Stored | None]]:
        """The server's time, and the records, including expired records."""
        stored: list[Stored | None] = []
        now = from_ms(0)
        for start in range(0, max(1, len(ids)), BATCH):
            part = ids[start : start + BATCH]
            answer = self._connection.run("read", list(part), repeatable=True)
            now = from_ms(int(answer[0]))
            rows = zip(part, islice(answer, 1, None), strict=True)
            stored += [None if row is None else records.read(job_id, row) for job_id, row in rows]
        return now, stored

    def write(
        self,
        replacements: Sequence[Replacement[Stored]],
        now: datetime,
        limits: Mapping[str, Limit] | None = None,
    ) -> list[WriteResult]:
        """Writes each unchanged record. A job that is claimed again needs room under these limits. The
        scripts use the server's time, a moment later."""
        if replacements:
            layout.ensure(self._connection, Contents.JOBS)
        answers: list[int] = []
        for start in range(0, len(replacements), BATCH):
            part = replacements[start : start + BATCH]
            arguments = [limit_rules.limits_as_map(limits or {}), [_as_list(one) for one in part]]
            answers += self._connection.run("replace", arguments, even_if_full=all(map(_ends, part)))
        return [_WRITTEN[answer] for answer in answers]


def _ends(one: Replacement[Stored]) -> bool:
    """Whether the change removes or ends the job or its attempt: a full server takes such changes."""
    before, after = one.before.record, one.after
    if after is None or after.is_ended or after.cancel_requested:
        return True
    return before.status is Status.STARTED and after.status is not Status.STARTED


def _as_list(one: Replacement[Stored]) -> object:
    row = False if one.after is None else records.row_of(one.after)
    followups = [enqueueing.new(job) for job in one.followups]
    reserve = "reserve" if one.reserve else ""
    change: list[object] = [
        one.before.record.id,
        records.binary(one.before.seen),
        row,
        reserve,
        followups,
        one.ask_to_stop,
    ]
    edit = None if one.after is None else _edit_of(one.before.record, one.after)
    if edit is not None:
        change.append(edit)
    return change


def _edit_of(before: JobRecord, after: JobRecord) -> list[object] | None:
    """The changes that only an edit and added search keys make, as lua/jobs/replace.lua takes them."""
    has_new_keys = after.search_keys != before.search_keys
    has_new_params = after.edits != before.edits and after.params is not before.params
    is_rescheduled = lifecycle.is_rescheduled(before, after)
    if not (has_new_keys or has_new_params or is_rescheduled):
        return None
    keys = records.search_keys_of(after) if has_new_keys else False
    params = records.params_of(after) if has_new_params else False
    return [keys, params, is_rescheduled]
