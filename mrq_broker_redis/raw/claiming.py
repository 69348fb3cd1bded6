"""Claims of raw parameters: made, renewed, settled and admitted. Each is guarded by its token."""

from __future__ import annotations

from collections.abc import Sequence

from mrq_broker_redis.jobs import records
from mrq_broker_redis.jobs.changing import Records
from mrq_broker_redis.raw.parameters import BATCH, has_scores
from mrq_broker_redis.server.connection import Connection
from mrq_core.contract import lifecycle
from mrq_core.contract.messages import RawClaim
from mrq_core.contract.naming import RawKind
from mrq_core.contract.record import JobRecord
from mrq_core.ids import new_id, new_nonce

_READ_RECORD = 2
"""The answer of the script where the record must be read."""


def claim(
    connection: Connection, name: str, kind: RawKind, limit: int, lease: float, pushback: float | None
) -> list[RawClaim]:
    """See `RawParameters.claim`."""
    again = -1 if pushback is None else round(pushback * 1000)
    ids = [new_id() for _ in range(limit)]
    found = connection.run(
        "raw_claim",
        [name, str(kind), limit, round(lease * 1000), again, ids, new_nonce()],
    )
    return [
        RawClaim(
            param=param.decode(),
            job_id=job_id.decode(),
            token=token.decode(),
            score=float(score) if has_scores(kind) else None,
            redelivered=bool(redelivered),
        )
        for param, job_id, token, score, redelivered in zip(*[iter(found)] * 5, strict=True)
    ]


def renew(connection: Connection, name: str, claims: Sequence[RawClaim], lease: float) -> list[bool]:
    """See `RawParameters.renew`."""
    proofs = [proof_of(claim) for claim in claims]
    arguments = [name, round(lease * 1000), proofs]
    return [
        bool(answer) for answer in connection.run("raw_renew", arguments, repeatable=True, even_if_full=True)
    ]


def settle(
    connection: Connection, name: str, claims: Sequence[RawClaim], due_again: Sequence[float | None]
) -> list[bool]:
    """See `RawParameters.settle`."""
    items = [
        [*proof_of(claim), -1 if delay is None else round(delay * 1000)]
        for claim, delay in zip(claims, due_again, strict=True)
    ]
    found = connection.run("raw_settle", [name, items], repeatable=True, even_if_full=True)
    return [bool(answer) for answer in found]


def is_leased(connection: Connection, name: str, ids: Sequence[str]) -> list[bool]:
    """See `JobQueue.is_leased`. A parameter that stays in its set has no lease; see `JobQueue.admit`."""
    if not ids:
        return []
    found = connection.execute("HMGET", connection.key(f"raw-lease:{name}"), *ids)
    return [lease is not None for lease in found]


def admit(
    connection: Connection, name: str, claims: Sequence[tuple[RawClaim, JobRecord]], lease: float
) -> list[bool]:
    """See `RawQueue.admit`."""
    now, _ = Records(connection).read([])
    jobs = []
    for claim, record in claims:
        started = lifecycle.admitted(record, job_id=claim.job_id, token=claim.token, now=now, lease=lease)
        keys = records.search_keys_of(started) or False
        jobs.append([*proof_of(claim), records.row_of(started), records.params_of(started), keys])
    answers: list[int] = []
    for start in range(0, len(jobs), BATCH):
        part = jobs[start : start + BATCH]
        answers += connection.run("raw_admit", [name, round(lease * 1000), part], repeatable=True)
    return _with_admitted_before(connection, [claim for claim, _ in claims], answers)


def _with_admitted_before(
    connection: Connection, claims: Sequence[RawClaim], answers: list[int]
) -> list[bool]:
    """Looks up jobs that a repeated call has admitted already."""
    ids = [claim.job_id for claim, answer in zip(claims, answers, strict=True) if answer == _READ_RECORD]
    stored = dict(zip(ids, Records(connection).read(ids)[1], strict=True)) if ids else {}
    return [
        answer == 1
        if answer != _READ_RECORD
        else (found := stored[claim.job_id]) is not None
        and lifecycle.was_admitted_by(found.record, claim.token)
        for claim, answer in zip(claims, answers, strict=True)
    ]


def proof_of(claim: RawClaim) -> list[str]:
    """The arguments by which a script checks that the claim is valid."""
    return [claim.param, claim.job_id, claim.token]
