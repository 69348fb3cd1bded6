"""Records as stored: copies, so that a caller cannot change stored values."""

from __future__ import annotations

from msgspec.structs import replace

from mrq_core.contract.codec import JsonObject, decode, encode
from mrq_core.contract.record import JobRecord, Status


def copy(record: JobRecord) -> JobRecord:
    """The record with copies of its mutable values: params, meta and result."""
    return replace(
        record,
        params=_copy_object(record.params),
        meta=_copy_object(record.meta),
        result=decode(encode(record.result)),
    )


def _copy_object(value: JsonObject) -> JsonObject:
    copied = decode(encode(value))
    assert isinstance(copied, dict)
    return copied


def is_held(record: JobRecord, token: str) -> bool:
    """Whether the token is that of the latest claim, and the claim is not settled."""
    return record.status is Status.STARTED and record.token == token
