"""Documents near the 16 MB that the server takes: the room that a job needs to be claimed and to fail.

A claim adds to a document. A claim that the server refuses would be repeated again and again, and would keep
the jobs behind it waiting. So a job that leaves too little room is refused earlier, by the call that makes it
so large: an enqueue, an edit, a requeue, a retry.

Only documents that may be large are encoded once more. See `is_small`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bson
import msgspec
from bson.errors import BSONError

from mrq_broker_mongo.jobs.records import Stored
from mrq_broker_mongo.server.location import Doc
from mrq_core.contract.record import Attempt, JobRecord
from mrq_core.drivers.replacing import LeavesNoRoom
from mrq_core.errors import ValueTooLarge

MOST = 16 * 1024 * 1024
"""Bytes of a document, as the server takes them (`maxBsonObjectSize`)."""
ROOM, ROOM_AGAIN = 64 * 1024, 16 * 1024
"""Bytes that a new job leaves, and a job that waits again. A claim, and each of ten lost claims, takes about
300 and the name of the worker; a short failure takes 1,000."""
_FEW = 50
"""Values in the params and the like that are examined one by one. Of more values, the JSON is made."""
_SHORT = 2_000_000
"""Characters in the texts of a small job, each of up to four bytes; or bytes of its JSON. BSON takes at most
seven times as much, in a list of small numbers."""
_encoder = msgspec.json.Encoder()


def check_new(record: JobRecord, doc: Doc) -> None:
    """Raises ValueTooLarge for a new job that leaves less than `ROOM`."""
    if not is_small(record) and (size := _size_of(doc)) > MOST - ROOM:
        raise _params_too_large(size, MOST - ROOM)


def check_again(before: Stored, after: JobRecord, update: Doc) -> None:
    """Raises ValueTooLarge for edited params, and LeavesNoRoom for another change, if the job may be claimed
    later and leaves less than `ROOM_AGAIN`."""
    if after.is_ended:
        return
    record = before.record
    has_new_params = after.params is not record.params and after.edits != record.edits
    has_grown = has_new_params or after.status is not record.status or after.search_keys != record.search_keys
    if not has_grown or is_small(after):
        return
    gone = update.get("$unset", {})
    written = {**before.doc, **update["$set"]}
    size = _size_of({name: value for name, value in written.items() if name not in gone})
    if size <= MOST - ROOM_AGAIN:
        return
    if has_new_params:
        raise _params_too_large(size, MOST - ROOM_AGAIN)
    raise LeavesNoRoom(
        f"job {after.id} cannot be changed so that it runs again: with its params and its earlier attempts "
        f"it would take {size:,} bytes in MongoDB, and may take {MOST - ROOM_AGAIN:,} of 16 MB, so that it "
        "can be claimed; queue a new job, with what is large stored elsewhere",
        job_ids=(after.id,),
    )


def is_small(record: JobRecord) -> bool:
    """Whether the document of the record is far below the limit. Encodes nothing of a record with few values,
    which takes 1 µs."""
    left, count = _SHORT, 0
    attempts: list[JobRecord | Attempt] = []
    if record.traceback is not None or record.history:
        attempts = [record, *record.history]
        count = len(attempts)
    for attempt in attempts:
        left -= len(attempt.traceback or "") + len(attempt.original_traceback or "")
    values: list[Any] = [record.params]
    if record.result is not None or record.meta or record.search_keys:
        values += [record.result, record.meta, record.search_keys]
    for value in values:  # which grows
        kind = type(value)
        if kind is str:
            left -= len(value)
        elif kind is dict or kind is list:
            count += len(value)
            if count > _FEW:
                return _is_short(record)
            if kind is dict:
                left -= len("".join(value))
                values += value.values()
            else:
                values += value
    return left >= 0


def _is_short(record: JobRecord) -> bool:
    try:
        return len(_encoder.encode(record)) <= _SHORT
    except (TypeError, ValueError, OverflowError, RecursionError):
        return True  # the driver names the value that cannot be stored


def all_of(refused: Sequence[LeavesNoRoom]) -> LeavesNoRoom:
    """One error for all these jobs, with the text of the first."""
    ids = tuple(job_id for error in refused for job_id in error.job_ids)
    more = f"; and {len(ids) - 1} more jobs" if len(ids) > 1 else ""
    return LeavesNoRoom(f"{refused[0]}{more}", job_ids=ids)


def _size_of(doc: Doc) -> int:
    try:
        return len(bson.encode(doc))
    except (BSONError, OverflowError, TypeError, ValueError, RecursionError):
        return 0  # the driver names the value that cannot be stored


def _params_too_large(size: int, limit: int) -> ValueTooLarge:
    return ValueTooLarge(
        f"params is too large: the job would take {size:,} bytes in MongoDB, and may take {limit:,} of "
        "16 MB, so that it can be claimed; store what is larger elsewhere, and its name in the params",
        path="params",
        size=size,
        limit=limit,
    )
