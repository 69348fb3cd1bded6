"""Claiming due jobs for a worker: one script, and three more calls after a lost claim."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from mrq_broker_redis.jobs import limits, records, trees
from mrq_broker_redis.jobs.lost_claims import LostClaims
from mrq_broker_redis.jobs.records import moment
from mrq_broker_redis.jobs.trees import Rotation
from mrq_broker_redis.server.connection import Connection
from mrq_core.clock import from_ms
from mrq_core.contract import lifecycle
from mrq_core.contract.messages import Claimed, ClaimRequest
from mrq_core.contract.record import JobRecord
from mrq_core.ids import new_nonce

SWEEP_MS = 1000
"""How often a claim that is full searches for parked jobs with room nevertheless."""


def claim(connection: Connection, request: ClaimRequest, rotation: Rotation) -> Claimed:
    """See `Broker.claim`."""
    taken: list[JobRecord] = []
    lost: LostClaims | None = None
    nonce = new_nonce()
    answer = _run(connection, request, rotation, nonce, limit=request.limit, leave_suspects=False)
    if answer[0] == b"suspects":
        lost = LostClaims(connection, request, [job_id.decode() for job_id in answer[2]])
        taken = lost.take(min(request.lost_limit, request.limit))
        limit = request.limit - len(taken)
        request = replace(request, lost_limit=request.lost_limit - len(taken))
        answer = _run(connection, request, rotation, nonce, limit=limit, leave_suspects=True)
    _, now_ms, found, due, continued, parked, swept = answer
    now = from_ms(int(now_ms))
    for number, data in enumerate(found):
        record = lifecycle.claimed(
            records.record_in(data)[0],
            now=now,
            worker=request.worker,
            nonce=f"{nonce}{number:03x}",
            lease=request.lease,
        )
        taken.append(record)
    rotation.note(int(now_ms), continued, parked, swept)
    return Claimed(
        records=tuple(taken),
        next_due=moment(due),
        ended=() if lost is None else tuple(lost.ended),
        now=now,
    )


def _run(
    connection: Connection,
    request: ClaimRequest,
    rotation: Rotation,
    nonce: str,
    *,
    limit: int,
    leave_suspects: bool,
) -> Any:
    arguments = arguments_of(request, rotation, nonce, limit=limit, leave_suspects=leave_suspects)
    return connection.run("claim", [*arguments, lifecycle.MOST_LOST_CLAIMS - 1])


def arguments_of(
    request: ClaimRequest, rotation: Rotation, nonce: str, *, limit: int, leave_suspects: bool
) -> list[object]:
    """The arguments of a claim of jobs or entries, as lua/jobs/claiming.lua lists them."""
    return [
        request.worker,
        limit,
        round(request.lease * 1000),
        request.lost_limit > 0,
        trees.wanted_as_list(request.wanted),
        limits.limits_as_map(request.limits),
        nonce,
        {one.name: rotation.trees.get(one.name, "") for one in request.wanted if one.name.endswith("/")},
        rotation.parked,
        SWEEP_MS,
        rotation.swept_ms,
        leave_suspects,
    ]
