"""What a worker says of its claims: renew, annotate, settle. All are guarded by the token."""

from __future__ import annotations

from collections.abc import Sequence

from mrq_broker_redis import rows
from mrq_broker_redis.changes import Records
from mrq_broker_redis.connection import Connection
from mrq_core.contract.messages import ClaimRef, Note, Settlement
from mrq_core.drivers import encoding, replacing

BATCH = 200
_LOOK = 2
"""The script's answer where the record has to be looked at."""


def renew(connection: Connection, claims: Sequence[ClaimRef], lease: float) -> list[bool]:
    """See `Broker.renew`."""
    answers: list[bool] = []
    for start in range(0, len(claims), BATCH):
        part = [[claim.id, claim.token] for claim in claims[start : start + BATCH]]
        answers += map(bool, connection.run("renew", [round(lease * 1000), part], repeatable=True))
    return answers


def annotate(connection: Connection, notes: Sequence[Note]) -> list[bool]:
    """See `Broker.annotate`."""
    answers: list[bool] = []
    for start in range(0, len(notes), BATCH):
        part = [[note.id, note.token, repr(float(note.progress))] for note in notes[start : start + BATCH]]
        answers += map(bool, connection.run("annotate", part, repeatable=True))
    return answers


def settle(connection: Connection, settlements: Sequence[Settlement]) -> list[bool]:
    """See `Broker.settle`. Successes of plain jobs first, in one script; the others are read and written."""
    answers = [True] * len(settlements)
    others: list[int] = []
    simple: list[int] = []
    for place, settlement in enumerate(settlements):
        outcome = settlement.outcome
        is_simple = encoding.is_plain_success(outcome) and not outcome.followups
        (simple if is_simple else others).append(place)
    for start in range(0, len(simple), BATCH):
        places = simple[start : start + BATCH]
        found = connection.run("settle", [_success(settlements[place]) for place in places], repeatable=True)
        for place, answer in zip(places, found, strict=True):
            if answer == _LOOK:
                others.append(place)
            else:
                answers[place] = bool(answer)
    if others:
        others.sort()
        settled = replacing.settle(Records(connection), [settlements[place] for place in others])
        for place, accepted in zip(others, settled, strict=True):
            answers[place] = accepted
    return answers


def _success(settlement: Settlement) -> object:
    outcome = settlement.outcome
    ttl = -1 if outcome.ttl is None else round(outcome.ttl * 1000)
    return [settlement.id, settlement.token, rows.binary(encoding.encode_outcome(outcome)), ttl]
