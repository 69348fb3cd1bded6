"""Shared state: small named values, one document each.

_id         {space, name}
version     from one counter, so that a name which was deleted and written again never has an old one
count       the value, where it is an integer: what `add` adds to
value       any other value, as JSON
expires_at  when it vanishes
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from bson import MaxKey, MinKey
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from mrq_broker_mongo.server.connection import Connection
from mrq_broker_mongo.server.location import Doc
from mrq_core.clock import after
from mrq_core.contract import codec, rules
from mrq_core.contract.codec import JsonValue
from mrq_core.contract.services import SharedState
from mrq_core.contract.shared_state import StateItem
from mrq_core.drivers.answers import names_unreadable_answers
from mrq_core.drivers.state_items import value_in, version_in
from mrq_core.errors import BrokerError, BrokerUnavailable
from mrq_core.failpoints import reach

_ATTEMPTS = 100


@names_unreadable_answers()
class MongoState(SharedState):
    """The shared state under one prefix."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, namespace: str, name: str) -> StateItem | None:
        key = _key(namespace, name)
        found = self._connection.run("state", lambda state: state.find_one({"_id": key}))
        return None if found is None or _is_over(found, self._connection.now()) else _item(found)

    def put(self, namespace: str, name: str, value: JsonValue, ttl: float | None = None) -> StateItem:
        for _ in range(_ATTEMPTS):
            doc = self._document(namespace, name, value, ttl)
            older = {"_id": doc["_id"], "version": {"$not": {"$gte": doc["version"]}}}  # or no number
            if self._replace(older, doc, upsert=True):
                self._raise_rules(namespace)
                return _item(doc)
        raise BrokerUnavailable(f"the state {namespace}/{name} was written by others each time: try again")

    def compare_and_set(
        self, namespace: str, name: str, value: JsonValue, *, version: int, ttl: float | None = None
    ) -> StateItem | None:
        doc = self._document(namespace, name, value, ttl)
        key = doc["_id"]
        now = self._connection.now()
        if version:
            same: Doc = {"_id": key, "version": version, "expires_at": {"$not": {"$lte": now}}}
            is_written = self._replace(same, doc, upsert=False)
        else:
            unread = {"version": {"$not": {"$type": ["int", "long"]}}}
            no_value: builtins.list[Doc] = [{"expires_at": {"$lte": now}}, {"version": {"$lte": 0}}, unread]
            is_written = self._replace({"_id": key, "$or": no_value}, doc, upsert=True)
        if is_written:
            self._raise_rules(namespace)
        return _item(doc) if is_written else None

    def _raise_rules(self, namespace: str) -> None:
        """Tells all workers that a rule has changed. A crash before it delays the rule by up to a minute."""
        if namespace in rules.NAMESPACES:
            reach("state.rule_written")
            raised = [{"$set": {"version": counted_on("version", 1, self._connection.now_ms())}}]
            self._connection.run("meta", lambda meta: meta.update_one({"_id": "rules"}, raised, upsert=True))

    def _replace(self, which: Doc, doc: Doc, *, upsert: bool) -> bool:
        def write(state: Any) -> bool:
            result = state.replace_one(which, doc, upsert=upsert)
            return bool(result.matched_count or result.upserted_id is not None)

        try:
            return self._connection.run("state", write, repeatable=False)
        except DuplicateKeyError:
            return False  # the name is there, and is not the one that was meant

    def add(self, namespace: str, name: str, amount: int, ttl: float | None = None) -> int:
        now = self._connection.now()
        key = _key(namespace, name)
        for _ in range(_ATTEMPTS):
            version = self._next_version()
            is_new = {"$or": [{"$eq": [{"$type": "$version"}, "missing"]}, _is_past("$expires_at", now)]}
            start = {"$literal": {"count": amount, **_expiry(now, ttl)}}
            added = {"$mergeObjects": ["$$ROOT", {"count": {"$add": ["$count", amount]}}]}
            goes_on = {"$cond": [{"$isNumber": "$count"}, added, "$$ROOT"]}
            step: list[Doc] = [
                {"$replaceWith": {"$cond": [is_new, {"$mergeObjects": [{"_id": "$_id"}, start]}, goes_on]}},
                {"$set": {"version": version}},
            ]
            which = {"_id": key, "version": {"$not": {"$gte": version}}}
            try:
                found = self._connection.run("state", _adder(which, step), repeatable=False)
            except DuplicateKeyError:
                continue  # another process has written it under a later version
            if type(found.get("count")) not in (int, float):
                self._no_counter(namespace, name)
            return int(found["count"])
        raise BrokerUnavailable(f"the counter {namespace}/{name} was changed by others each time: try again")

    def _no_counter(self, namespace: str, name: str) -> None:
        raise BrokerError(
            f"the state {namespace}/{name} holds no integer: expected a counter; delete it, or use another "
            "name"
        )

    def delete(self, namespace: str, names: Sequence[str]) -> builtins.list[bool]:
        now = self._connection.now()
        answers = []
        for name in names:
            there = {"_id": _key(namespace, name)}
            found = self._connection.run(
                "state",
                lambda state, there=there: state.find_one_and_delete(there),  # type: ignore[misc]
            )
            answers.append(found is not None and not _is_over(found, now))
        self._raise_rules(namespace)
        return answers

    def list(self, namespace: str) -> builtins.list[StateItem]:
        now = self._connection.now()
        inside = {
            "_id": {
                "$gte": {"space": namespace, "name": MinKey()},
                "$lte": {"space": namespace, "name": MaxKey()},
            }
        }
        found = self._connection.run("state", lambda state: list(state.find(inside).sort("_id")))
        return [_item(doc) for doc in found if isinstance(doc["_id"]["name"], str) and not _is_over(doc, now)]

    def _document(self, namespace: str, name: str, value: JsonValue, ttl: float | None) -> Doc:
        doc: Doc = {"_id": _key(namespace, name), "version": self._next_version()}
        if isinstance(value, int) and not isinstance(value, bool):
            doc["count"] = value
        else:
            doc["value"] = codec.encode(value).decode()
        return {**doc, **_expiry(self._connection.now(), ttl)}

    def _next_version(self) -> int:
        return next_number(self._connection, "state")


