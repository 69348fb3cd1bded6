"""Jobs whose keys cannot be read: each is set aside by one script. See `mrq_core.drivers.damage`.

The hash of a job, its data, and the sorted sets that have the job know the same facts. The record is made of
those that can be read.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from mrq_broker_redis.jobs import records
from mrq_broker_redis.server import layout
from mrq_broker_redis.server.connection import Connection
from mrq_broker_redis.server.layout import Contents
from mrq_core.clock import from_ms
from mrq_core.contract import codec, lifecycle
from mrq_core.contract.codec import JsonObject
from mrq_core.contract.record import JobRecord, Status
from mrq_core.drivers import damage, encoding
from mrq_core.errors import BrokerCorrupt, JobDamaged

ATTEMPTS = 10
"""How often a job is read again after another process changed it first."""
LOST_PARAMS = b"lost"
"""In place of params that are gone: no JSON, so that the job never runs with other params."""

_UNKNOWN = "unknown"
_NUMBERS = "nLbdxQie"
"""Fields of the hash that are numbers."""
_KEY_NAME = "key "
_log = logging.getLogger("mrq.redis")
_Answer = TypeVar("_Answer")


def past_damage(connection: Connection, call: Callable[[], _Answer]) -> _Answer:
    """The answer of a call, after all damaged jobs that it meets are set aside."""
    return damage.past_damage(call, lambda error: bool(set_aside(connection, [error.job_id])))


def set_aside_met(connection: Connection, met: Sequence[bytes]) -> None:
    """Sets the jobs aside that a claim has met, given as ids and queues in turn. Raises BrokerError."""
    ids = [job_id.decode() for job_id in met[::2]]
    queues = dict(zip(ids, (queue.decode() for queue in met[1::2]), strict=True))
    set_aside(connection, ids, queues=queues)


def set_aside_claimed(connection: Connection, token_ends: Sequence[str]) -> None:
    """Sets the jobs aside that a claim has started under these tokens and cannot read. Raises BrokerError."""
    found = connection.run("claimed_as", list(token_ends), repeatable=True)
    set_aside(connection, [job_id.decode() for job_id in found], is_over=True)


def set_aside(
    connection: Connection,
    ids: Sequence[str],
    *,
    queues: Mapping[str, str] | None = None,
    is_over: bool | None = None,
) -> list[str]:
    """Sets damaged jobs aside; returns the ids of those. `queues`: where claims have met the jobs.
    `is_over`: as `damage.set_aside` takes it."""
    layout.ensure(connection, Contents.JOBS)
    done = []
    for job_id in ids:
        for _ in range(ATTEMPTS):
            now_ms, row = connection.run("read_damaged", [job_id], repeatable=True)
            job = None if row is None else _Job.of(job_id, row, (queues or {}).get(job_id, ""))
            error = None if job is None else job.damage()
            if job is None or error is None:
                break
            after = damage.set_aside(
                job.known(int(now_ms)), from_ms(int(now_ms)), error, job.stored, is_over=is_over
            )
            params = records.binary(records.framed(job.params))
            arguments = [job_id, records.binary(job.stamp), records.row_of(after), params, job.queue]
            if connection.run("set_aside", arguments, even_if_full=True):
                _log.error("job.damaged id=%s status=%s error=%s", job_id, after.status, error)
                done.append(job_id)
                break
    return done


class _Job(NamedTuple):
    """The keys of a job as they are, and what the structures beside them know of the job."""

    id: str
    stamp: bytes
    data: bytes | None
    hash: dict[str, bytes]
    beside: dict[str, bytes]
    queue: str

    @classmethod
    def of(cls, job_id: str, row: Sequence[Any], queue: str) -> _Job:
        stamp, data, values, beside = row
        return cls(job_id, stamp, data, _as_dict(values), _as_dict(beside), queue)

    @property
    def stored(self) -> dict[str, object]:
        """The damaged values for the traceback."""
        fields = {name: value.decode("utf-8", "backslashreplace") for name, value in self.hash.items()}
        return {"data": self.data or b"", "fields": codec.encode(dict(fields)).decode()}

    @property
    def params(self) -> bytes:
        """The params as they are stored."""
        parts = records.parts_in(self.data or b"")
        return LOST_PARAMS if parts is None else parts[1]

    def damage(self) -> JobDamaged | None:
        """Why the job cannot be read. None: it can."""
        try:
            for name in _NUMBERS:
                if name in self.hash:
                    int(self.hash[name])
            for name in "sqh":
                if self.hash[name] != self.beside.get(name, self.hash[name]):
                    raise ValueError(f"the field {name} of its hash differs from its index")
            Status(self.hash["s"].decode())
            if "l" in self.hash:
                msgspec.msgpack.decode(self.hash["l"], type=tuple[str, ...])
        except KeyError as error:
            return damage.damaged(self.id, f"field {error.args[0]}", None)
        except (ValueError, msgspec.DecodeError) as error:
            return damage.damaged(self.id, "hash", error)
        try:
            records.record_in(self.data or b"")
        except JobDamaged as error:
            return error
        except BrokerCorrupt as error:
            return damage.damaged(self.id, "record", error.__cause__)
        return None

    def known(self, now_ms: int) -> JobRecord:
        """The record of all that can be read."""
        record, outcome = self._record()
        values: dict[str, Any] = {"at_most_once": True, **record}
        fields = {**self.hash, **self.beside}
        text = {name: value.decode("utf-8", "replace") for name, value in fields.items()}
        state = text.get("z", "")
        numbers = {name: int(text[name]) for name in "nLdxie" if text.get(name, "").isdecimal()}
        times = {name: from_ms(numbers[name]) for name in numbers.keys() & set("dxie")}
        for name, field in (
            ("q", "queue"),
            ("h", "path"),
            ("w", "worker"),
            ("t", "token"),
            ("y", "schedule"),
            ("u", "unique_key"),
        ):
            if name in text:
                values[field] = text[name]
        if "s" in text and text["s"] in set(Status):
            values["status"] = Status(text["s"])
        if text.get("k", "").lstrip("-").isdecimal():
            values["priority"] = -int(text["k"])
        if "f" in text or ("s" in self.hash and not record):
            flags = text.get("f", "")
            values |= {"at_most_once": "o" in flags, "cancel_requested": "c" in flags}
        if "l" in self.hash:
            with contextlib.suppress(msgspec.DecodeError):
                values["limit_keys"] = msgspec.msgpack.decode(self.hash["l"], type=tuple[str, ...])
        if "n" in numbers or "t" in text:
            values["claims"] = max(numbers.get("n", 0), lifecycle.claim_number(text.get("t", "")))
        if "L" in numbers:
            values["lost_claims"] = numbers["L"]
        if "i" in times:
            values["started_at"] = times["i"]
        values["search_keys"] = {**values.get("search_keys", {}), **_search_keys(self.hash)}
        values |= {
            "id": self.id,
            "params": {},
            "due_at": times.get("d") if state in ("w", "c") else None,
            "lease_until": times.get("d") if state == "c" else None,
            "expires_at": times.get("x"),
        }
        has_ended = not state and bool(self.beside)
        values["ended_at"] = (
            (values.get("ended_at") or times.get("e") or from_ms(now_ms)) if has_ended else None
        )
        values.setdefault("queue", self.queue or _UNKNOWN)
        values.setdefault("path", _UNKNOWN)
        values.setdefault("queued_at", from_ms(int(text["Q"]) if text.get("Q", "").isdecimal() else now_ms))
        values.setdefault("updated_at", from_ms(now_ms))
        known = JobRecord(**values)
        if "e" in times and outcome:
            with contextlib.suppress(BrokerCorrupt):
                known = encoding.with_outcome(known, outcome, numbers["e"])
        return known

    def _record(self) -> tuple[dict[str, Any], bytes]:
        """The fields of the record that can be read, and the outcome that was appended."""
        parts = records.parts_in(self.data or b"")
        if parts is None:
            return damage.readable_in((self.data or b"")[4:]), b""
        data, _, outcome = parts
        with contextlib.suppress(BrokerCorrupt):
            record = encoding.decode(data)
            return {name: getattr(record, name) for name in record.__struct_fields__}, outcome
        return damage.readable_in(data), outcome


def _as_dict(values: Sequence[bytes]) -> dict[str, bytes]:
    names = (name.decode("utf-8", "backslashreplace") for name in values[::2])
    return dict(zip(names, values[1::2], strict=True))


def _search_keys(fields: Mapping[str, bytes]) -> JsonObject:
    keys: JsonObject = {}
    for name, value in fields.items():
        if name.startswith(_KEY_NAME):
            with contextlib.suppress(msgspec.DecodeError):
                keys[name.removeprefix(_KEY_NAME)] = codec.decode(value)
    return keys
