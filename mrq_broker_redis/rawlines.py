"""The parameters of raw queues, on Redis's own lists, sets and sorted sets."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from mrq_broker_redis.connection import Connection
from mrq_core.contract.broker import RawParameters
from mrq_core.contract.messages import RawClaim, RawItem
from mrq_core.contract.naming import RawKind, check_raw_queue_name
from mrq_core.errors import InvalidValue
from mrq_core.ids import new_id, new_nonce

BATCH = 500


class RedisRawLine(RawParameters):
    """Those of one raw queue. A set has no order: its parameters come in any, and each once."""

    def __init__(self, name: str, connection: Connection) -> None:
        kind = check_raw_queue_name(name)
        self._name = name
        self._kind = kind
        self._has_scores = kind in (RawKind.SORTED_SET, RawKind.TIMED_SET)
        self._connection = connection
        self._key = connection.key(f"raw:{name}")

    def push(self, items: Sequence[RawItem]) -> list[bool]:
        answers: list[bool] = []
        for start in range(0, len(items), BATCH):
            part = [[item.param, _score(item)] for item in items[start : start + BATCH]]
            # A list has no memory, and neither would the answers of a set.
            answers += map(bool, self._connection.run("raw_push", [self._name, str(self._kind), part]))
        return answers

    def claim(self, limit: int, lease: float, worker: str, pushback: float | None = None) -> list[RawClaim]:
        if pushback is not None and self._kind is not RawKind.TIMED_SET:
            raise InvalidValue(
                f"pushback is {pushback!r} for {self._name!r}: expected it for timed sets only",
                path="pushback",
            )
        limit = max(0, limit)
        again = -1 if pushback is None else round(pushback * 1000)
        ids = [new_id() for _ in range(limit)]
        found = self._connection.run(
            "raw_claim",
            [self._name, str(self._kind), limit, round(lease * 1000), again, ids, new_nonce()],
        )
        return [
            RawClaim(
                param=param.decode(),
                job_id=job_id.decode(),
                token=token.decode(),
                score=float(score) if self._has_scores else None,
                redelivered=bool(redelivered),
            )
            for param, job_id, token, score, redelivered in zip(*[iter(found)] * 5, strict=True)
        ]

    def renew(self, claims: Sequence[RawClaim], lease: float) -> list[bool]:
        proofs = [proof_of(claim) for claim in claims]
        arguments = [self._name, round(lease * 1000), proofs]
        return [bool(answer) for answer in self._connection.run("raw_renew", arguments, repeatable=True)]

    def settle(self, claims: Sequence[RawClaim], due_again: Sequence[float | None]) -> list[bool]:
        items = [
            [*proof_of(claim), -1 if delay is None else round(delay * 1000)]
            for claim, delay in zip(claims, due_again, strict=True)
        ]
        found = self._connection.run("raw_settle", [self._name, items], repeatable=True)
        return [bool(answer) for answer in found]

    def is_leased(self, ids: Sequence[str]) -> list[bool]:
        """See `JobQueue.is_leased`. A parameter that stays in its set has no lease: see `JobQueue.admit`."""
        if not ids:
            return []
        found = self._connection.execute("HMGET", self._connection.key(f"raw-lease:{self._name}"), *ids)
        return [lease is not None for lease in found]

    def peek(self, limit: int, offset: int = 0) -> list[RawItem]:
        if limit <= 0:
            return []
        last = offset + limit - 1
        if self._has_scores:
            found = self._connection.use(
                lambda client: client.zrange(self._key, offset, last, withscores=True)
            )
            return [RawItem(param=param.decode(), score=float(score)) for param, score in found]
        if self._kind is RawKind.LIST:
            params = self._connection.execute("LRANGE", self._key, offset, last)
        else:
            params = self._first_of_set(offset + limit)[offset:]
        return [RawItem(param=param.decode()) for param in params]

    def _first_of_set(self, number: int) -> list[bytes]:
        """So many members in the order of a scan, which stays the same while the set does."""

        def scan(client: Any) -> list[bytes]:
            seen: dict[bytes, None] = {}
            for member in client.sscan_iter(self._key, count=min(number, 1000)):
                seen[member] = None
                if len(seen) >= number:
                    break
            return list(seen)

        return self._connection.use(scan)

    def remove(self, params: Sequence[str]) -> list[bool]:
        arguments = [self._name, str(self._kind), list(params)]
        return [bool(answer) for answer in self._connection.run("raw_remove", arguments)]

    def size(self) -> int:
        command = {RawKind.LIST: "LLEN", RawKind.SET: "SCARD"}.get(self._kind, "ZCARD")
        return int(self._connection.execute(command, self._key))

    def histogram(self, start: float, stop: float, buckets: int) -> list[int]:
        if not self._has_scores or start >= stop:
            return [0] * buckets
        edges = [start + (stop - start) * number / buckets for number in range(buckets)] + [stop]

        def count(client: Any) -> list[int]:
            pipeline = client.pipeline(transaction=False)
            for low, high in pairwise(edges):
                pipeline.zcount(self._key, repr(low), f"({high!r}")
            return [int(number) for number in pipeline.execute()]

        return self._connection.use(count)


def _score(item: RawItem) -> str:
    return "" if item.score is None else repr(float(item.score))


def proof_of(claim: RawClaim) -> list[str]:
    """What a script needs to tell whether the claim is still good."""
    return [claim.param, claim.job_id, claim.token]
