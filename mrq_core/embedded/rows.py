"""Records as rows: the record itself as msgpack, without its params, beside what is searched for.

The params stand in a column of their own, as JSON. They never change, and most writes of a record
then neither decode nor encode them.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec.structs import replace

from mrq_core import codec
from mrq_core.clock import from_ms
from mrq_core.errors import BrokerCorrupt
from mrq_core.job import JobRecord, Status

CLAIMED_RANK = 9

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(JobRecord)


def encode(record: JobRecord) -> bytes:
    """The record without its params."""
    return _encoder.encode(replace(record, params={}) if record.params else record)


def decode(data: bytes) -> JobRecord:
    """What `encode` was given; params are empty."""
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise BrokerCorrupt(
            f"a stored record cannot be read ({error}): it was changed by hand, or the file is damaged; "
            "see `mrq check`"
        ) from error


def with_params(record: JobRecord, params: bytes) -> JobRecord:
    """The record as it was enqueued, with its params."""
    return replace(record, params=codec.decode(params)) if params != b"{}" else record


def rank(record: JobRecord) -> int | None:
    """Where the record's entry stands in its queue; None where it stands in no line."""
    if record.due_at is None:
        return None
    return CLAIMED_RANK if record.status is Status.STARTED else -record.priority


def is_parked(record: JobRecord) -> bool:
    """Whether the job waits for room under a limit key, and not for its time."""
    return record.due_at is None and record.ended_at is None and record.status is not Status.STARTED


def counted_as(record: JobRecord) -> str | None:
    """What the record's entry is counted as; None where it has none."""
    if record.status is Status.STARTED:
        return "claimed"
    return None if record.ended_at is not None else "waiting"


def ms(moment: datetime | None) -> int | None:
    """Milliseconds, or NULL. For times of records, which are aware and whole milliseconds."""
    return None if moment is None else round(moment.timestamp() * 1000)


def moment(milliseconds: int | None) -> datetime | None:
    """The time, or None for NULL."""
    return None if milliseconds is None else from_ms(milliseconds)
