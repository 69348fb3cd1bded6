"""Stored records: msgpack for the record, JSON for its params, and the latest changes beside the record.

The params change only with an edit of a waiting job. A driver that stores them separately writes a record
without touching the params otherwise.

The two most frequent changes do not write the record: the claim of a waiting job, and a success. A driver
stores their arguments beside the record, and each reader applies them. Other changes write the whole record.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import force_setattr, replace

from mrq_core.clock import from_ms
from mrq_core.contract import codec, lifecycle
from mrq_core.contract.codec import JsonObject
from mrq_core.contract.messages import Outcome
from mrq_core.contract.record import JobRecord, Status
from mrq_core.drivers import damage
from mrq_core.errors import BrokerCorrupt

UNREADABLE = (msgspec.DecodeError, TypeError, ValueError)
"""What decoding raises: TypeError for anything but bytes, ValueError for values that do not fit together."""
_encoder = msgspec.msgpack.Encoder()
_record_decoder = msgspec.msgpack.Decoder(JobRecord)
_outcome_decoder = msgspec.msgpack.Decoder(Outcome)


def encode(record: JobRecord) -> bytes:
    """Encodes the record without its params."""
    return _encoder.encode(replace(record, params={}) if record.params else record)


def decode(data: bytes) -> JobRecord:
    """Decodes a record that `encode` wrote; the params are empty. Raises BrokerCorrupt."""
    try:
        return _record_decoder.decode(data)
    except UNREADABLE as error:
        raise _corrupt(error) from error


def encode_outcome(outcome: Outcome) -> bytes:
    """Encodes the outcome without its follow-ups, which the driver stores as jobs."""
    return _encoder.encode(replace(outcome, followups=()) if outcome.followups else outcome)


def with_params(record: JobRecord, params: bytes | None) -> JobRecord:
    """Adds the stored params to the record. None: the params are empty. Raises JobDamaged."""
    return replace(record, params=_params(record, params)) if params and params != b"{}" else record


def decode_all(data: bytes, params: bytes) -> JobRecord:
    """Decodes a record with its params. Raises BrokerCorrupt, and JobDamaged for the params."""
    record = decode(data)
    if params and params != b"{}":
        force_setattr(record, "params", _params(record, params))  # no other code has seen the record yet
    return record


def has_values(params: bytes, wanted: JsonObject) -> bool:
    """Whether the stored params contain these values. Params that cannot be read contain nothing."""
    try:
        return codec.has_values(codec.decode_object(params), wanted)
    except UNREADABLE:
        return False


def with_claim(record: JobRecord, *, token: str, worker: str, started_ms: int) -> JobRecord:
    """Applies the first claim since the record was written. The driver stores the lease elsewhere."""
    nonce = token.partition(".")[2]
    return lifecycle.claimed(record, now=from_ms(started_ms), worker=worker, nonce=nonce, lease=0.0)


def with_outcome(record: JobRecord, outcome: bytes, settled_ms: int) -> JobRecord:
    """Applies the stored outcome of the claim. Raises BrokerCorrupt."""
    try:
        return lifecycle.settled(record, _outcome_decoder.decode(outcome), from_ms(settled_ms))
    except UNREADABLE as error:
        raise _corrupt(error) from error


def is_plain(record: JobRecord) -> bool:
    """Whether a success of the job changes only the stored job: no limit key, unique key or signal."""
    return not (record.limit_keys or record.unique_key is not None or record.cancel_requested)


def is_plain_success(outcome: Outcome) -> bool:
    """Whether a driver can store the outcome of a plain job beside its record."""
    return outcome.status is Status.SUCCESS and outcome.delay is None and outcome.exception_type is None


def is_parked(record: JobRecord) -> bool:
    """Whether the job waits for room under a limit key instead of a due time."""
    return record.due_at is None and record.ended_at is None and record.status is not Status.STARTED


def _params(record: JobRecord, params: bytes) -> Any:
    try:
        return codec.decode_object(params)
    except UNREADABLE as error:
        if lifecycle.is_set_aside(record):
            return {}
        raise damage.damaged(record.id, "params", error) from error


def _corrupt(error: Exception) -> BrokerCorrupt:
    return BrokerCorrupt(
        f"a stored record cannot be read ({error}): it was changed by hand, or the data is damaged; "
        "see `mrq check`"
    )
