"""Claiming due jobs for a worker: one script, and three more calls after a lost claim."""

from __future__ import annotations

import logging
from typing import Any

from msgspec.structs import replace

from mrq_broker_redis.jobs import damaged, limits, records, trees
from mrq_broker_redis.jobs.lost_claims import LostClaims
from mrq_broker_redis.jobs.records import moment
from mrq_broker_redis.jobs.trees import Rotation
from mrq_broker_redis.server.connection import Connection
from mrq_core.clock import from_ms
from mrq_core.contract import lifecycle
from mrq_core.contract.messages import Claimed, ClaimRequest
from mrq_core.contract.record import JobRecord
from mrq_core.drivers.limits import rules_of
from mrq_core.errors import BrokerCorrupt, BrokerError
from mrq_core.ids import new_nonce

_log = logging.getLogger("mrq.redis")
SWEEP_MS = 1000
"""How often a claim that is full searches for parked jobs with room nevertheless."""


def claim(connection: Connection, request: ClaimRequest, rotation: Rotation) -> Claimed:
    """See `Broker.claim`."""
    nonce = new_nonce()
    answer = _run(connection, request, rotation, nonce, limit=request.limit, leave_suspects=False)
    if answer[0] == b"suspects":
        return _claim_with_suspects(connection, request, rotation, nonce, answer)
    return _answered(connection, answer, request, rotation, nonce)


def _claim_with_suspects(
    connection: Connection, request: ClaimRequest, rotation: Rotation, nonce: str, answer: Any
) -> Claimed:
    """Claims suspects up to their limit, and then waiting jobs.

    An error after the first jobs are claimed only ends the call, so that these jobs are not lost.
    """
    damaged.set_aside_met(connection, answer[3])
    lost = LostClaims(connection, request, [job_id.decode() for job_id in answer[2]])
    first = lost.take(min(request.lost_limit, request.limit))
    now = from_ms(int(answer[1]))
    claimed = Claimed(next_due=now, now=now)
    limit = request.limit - len(first)
    further = replace(request, lost_limit=request.lost_limit - len(first))
    try:
        answer = _run(connection, further, rotation, nonce, limit=limit, leave_suspects=True)
        claimed = _answered(connection, answer, request, rotation, nonce)
    except BrokerError:
        if not first:
            raise
    return replace(
        claimed,
        records=(*first, *claimed.records),
        ended=tuple(lost.ended),
        is_denied=claimed.is_denied and not first,
    )


def _answered(
    connection: Connection, answer: Any, request: ClaimRequest, rotation: Rotation, nonce: str
) -> Claimed:
    """The answer of the script, for waiting jobs."""
    _, now_ms, found, due, continued, parked, swept, *more = answer
    now = from_ms(int(now_ms))
    taken: list[JobRecord] = []
    unread: list[str] = []
    for number, data in enumerate(found):
        try:
            record = lifecycle.claimed(
                records.record_in(data)[0],
                now=now,
                worker=request.worker,
                nonce=f"{nonce}{number:03x}",
                lease=request.lease,
            )
            taken.append(record)
        except (BrokerCorrupt, TypeError):  # TypeError: there is no data, or data of another type
            unread.append(f"{nonce}{number:03x}")
    rotation.note(int(now_ms), continued, parked, swept)
    if unread or more:
        try:
            if unread:
                damaged.set_aside_claimed(connection, unread)
            if more:
                damaged.set_aside_met(connection, more[1])
        except (
            BrokerError
        ) as error:  # the claimed jobs must not be lost; the next claim meets the others again
            if not taken:
                raise
            _log.error("claim.damaged error=%s", error)
    is_denied = bool(more) and more[0] == 1
    return Claimed(records=tuple(taken), next_due=moment(due), now=now, is_denied=is_denied)


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
    tasks = [sorted(request.denied_tasks), sorted(request.allowed_tasks)] if request.chooses_tasks else []
    return connection.run("claim", [*arguments, lifecycle.MOST_LOST_CLAIMS - 1, *tasks])


def arguments_of(
    request: ClaimRequest, rotation: Rotation, nonce: str, *, limit: int, leave_suspects: bool
) -> list[object]:
    """The arguments of a claim of jobs or entries, as lua/jobs/claiming.lua lists them."""
    return [
        request.worker,
        limit,
        round(request.lease * 1000),
        request.lost_limit,
        trees.wanted_as_list(request.wanted),
        limits.limits_as_map(rules_of(request)),
        nonce,
        {one.name: rotation.trees.get(one.name, "") for one in request.wanted if one.name.endswith("/")},
        rotation.parked,
        SWEEP_MS,
        rotation.swept_ms,
        leave_suspects,
    ]