def next_number(connection: Connection, counter: str, step: int = 1) -> int:
    """Takes numbers from a counter that only grows; answers with the last of them."""
    now_ms = connection.now_ms()
    found = connection.run(
        "meta",
        lambda meta: meta.find_one_and_update(
            {"_id": f"counter {counter}"},
            [{"$set": {"last": counted_on("last", step, now_ms)}}],
            upsert=True,
            return_document=ReturnDocument.AFTER,
        ),
    )
    assert found is not None  # an upsert answers with what it has written
    return int(found["last"])


def counted_on(field: str, step: int, now_ms: int) -> Doc:
    """The number of a counter plus `step`. A counter that was changed by hand, and is no number, goes on from
    the time, which is later than its numbers."""
    is_new = {"$eq": [{"$type": f"${field}"}, "missing"]}
    start = {"$cond": [is_new, 0, now_ms]}
    return {"$add": [{"$cond": [{"$isNumber": f"${field}"}, f"${field}", start]}, step]}


def _adder(which: Doc, step: builtins.list[Doc]) -> Any:
    return lambda state: state.find_one_and_update(
        which, step, upsert=True, return_document=ReturnDocument.AFTER
    )


def _is_past(field: str, now: datetime) -> Doc:
    return {"$and": [{"$ne": [{"$type": field}, "missing"]}, {"$lte": [field, now]}]}


def _key(namespace: str, name: str) -> Doc:
    return {"space": namespace, "name": name}


def _expiry(now: datetime, ttl: float | None) -> Doc:
    return {} if ttl is None else {"expires_at": after(now, ttl)}


def _is_over(doc: Doc, now: datetime) -> bool:
    over = doc.get("expires_at")
    return isinstance(over, datetime) and over <= now


def _item(doc: Doc) -> StateItem:
    """The item of a document. Its `_id` is as `list` and `get` have asked for it."""
    count, expires_at = doc.get("count"), doc.get("expires_at")
    if isinstance(count, float) and count.is_integer():  # a shell writes such numbers
        count = int(count)
    return StateItem(
        namespace=doc["_id"]["space"],
        name=doc["_id"]["name"],
        value=count if type(count) is int else value_in(doc.get("value")),
        version=version_in(doc.get("version")),
        expires_at=expires_at if isinstance(expires_at, datetime) else None,
    )
