"""Claims of raw parameters: made, renewed, settled and admitted. Each is guarded by its token.

A leased parameter that was given back keeps its row, which says when it is due again, so that it
keeps its job id. Tokens of settled claims are kept for an hour: a settle whose reply was lost is
repeated sooner, or not at all.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from datetime import datetime

from msgspec.structs import replace

from mrq_core import failpoints
from mrq_core.clock import Clock, after, from_ms, to_ms
from mrq_core.contract import codec
from mrq_core.contract.lifecycle import admitted, claim_number, make_token, was_admitted_by
from mrq_core.contract.messages import RawClaim
from mrq_core.contract.naming import RawKind
from mrq_core.contract.record import JobRecord
from mrq_core.embedded.jobs import records
from mrq_core.embedded.jobs.batch import Batch
from mrq_core.ids import new_id, new_nonce

REMEMBERED_MS = 3_600_000

_STORED = f"SELECT {records.COLUMNS} FROM jobs WHERE id IN (SELECT value FROM json_each(?))"

_OVER = """
SELECT job_id, param, score, token FROM raw_leased INDEXED BY raw_leases
WHERE queue = ? AND until_ms <= ? ORDER BY until_ms, job_id LIMIT ?"""
_AGAIN = "UPDATE raw_leased SET token = ?, until_ms = ?, is_over = 0 WHERE job_id = ?"
_LINE = """
SELECT seq, param, score, number FROM raw_waiting INDEXED BY raw_order
WHERE queue = ? AND score <= ? ORDER BY score, seq LIMIT ?"""
_TAKE = "DELETE FROM raw_waiting WHERE seq = ?"
_LEASE = "INSERT INTO raw_leased VALUES (?, ?, ?, ?, ?, ?, 0)"
_VISIT = "UPDATE raw_waiting SET score = ?, number = ?, visit = ? WHERE seq = ?"
_PROLONG = "UPDATE raw_leased SET until_ms = ? WHERE job_id = ? AND queue = ? AND token = ? AND NOT is_over"
_PROLONG_VISIT = """
UPDATE raw_waiting SET score = max(score, ?) WHERE queue = ? AND param = ? AND visit = ?"""
_END = "DELETE FROM raw_leased WHERE job_id = ? AND queue = ? AND token = ? AND NOT is_over"
_GIVE_BACK = """
UPDATE raw_leased SET until_ms = ?, is_over = 1
WHERE job_id = ? AND queue = ? AND token = ? AND NOT is_over"""
_END_VISIT = "DELETE FROM raw_waiting WHERE queue = ? AND param = ? AND visit = ?"
_VISIT_AGAIN = "UPDATE raw_waiting SET score = ?, visit = NULL WHERE queue = ? AND param = ? AND visit = ?"
_ADMIT_VISIT = "UPDATE raw_waiting SET visit = NULL WHERE queue = ? AND param = ? AND visit = ?"
_REMEMBER = "INSERT INTO raw_settled VALUES (?, ?)"
_WAS_SETTLED = "SELECT 1 FROM raw_settled WHERE token = ?"
_FORGET = """
DELETE FROM raw_settled WHERE token IN
    (SELECT token FROM raw_settled INDEXED BY raw_settled_by_time WHERE at_ms <= ? LIMIT ?)"""
_ADD_TO_SIZE = """
INSERT INTO totals VALUES ('raw', ?, 'waiting', ?)
ON CONFLICT DO UPDATE SET n = n + excluded.n"""


def claim(
    connection: sqlite3.Connection,
    queue: str,
    kind: RawKind,
    now_ms: int,
    limit: int,
    lease: float,
    pushback: float | None,
) -> list[RawClaim]:
    """See `RawQueue.claim`. Expired leases come first, also with pushback, because no other call would claim
    them."""
    now = from_ms(now_ms)
    until_ms = to_ms(after(now, lease))
    claims = []
    for job_id, param, score, token in connection.execute(_OVER, (queue, now_ms, limit)).fetchall():
        token = make_token(claim_number(token) + 1, new_nonce())
        connection.execute(_AGAIN, (token, until_ms, job_id))
        claims.append(RawClaim(param=param, job_id=job_id, token=token, score=score, redelivered=True))
    last = now_ms / 1000 if kind is RawKind.TIMED_SET else math.inf
    found = connection.execute(_LINE, (queue, last, limit - len(claims))).fetchall()
    for seq, param, score, number in found:
        claim = RawClaim(
            param=param,
            job_id=new_id(),
            token=make_token(number + 1, new_nonce()),
            score=score,
        )
        if pushback is None:
            connection.execute(_TAKE, (seq,))
            connection.execute(_LEASE, (claim.job_id, queue, param, score, claim.token, until_ms))
        else:
            again = after(now, pushback).timestamp()
            connection.execute(_VISIT, (again, number + 1, _visit(claim), seq))
        claims.append(claim)
    if pushback is None:
        add_to_size(connection, queue, -len(found))
    return claims


def renew(connection: sqlite3.Connection, queue: str, claim: RawClaim, until: datetime) -> bool:
    """Prolongs one claim. A parameter that stayed in its set is not due before the end of the lease."""
    values = (to_ms(until), claim.job_id, queue, claim.token)
    if connection.execute(_PROLONG, values).rowcount:
        return True
    visit = (until.timestamp(), queue, claim.param, _visit(claim))
    return connection.execute(_PROLONG_VISIT, visit).rowcount > 0


def settle(
    connection: sqlite3.Connection, queue: str, claim: RawClaim, now_ms: int, delay: float | None
) -> bool:
    """Ends one claim. True also where it was settled before."""
    due_again = None if delay is None else after(from_ms(now_ms), delay)
    lease = (claim.job_id, queue, claim.token)
    visit = (queue, claim.param, _visit(claim))
    if due_again is None:
        ended = connection.execute(_END, lease).rowcount > 0
        if not ended and connection.execute(_END_VISIT, visit).rowcount:
            add_to_size(connection, queue, -1)
            ended = True
    else:
        ended = (
            connection.execute(_GIVE_BACK, (to_ms(due_again), *lease)).rowcount > 0
            or connection.execute(_VISIT_AGAIN, (due_again.timestamp(), *visit)).rowcount > 0
        )
    if ended:
        connection.execute(_REMEMBER, (_visit(claim), now_ms))
        return True
    return connection.execute(_WAS_SETTLED, (_visit(claim),)).fetchone() is not None


def end_lease(connection: sqlite3.Connection, queue: str, claim: RawClaim) -> bool:
    """Drops the lease of a claim that becomes a job; False if the claim is not the latest, or is over."""
    return (
        connection.execute(_END, (claim.job_id, queue, claim.token)).rowcount > 0
        or connection.execute(_ADMIT_VISIT, (queue, claim.param, _visit(claim))).rowcount > 0
    )


def forget_settled(connection: sqlite3.Connection, now_ms: int, limit: int) -> None:
    """Deletes some of the tokens that were settled long ago."""
    connection.execute(_FORGET, (now_ms - REMEMBERED_MS, limit))


def add_to_size(connection: sqlite3.Connection, queue: str, number: int) -> None:
    """Changes how many parameters wait."""
    if number:
        connection.execute(_ADD_TO_SIZE, (queue, number))


def without_score(claim: RawClaim) -> RawClaim:
    """The claim of a parameter in a queue that has no scores."""
    return replace(claim, score=None)


def _visit(claim: RawClaim) -> str:
    """What proves the claim: two parameters may be claimed under one number, but not with one id."""
    return f"{claim.job_id}:{claim.token}"


def admit(
    connection: sqlite3.Connection,
    clock: Clock,
    queue: str,
    claims: Sequence[tuple[RawClaim, JobRecord]],
    lease: float,
) -> list[bool]:
    """See `RawQueue.admit`."""
    now_ms = clock.now_ms()
    now = from_ms(now_ms)
    ids = codec.encode([claim.job_id for claim, _ in claims]).decode()
    stored = {
        columns[0]: records.read(*columns) for columns in connection.execute(_STORED, (ids,)).fetchall()
    }
    batch = Batch(now_ms)
    answers = []
    for claim, record in claims:
        if claim.job_id in stored:
            answers.append(was_admitted_by(stored[claim.job_id], claim.token))
            continue
        if not end_lease(connection, queue, claim):
            answers.append(False)
            continue
        stored[claim.job_id] = started = admitted(
            record, job_id=claim.job_id, token=claim.token, now=now, lease=lease
        )
        batch.insert(started, None)
        answers.append(True)
    failpoints.reach("raw.leases")
    batch.flush(connection)
    return answers
