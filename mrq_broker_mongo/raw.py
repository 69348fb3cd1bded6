"""Raw queues: see `rawlines` for their documents, and `rawclaims` for what is claimed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from pymongo import InsertOne, UpdateOne

from mrq_broker_mongo import layout, rawclaims, totals, waking
from mrq_broker_mongo.connection import Connection
from mrq_broker_mongo.location import Doc
from mrq_broker_mongo.rawlines import digest
from mrq_broker_mongo.state import next_number
from mrq_core.contract.broker import RawQueue
from mrq_core.contract.messages import RawClaim, RawItem
from mrq_core.contract.naming import RawKind, check_raw_queue_name
from mrq_core.contract.record import JobRecord
from mrq_core.errors import InvalidValue


class MongoRawQueue(RawQueue):
    """One raw queue. A plain set gives its parameters in the order in which they came."""

    def __init__(self, name: str, connection: Connection) -> None:
        kind = check_raw_queue_name(name)
        self._name = name
        self._kind = kind
        self._has_scores = kind in (RawKind.SORTED_SET, RawKind.TIMED_SET)
        self._connection = connection

    def push(self, items: Sequence[RawItem]) -> list[bool]:
        if not items:
            return []
        layout.ensure(self._connection)
        first = 0
        if not self._has_scores:
            first = next_number(self._connection, "raw", len(items)) - len(items) + 1
        totals.know_queues(self._connection, [self._name])
        answers = (
            self._push_list(items, first) if self._kind is RawKind.LIST else self._push_set(items, first)
        )
        waking.wake(self._connection, [self._name])
        return answers

    def _push_list(self, items: Sequence[RawItem], first: int) -> list[bool]:
        added = [
            InsertOne[Doc](
                {
                    "queue": self._name,
                    "param": item.param,
                    "h": digest(self._name, item.param, number),
                    "score": float(number),
                }
            )
            for number, item in enumerate(items, first)
        ]
        # A list has no memory: the push is not repeated by itself.
        self._connection.run("raw", lambda raw: raw.bulk_write(added, ordered=True), repeatable=False)
        return [True] * len(items)

    def _push_set(self, items: Sequence[RawItem], first: int) -> list[bool]:
        now = self._connection.now_ms() / 1000
        changes = []
        for number, item in enumerate(items, first):
            own: Doc = {"queue": self._name, "param": item.param}
            update: Doc = {"$setOnInsert": {**own, "score": float(number)}}
            if self._has_scores:
                default = now if self._kind is RawKind.TIMED_SET else 0.0
                score = default if item.score is None else float(item.score)
                update = {"$setOnInsert": own, "$set": {"score": score}}
            changes.append(UpdateOne({"h": digest(self._name, item.param)}, update, upsert=True))
        result = self._connection.run(
            "raw", lambda raw: raw.bulk_write(changes, ordered=True), repeatable=False
        )
        added = set(result.upserted_ids or ())
        return [place in added for place in range(len(items))]

    def claim(self, limit: int, lease: float, worker: str, pushback: float | None = None) -> list[RawClaim]:
        if pushback is not None and self._kind is not RawKind.TIMED_SET:
            raise InvalidValue(
                f"pushback is {pushback!r} for {self._name!r}: expected it for timed sets only",
                path="pushback",
            )
        return rawclaims.claim(self._connection, self._name, self._kind, max(0, limit), lease, pushback)

    def admit(self, claims: Sequence[tuple[RawClaim, JobRecord]], lease: float) -> list[bool]:
        return rawclaims.admit(self._connection, self._name, claims, lease)

    def renew(self, claims: Sequence[RawClaim], lease: float) -> list[bool]:
        return rawclaims.renew(self._connection, self._name, claims, lease)

    def settle(self, claims: Sequence[RawClaim], due_again: Sequence[float | None]) -> list[bool]:
        return rawclaims.settle(self._connection, self._name, claims, due_again)

    def peek(self, limit: int, offset: int = 0) -> list[RawItem]:
        if limit <= 0:
            return []
        found = self._connection.run(
            "raw",
            lambda raw: list(
                raw.find(self._waiting(), {"param": 1, "score": 1})
                .sort([("score", 1), ("_id", 1)])
                .skip(offset)
                .limit(limit)
            ),
        )
        return [
            RawItem(param=doc["param"], score=float(doc["score"]) if self._has_scores else None)
            for doc in found
        ]

    def remove(self, params: Sequence[str]) -> list[bool]:
        answers = []
        for param in params:
            own = digest(self._name, param)
            query: Doc = {"h": own}
            if self._kind is RawKind.LIST:
                query = {"h": {"$gte": own + bytes(8), "$lte": own + b"\xff" * 8}}
            answers.append(self._connection.run("raw", _remover(query), repeatable=False) is not None)
        return answers

    def size(self) -> int:
        return int(
            self._connection.run("raw", lambda raw: raw.count_documents(self._waiting(), hint="waiting"))
        )

    def histogram(self, start: float, stop: float, buckets: int) -> list[int]:
        if not self._has_scores or start >= stop:
            return [0] * buckets
        edges = [start + (stop - start) * number / buckets for number in range(buckets)] + [stop]
        return [
            int(
                self._connection.run(
                    "raw", _counter({"queue": self._name, "score": {"$gte": low, "$lt": high}})
                )
            )
            for low, high in pairwise(edges)
        ]

    def _waiting(self) -> Doc:
        return {"queue": self._name, "score": {"$gte": float("-inf")}}


def _remover(query: Doc) -> Any:
    return lambda raw: raw.find_one_and_delete(query, sort=[("h", 1)])


def _counter(query: Doc) -> Any:
    return lambda raw: raw.count_documents(query, hint="waiting")
