"""Jobs whose stored data cannot be read, because they were changed by hand or are damaged.

A call that meets such a job raises JobDamaged. The driver then sets the job aside, in one atomic operation,
and repeats the call. The record is made anew from all values that can still be read, and has the exception
`JobDamaged` with the damaged data. A job that waits, or whose claim was lost, fails. A running job goes on
with its attempt, and an ended job keeps its status.

Params that cannot be read stay as they are stored. A requeued job without readable params therefore fails
again, and never runs with other params.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import wraps
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from mrq_core.contract.lifecycle import DAMAGED
from mrq_core.contract.record import HISTORY_LIMIT, Attempt, JobRecord, Status
from mrq_core.contract.terms import MESSAGE_LIMIT, error_group
from mrq_core.errors import BrokerUnavailable, JobDamaged, shown_error

MOST = 1000
"""The number of times that one call sets jobs aside and is repeated."""
METHODS = (
    *("claim", "enqueue", "renew", "annotate", "settle", "requeue", "cancel", "move", "edit", "remove"),
    *("add_search_keys", "prune", "apply", "get", "find", "count", "queue_position"),
)
"""The methods of a broker that may read records."""
_KEPT_MOST = 1024 * 1024
"""The bytes of each damaged value that the record keeps."""
_TYPES = {field.name: field.type for field in msgspec.structs.fields(JobRecord)}

_Answer = TypeVar("_Answer")


def damaged(job_id: str, what: str, error: BaseException | None) -> JobDamaged:
    """The error for a job of which a part, such as ``record``, cannot be read."""
    why = "" if error is None else f" ({shown_error(error)})"
    return JobDamaged(
        f"the {what} of job {job_id} cannot be read{why}: the data was changed by hand, or is damaged; "
        f"`mrq jobs remove {job_id}` deletes the job",
        job_id=job_id,
    )


def past_damage(call: Callable[[], _Answer], set_aside: Callable[[JobDamaged], bool]) -> _Answer:
    """The answer of a call. Sets each damaged job aside that the call meets, and repeats the call.

    `set_aside` returns False if the job is not damaged any more, or cannot be set aside; the same error again
    then ends the call.
    """
    last = ""
    for _ in range(MOST):
        try:
            return call()
        except JobDamaged as error:
            try:
                done = set_aside(error)
            except BrokerUnavailable as refused:
                raise error from refused
            if not done and error.job_id == last:
                raise
            last = error.job_id
    return call()


Kind = TypeVar("Kind", bound=type)


def sets_damaged_jobs_aside(*names: str) -> Callable[[Kind], Kind]:
    """Decorates a class: these methods set damaged jobs aside. The class has a method `past_damage`, which
    repeats a call like the function of that name."""

    def decorate(kind: Kind) -> Kind:
        for name in names:
            setattr(kind, name, _past_damage_in(getattr(kind, name)))
        return kind

    return decorate


def _past_damage_in(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(self: Any, *args: Any, **more: Any) -> Any:
        try:
            return method(self, *args, **more)
        except JobDamaged:
            return self.past_damage(lambda: method(self, *args, **more))

    return call


def readable(fields: Mapping[str, object]) -> dict[str, Any]:
    """The values of a record's fields that have the type of their field."""
    values = {}
    for name, value in fields.items():
        if name in _TYPES:
            try:
                values[name] = msgspec.convert(value, _TYPES[name])
            except msgspec.ValidationError:
                continue
    return values


def readable_in(data: object) -> dict[str, Any]:
    """The same for an encoded record. Empty if the data is not msgpack."""
    if not isinstance(data, bytes | bytearray):
        return {}
    try:
        fields = msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, ValueError):
        return {}
    return readable({n: v for n, v in fields.items() if isinstance(n, str)}) if type(fields) is dict else {}


def set_aside(
    known: JobRecord,
    now: datetime,
    error: JobDamaged,
    stored: Mapping[str, object],
    *,
    is_over: bool | None = None,
) -> JobRecord:
    """The record of a damaged job.

    `known` has all that can be read. `stored` are the damaged values by their names. `is_over`: whether
    the attempt of a started job is over; None: if its lease is.
    """
    message = str(error)
    traceback = "\n\n".join([f"{DAMAGED}: {message}", *map(_kept, stored, stored.values())])
    raised = replace(
        known,
        updated_at=now,
        exception_type=DAMAGED,
        exception_message=message[:MESSAGE_LIMIT],
        error_group=error_group(known.path, DAMAGED),
        traceback=traceback,
    )
    if known.is_ended:
        return raised
    if is_over is None:
        is_over = (known.lease_until or now) <= now
    if known.status is Status.STARTED and not is_over:
        return _running(known, raised, now)
    return replace(
        raised,
        status=Status.FAILED,
        started_at=known.started_at or now,  # so that a requeue moves the exception to the history
        due_at=None,
        lease_until=None,
        token=None,  # a late settle must be refused, not taken for a repeated one
        ended_at=now,
        expires_at=None,
    )


def _running(record: JobRecord, raised: JobRecord, now: datetime) -> JobRecord:
    """The record of a running job, which has no exception: its history has the damaged data."""
    found = Attempt(
        claim=record.claims,
        token="",
        started_at=record.started_at or now,
        ended_at=now,
        worker=record.worker or "",
        status=record.status,
        exception_type=DAMAGED,
        traceback=raised.traceback,
    )
    return replace(record, history=(*record.history, found)[-HISTORY_LIMIT:])


def _kept(name: str, value: object) -> str:
    """A damaged value as text."""
    if not isinstance(value, bytes | bytearray):
        text = str(value)
        return f"The stored {name}:\n{text[:_KEPT_MOST]}"
    part = "" if len(value) <= _KEPT_MOST else f", the first {_KEPT_MOST:,} of {len(value):,} bytes"
    return f"The stored {name}, in base64{part}:\n{base64.b64encode(value[:_KEPT_MOST]).decode()}"
