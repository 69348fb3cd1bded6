"""Jobs as documents, and back. A job's document is its record and its entry in one.

The fields are those of `JobRecord`, but for these:

    _id          the id, as an ObjectId
    rank         the priority, negated: smaller ones come first
    due_at       only of a waiting job; of a started one `lease_until` says the same
    parked       of a job that waits for room under a limit key: {key, since, due}
    root         the tree that a subqueue is in, such as ``main/``
    v            grows with every change; 1: the job is as it was enqueued, without an exception
    by           who made the latest change: a number of that call's own
    special      present where an outcome concerns more than this document: limits, a unique key, a cancel
    unique_until how long the unique key is held
    unique_period  for how many seconds, of a job without a queue
    turn         when the job may start by the rates of its limit keys
    followups    jobs that follow from the latest outcome and are not known to be enqueued yet
    terms        of a job with search keys or an exception: the texts of `contract.terms.terms_of`, such as
    ``word\0stock``
    removal      of a job that is being deleted, see `removing`
    result_json  instead of a large result: its JSON; a list of small numbers takes six times as much as BSON
    renamed      names of the fields whose values have keys that the server would take for references

Where jobs have no queue there, times have other names, and what is for the queue alone is left out: see
`arrangement`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec
from bson import ObjectId

from mrq_broker_mongo.server.arrangement import Arrangement
from mrq_broker_mongo.server.location import Doc
from mrq_core.clock import DATETIMES
from mrq_core.contract import codec, lifecycle
from mrq_core.contract.messages import Unique
from mrq_core.contract.record import JobRecord, Status
from mrq_core.contract.terms import Term, terms_of
from mrq_core.drivers import damage, encoding
from mrq_core.drivers.answers import UNREADABLE
from mrq_core.ids import is_id

RANKS: Final = list(range(-4, 5))
ENDED_INTERRUPT: Final = "interrupt ended"
"""Where totals count interrupted at_most_once jobs, which do not wait."""
WAITING_CELLS: Final = (Status.QUEUED.value, Status.RETRY.value, Status.INTERRUPT.value)

_FREE = ("params", "meta", "result")
"""Fields that hold the user's values."""
_FREE_WITH_TERMS = (*_FREE, "search_keys")
_KEPT = ("params", "meta", "search_keys")
"""The fields of the user's values that stay, unless an edit replaces params and search keys, or keys are
added."""
_FIXED = frozenset({"_id", *_KEPT, "v", "by", "unique_until", "unique_period", "followups"})
"""Fields that a change of the record leaves unchanged."""
_KEY = "key "
"""The start of the texts of search keys."""
_PACKED = "result_json"
_PACKED_ABOVE = 1_000_000
"""Bytes of JSON. As BSON a result of this size, with params of the default limit, fits into a document."""
_MARK = "\uff04"
_REFERENCE = "$ref"
_WHOLE = (("v", int), ("queued_at", datetime), ("queue", str), ("path", str), ("status", str))
"""Fields that every document has, and their types."""


class Stored(NamedTuple):
    """A job as it was read: the document proves, when it is written, that nothing has changed meanwhile."""

    doc: Doc
    record: JobRecord

    @property
    def version(self) -> int:
        """How often the job was written."""
        return int(self.doc["v"])

    @property
    def unique(self) -> Unique | None:
        """The unique key that the job was enqueued with; its period only of a job without a queue."""
        key, until = self.doc.get("unique_key"), self.doc.get("unique_until")
        if key is None or until is None:
            return None
        return Unique(key=key, until=until, period=self.doc.get("unique_period"))


def object_ids(ids: Iterable[str]) -> list[ObjectId]:
    """The ids that are such; others name no job."""
    return [ObjectId(job_id) for job_id in ids if is_id(job_id)]


def text_of(term: Term) -> str:
    """The term as stored in `terms`."""
    return f"{term.name}\0{term.value}"


def to_doc(record: JobRecord, arrangement: Arrangement) -> Doc:
    """The document of a record that is written in full. The caller adds `parked`."""
    doc: Doc = msgspec.to_builtins(record, builtin_types=DATETIMES)
    doc["_id"] = ObjectId(doc.pop("id"))
    doc["rank"] = -doc.pop("priority", 0)
    doc["status"] = record.status.value
    if record.status is Status.STARTED:
        doc.pop("due_at", None)
    if not arrangement.special.isdisjoint(doc):
        doc["special"] = True
    tree = root_of(record.queue)
    if tree is not None and arrangement.has_queue:
        doc["root"] = tree
    pack_result(doc)
    free: Sequence[str] = _FREE
    if record.exception_type is not None or record.search_keys:
        doc["terms"] = sorted(map(text_of, terms_of(record)))
        free = _FREE_WITH_TERMS
    for name, other in arrangement.names:
        if name in doc:
            doc[other] = doc.pop(name)
    rename(doc, free)
    return doc


def pack_result(doc: Doc) -> None:
    """Stores a large result as JSON. A text takes no more as BSON."""
    result = doc.get("result")
    if isinstance(result, dict | list) and len(encoded := codec.encode(result)) > _PACKED_ABOVE:
        doc[_PACKED] = encoded
        del doc["result"]


def rename(doc: Doc, fields: Sequence[str]) -> None:
    """Stores the keys in these fields that pymongo would read as references under other names."""
    renamed = []
    for name in fields:
        value = doc.get(name)
        if value and _has_reference(value):
            doc[name] = _marked(value)
            renamed.append(name)
    if renamed:
        doc["renamed"] = renamed


