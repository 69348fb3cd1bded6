"""Records as fields of a hash, and back. lua/jobs/records.lua lists the fields."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from mrq_core.clock import from_ms, to_ms
from mrq_core.contract import codec
from mrq_core.contract.record import JobRecord, Status
from mrq_core.contract.terms import error_terms_of, key_term
from mrq_core.drivers import damage, encoding
from mrq_core.drivers.answers import UNREADABLE
from mrq_core.errors import BrokerCorrupt, JobDamaged

Row = dict[str, msgspec.Raw | str]

_pack = msgspec.msgpack.Encoder().encode
_MORE = frozenset("nlufg")
"""Fields with which a claim or a success reads more than the status."""


class Stored(NamedTuple):
    """A record as it was read. The write compares `seen`, to find whether the job has changed."""

    seen: bytes
    record: JobRecord


def row_of(record: JobRecord) -> Row:
    """All fields of a record. Raises ValueError for a naive time."""
    row: Row = {
        "r": binary(framed(encoding.encode(record))),
        "s": str.__str__(record.status),
        "q": record.queue,
        "h": record.path,
        "k": str(-record.priority),
        "z": _entry_state(record),
        "Q": str(to_ms(record.queued_at)),
    }
    if record.due_at is not None:
        row["d"] = str(to_ms(record.due_at))
    if record.expires_at is not None:
        row["x"] = str(to_ms(record.expires_at))
    if record.limit_keys:
        row["l"] = binary(_pack(record.limit_keys))
    if record.exception_type is not None:
        row["g"] = record.exception_type
        row["E"] = exception_of(record)
    flags = ("c" if record.cancel_requested else "") + ("o" if record.at_most_once else "")
    if record.search_keys:
        flags += "k"
    for name, value in (
        ("t", record.token),
        ("w", record.worker),
        ("y", record.schedule),
        ("u", record.unique_key),
        ("f", flags),
        ("n", str(record.claims) if record.claims else None),
        ("L", str(record.lost_claims) if record.lost_claims else None),
    ):
        if value:
            row[name] = value
    if row.keys() & _MORE:
        row["o"] = "1"
    return row


def exception_of(record: JobRecord) -> msgspec.Raw:
    """The error group and the terms of the record's exception, as lua/jobs/terms.lua stores them."""
    terms: dict[str, list[str]] = {}
    for name, value in sorted(error_terms_of(record)):  # sorted, so that equal exceptions are equal bytes
        terms.setdefault(name, []).append(value)
    return binary(_pack([record.error_group, terms]))


def search_keys_of(record: JobRecord) -> list[str]:
    """The search keys as fields of a hash, each with the name of its term."""
    return [text for name, value in record.search_keys.items() for text in key_term(name, value)]


def data_of(record: JobRecord) -> msgspec.Raw:
    """A record and its params as one string."""
    return binary(framed(encoding.encode(record)) + framed(_encoded_params(record)))


def params_of(record: JobRecord) -> msgspec.Raw:
    """The params as they are stored."""
    return binary(framed(_encoded_params(record)))


def _encoded_params(record: JobRecord) -> bytes:
    return codec.encode(record.params) if record.params else b""


def framed(data: bytes) -> bytes:
    """A part of a job's data, after its length."""
    return len(data).to_bytes(4, "big") + data


def _entry_state(record: JobRecord) -> str:
    """The state of the job's entry: c claimed, w waiting, p parked, or empty."""
    if record.status is Status.STARTED:
        return "c"
    if record.ended_at is not None:
        return ""
    return "p" if encoding.is_parked(record) else "w"


def read(job_id: str, row: Sequence[Any]) -> Stored:
    """The record of a row of the script `read`, with its params. Raises JobDamaged."""
    try:
        return _read(row)
    except JobDamaged:
        raise
    except BrokerCorrupt as error:
        raise damage.damaged(job_id, "record", error.__cause__) from error
    except UNREADABLE as error:
        raise damage.damaged(job_id, "row", error) from error


def _read(row: Sequence[Any]) -> Stored:
    seen, data, worker, claimed, settled, progress, state, due, token = row
    record, outcome = record_in(data or b"")
    if claimed is not None:
        record = encoding.with_claim(record, token=text(token), worker=text(worker), started_ms=int(claimed))
    if progress is not None:
        at, _, ratio = progress.partition(b" ")
        record = replace(record, progress=float(ratio), updated_at=from_ms(int(at)))
    if settled is not None:
        record = encoding.with_outcome(record, outcome, int(settled))
    elif state == b"c":
        until = moment(due)
        record = replace(record, due_at=until, lease_until=until)
    elif state:
        record = replace(record, due_at=moment(due) if state == b"w" else None)
    return Stored(seen, record)


def record_in(data: bytes) -> tuple[JobRecord, bytes]:
    """The record with its params, and the outcome that was appended later. Raises BrokerCorrupt."""
    first = 4 + int.from_bytes(data[:4], "big")
    start = first + 4
    end = start + int.from_bytes(data[first:start], "big")
    if end > len(data):
        raise BrokerCorrupt("the data of a job is cut off: see `mrq check`")
    return encoding.decode_all(data[4:first], data[start:end]), data[end:]


def parts_in(data: bytes) -> tuple[bytes, bytes, bytes] | None:
    """The encoded record, params and outcome. None: their lengths are damaged."""
    first = 4 + int.from_bytes(data[:4], "big")
    start = first + 4
    end = start + int.from_bytes(data[first:start], "big")
    return (data[4:first], data[start:end], data[end:]) if start <= len(data) and end <= len(data) else None


def binary(data: bytes) -> msgspec.Raw:
    """Bytes as an argument of a script. Lua's library knows the older form of msgpack, in which bytes are
    strings ("raw 32")."""
    return msgspec.Raw(b"\xdb" + len(data).to_bytes(4, "big") + data)


def moment(milliseconds: bytes | None) -> datetime | None:
    """The time; None for none."""
    return None if milliseconds is None else from_ms(int(milliseconds))


def text(value: bytes | None) -> str:
    """The text of a stored value; empty for None."""
    return "" if value is None else value.decode()
