"""Renewing: extends leases and writes progress, guarded by the token."""

from __future__ import annotations

from collections.abc import Sequence

from mrq_broker_redis.server.connection import Connection
from mrq_core.contract.messages import ClaimRef, Note

BATCH = 200


def renew(connection: Connection, claims: Sequence[ClaimRef], lease: float) -> list[bool]:
    """See `Broker.renew`."""
    answers: list[bool] = []
    for start in range(0, len(claims), BATCH):
        part = [[claim.id, claim.token] for claim in claims[start : start + BATCH]]
        found = connection.run("renew", [round(lease * 1000), part], repeatable=True, even_if_full=True)
        answers += map(bool, found)
    return answers


def annotate(connection: Connection, notes: Sequence[Note]) -> list[bool]:
    """See `Broker.annotate`."""
    answers: list[bool] = []
    for start in range(0, len(notes), BATCH):
        part = [[note.id, note.token, repr(float(note.progress))] for note in notes[start : start + BATCH]]
        answers += map(bool, connection.run("annotate", part, repeatable=True, even_if_full=True))
    return answers