def of_doc(doc: Doc, arrangement: Arrangement) -> JobRecord:
    """The record of a document. Raises JobDamaged."""
    try:
        given = _fields_of(doc, arrangement)
    except UNREADABLE as error:
        raise damage.damaged(str(doc["_id"]), "document", error) from error
    try:
        return msgspec.convert(given, JobRecord)
    except msgspec.ValidationError as error:
        if not isinstance(given.get("params"), dict):
            with contextlib.suppress(msgspec.ValidationError):
                record = msgspec.convert({**given, "params": {}}, JobRecord)
                if lifecycle.is_set_aside(record):
                    return record
        raise damage.damaged(str(doc["_id"]), "document", error) from error


def _fields_of(doc: Doc, arrangement: Arrangement) -> Doc:
    """The fields of the record, as they are stored."""
    given = {**doc, "id": str(doc["_id"]), "priority": -doc.get("rank", 0)}
    for name in doc.get("renamed", ()):
        if name in given:
            given[name] = _unmarked(given[name])
    if _PACKED in given:
        given["result"] = codec.decode(given.pop(_PACKED))
    for name, other in arrangement.names:
        if other in given:
            given[name] = given.pop(other)
    if doc.get("status") == "started":
        given["due_at"] = given.get("lease_until")
    return given


def readable_fields(doc: Doc, arrangement: Arrangement) -> dict[str, Any]:
    """The fields of the record that can be read."""
    try:
        return damage.readable(_fields_of(doc, arrangement))
    except UNREADABLE:
        return damage.readable(doc)


def stored(doc: Doc, arrangement: Arrangement) -> Stored:
    """The document with its record. Raises JobDamaged."""
    check_whole(doc)
    return Stored(doc, of_doc(doc, arrangement))


def check_whole(doc: Doc) -> None:
    """Raises JobDamaged if a field that guards or counts the document is gone, or has another type."""
    for name, kind in _WHOLE:
        if not isinstance(doc.get(name), kind):
            raise damage.damaged(str(doc["_id"]), f"field {name}", None)


def has_expired(doc: Mapping[str, Any], now: datetime) -> bool:
    """Whether the time that the job is kept is over."""
    expiry = doc.get("expires_at")
    return expiry is not None and expiry <= now


def update_of(before: Stored, after: JobRecord, arrangement: Arrangement) -> Doc:
    """The update from the one document to the other. Params and search keys that stay are not written. The
    values beside the record stay."""
    has_new_keys = after.search_keys != before.record.search_keys
    has_new_params = after.edits != before.record.edits and after.params is not before.record.params
    written = msgspec.structs.replace(
        after,
        params=after.params if has_new_params else {},
        meta={},
        search_keys=after.search_keys if has_new_keys else {},
    )
    doc = to_doc(written, arrangement)
    if after.search_keys and not has_new_keys:
        kept_terms = [text for text in before.doc.get("terms", ()) if text.startswith(_KEY)]
        doc["terms"] = sorted([*kept_terms, *doc.get("terms", ())])
    if encoding.is_parked(after) and "parked" in before.doc:
        doc["parked"] = before.doc["parked"]
    if "allowed_at" in before.doc and after.status.is_waiting and after.due_at == before.record.due_at:
        doc["allowed_at"] = before.doc["allowed_at"]
    fixed = _FIXED
    if has_new_keys:
        fixed -= {"search_keys"}
    if has_new_params:
        fixed -= {"params"}
    kept = [name for name in before.doc.get("renamed", ()) if name in _KEPT and name in fixed]
    if kept or "renamed" in doc:
        doc["renamed"] = sorted({*kept, *doc.get("renamed", ())})
    put = {name: value for name, value in doc.items() if name not in fixed}
    if "terms" in put and put["terms"] == before.doc.get("terms"):
        del put["terms"]
    gone = [name for name in before.doc if name not in doc and name not in fixed]
    return {"$set": put, **({"$unset": dict.fromkeys(gone, "")} if gone else {})}


def guard_of(doc: Doc) -> Doc:
    """Finds the document only if nothing has happened to it since it was read."""
    return {"_id": doc["_id"], "v": doc["v"], "queued_at": doc["queued_at"]}


def cell_of(doc: Mapping[str, Any]) -> str:
    """Under which name totals count the job."""
    status: str = doc["status"]
    return ENDED_INTERRUPT if status == "interrupt" and doc.get("ended_at") is not None else status


def cell_of_record(record: JobRecord) -> str:
    """The same for a record."""
    return ENDED_INTERRUPT if record.status is Status.INTERRUPT and record.is_ended else record.status.value


def root_of(queue: str) -> str | None:
    """The tree that a subqueue is in, by its root; None for a queue that is in none."""
    root, slash, _ = queue.partition("/")
    return root + slash if slash else None


def _has_reference(value: Any) -> bool:
    if isinstance(value, dict):
        return any(
            (name.endswith(_REFERENCE) and name.lstrip(_MARK) == _REFERENCE) or _has_reference(item)
            for name, item in value.items()
        )
    return isinstance(value, list) and any(
        _has_reference(item) for item in value if isinstance(item, dict | list)
    )


def _marked(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            (_MARK + name if name.lstrip(_MARK) == _REFERENCE else name): _marked(item)
            for name, item in value.items()
        }
    return [_marked(item) for item in value] if isinstance(value, list) else value


def _unmarked(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            (name[1:] if name.startswith(_MARK) and name.lstrip(_MARK) == _REFERENCE else name): _unmarked(
                item
            )
            for name, item in value.items()
        }
    return [_unmarked(item) for item in value] if isinstance(value, list) else value
