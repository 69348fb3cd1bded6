"""Settling: writes the outcomes of attempts, guarded by the token."""

from __future__ import annotations

from collections.abc import Sequence

from mrq_broker_redis.jobs import records
from mrq_broker_redis.jobs.changing import Records
from mrq_broker_redis.server.connection import Connection
from mrq_core.contract.messages import Settlement
from mrq_core.drivers import encoding, replacing

BATCH = 200
_READ_RECORD = 2
"""The answer of the script where the record must be read."""


def settle(connection: Connection, settlements: Sequence[Settlement]) -> list[bool]:
    """See `Broker.settle`. Successes of plain jobs first, in one script; the others are read and written."""
    answers = [True] * len(settlements)
    others: list[int] = []
    simple: list[int] = []
    for index, settlement in enumerate(settlements):
        outcome = settlement.outcome
        is_simple = encoding.is_plain_success(outcome) and not outcome.followups
        (simple if is_simple else others).append(index)
    for start in range(0, len(simple), BATCH):
        indexes = simple[start : start + BATCH]
        found = connection.run(
            "settle",
            [_success(settlements[index]) for index in indexes],
            repeatable=True,
            even_if_full=True,
        )
        for index, answer in zip(indexes, found, strict=True):
            if answer == _READ_RECORD:
                others.append(index)
            else:
                answers[index] = bool(answer)
    if others:
        others.sort()
        settled = replacing.settle(Records(connection), [settlements[index] for index in others])
        for index, accepted in zip(others, settled, strict=True):
            answers[index] = accepted
    return answers


def _success(settlement: Settlement) -> object:
    outcome = settlement.outcome
    ttl = -1 if outcome.ttl is None else round(outcome.ttl * 1000)
    return [settlement.id, settlement.token, records.binary(encoding.encode_outcome(outcome)), ttl]
