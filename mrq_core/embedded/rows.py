"""Records as rows: the record itself as msgpack, without its params, beside what is searched for.

The params stand in a column of their own, as JSON. They never change, and most writes of a record
then neither decode nor encode them.

Nor do the two most frequent changes encode the record: a claim of a waiting job, and a success, are written
as the arguments of their transition. `read` applies it, and the next change writes the record in full.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec.structs import replace

from mrq_core import codec, lifecycle
from mrq_core.clock import from_ms
from mrq_core.errors import BrokerCorrupt
from mrq_core.job import JobRecord, Outcome, Status

CLAIMED_RANK = 9

COLUMNS = "record, token, worker, started_ms, due_ms, outcome, settled_ms"
"""What `read` needs of a row, in the order of its arguments."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(JobRecord)
_outcome_decoder = msgspec.msgpack.Decoder(Outcome)


def encode(record: JobRecord) -> bytes:
    """The record without its params."""
    return _encoder.encode(replace(record, params={}) if record.params else record)


def encode_outcome(outcome: Outcome) -> bytes:
    """The outcome without its follow-ups, which are jobs of their own by then."""
    return _encoder.encode(replace(outcome, followups=()) if outcome.followups else outcome)


def decode(data: bytes) -> JobRecord:
    """What `encode` was given; params are empty. All that there is to know of a job that waits."""
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise _corrupt(error) from error


def read(
    data: bytes,
    token: str | None,
    worker: str | None,
    started_ms: int | None,
    due_ms: int | None,
    outcome: bytes | None,
    settled_ms: int | None,
) -> JobRecord:
    """The record of any row; params are empty. Applies the claim and the success that stand beside it."""
    record = decode(data)
    if started_ms is not None:
        record = _claimed(record, token or "", worker or "", started_ms, due_ms)
    if outcome is not None and settled_ms is not None:
        try:
            record = lifecycle.settled(record, _outcome_decoder.decode(outcome), from_ms(settled_ms))
        except msgspec.DecodeError as error:
            raise _corrupt(error) from error
    return record


def _claimed(record: JobRecord, token: str, worker: str, started_ms: int, due_ms: int | None) -> JobRecord:
    nonce = token.partition(".")[2]
    claimed = lifecycle.claimed(
        record, now=from_ms(started_ms), worker=worker, nonce=nonce, lease=0.0, alone=False
    )
    until = moment(due_ms)
    return replace(claimed, due_at=until, lease_until=until)


def _corrupt(error: msgspec.DecodeError) -> BrokerCorrupt:
    return BrokerCorrupt(
        f"a stored record cannot be read ({error}): it was changed by hand, or the file is damaged; "
        "see `mrq check`"
    )


def with_params(record: JobRecord, params: bytes) -> JobRecord:
    """The record as it was enqueued, with its params."""
    return replace(record, params=codec.decode(params)) if params != b"{}" else record


def is_plain(record: JobRecord) -> bool:
    """Whether a success of the job changes its row and nothing else."""
    return not (record.limit_keys or record.unique_key is not None or record.cancel_requested)


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
