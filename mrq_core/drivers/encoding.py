"""Records as drivers keep them: msgpack for the record, JSON for its params, and changes beside it.

The params never change. A driver that stores them apart writes a record without touching them.

The two most frequent changes need not write the record at all: a claim of a waiting job, and a success. Their
arguments are stored beside it, and whoever reads applies them. Any other change writes the record in full.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import force_setattr, replace

from mrq_core.clock import from_ms
from mrq_core.contract import codec, lifecycle
from mrq_core.contract.messages import Outcome
from mrq_core.contract.record import JobRecord, Status
from mrq_core.errors import BrokerCorrupt

_encoder = msgspec.msgpack.Encoder()
_record_decoder = msgspec.msgpack.Decoder(JobRecord)
_outcome_decoder = msgspec.msgpack.Decoder(Outcome)


def encode(record: JobRecord) -> bytes:
    """The record without its params."""
    return _encoder.encode(replace(record, params={}) if record.params else record)


def decode(data: bytes) -> JobRecord:
    """What `encode` was given; params are empty. Raises BrokerCorrupt."""
    try:
        return _record_decoder.decode(data)
    except msgspec.DecodeError as error:
        raise _corrupt(error) from error


def encode_outcome(outcome: Outcome) -> bytes:
    """The outcome without its follow-ups, which are jobs of their own by then."""
    return _encoder.encode(replace(outcome, followups=()) if outcome.followups else outcome)


def with_params(record: JobRecord, params: bytes | None) -> JobRecord:
    """The record as it was enqueued, with its params; None for empty ones."""
    return replace(record, params=codec.decode(params)) if params and params != b"{}" else record


def decode_all(data: bytes, params: bytes) -> JobRecord:
    """The record with its params. Raises BrokerCorrupt."""
    record = decode(data)
    if params and params != b"{}":
        force_setattr(record, "params", codec.decode(params))  # nobody else has seen the record yet
    return record


def with_claim(record: JobRecord, *, token: str, worker: str, started_ms: int) -> JobRecord:
    """The record under the first claim since it was written. It has no lease: that is kept elsewhere."""
    nonce = token.partition(".")[2]
    return lifecycle.claimed(
        record, now=from_ms(started_ms), worker=worker, nonce=nonce, lease=0.0, alone=False
    )


def with_outcome(record: JobRecord, outcome: bytes, settled_ms: int) -> JobRecord:
    """The record after its claim was settled. Raises BrokerCorrupt."""
    try:
        decoded = _outcome_decoder.decode(outcome)
    except msgspec.DecodeError as error:
        raise _corrupt(error) from error
    return lifecycle.settled(record, decoded, from_ms(settled_ms))


def is_plain(record: JobRecord) -> bool:
    """Whether a success of the job changes what is stored of it and nothing else."""
    return not (record.limit_keys or record.unique_key is not None or record.cancel_requested)


def is_plain_success(outcome: Outcome) -> bool:
    """Whether the outcome of a plain job can be stored beside its record."""
    return outcome.status is Status.SUCCESS and outcome.delay is None and outcome.exception_type is None


def is_parked(record: JobRecord) -> bool:
    """Whether the job waits for room under a limit key, and not for its time."""
    return record.due_at is None and record.ended_at is None and record.status is not Status.STARTED


def _corrupt(error: msgspec.DecodeError) -> BrokerCorrupt:
    return BrokerCorrupt(
        f"a stored record cannot be read ({error}): it was changed by hand, or the data is damaged; "
        "see `mrq check`"
    )
