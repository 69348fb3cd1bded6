"""Taking due jobs for a worker: one script, and three more calls where a claim was lost."""

from __future__ import annotations

from typing import Any

from mrq_broker_redis import asking, rows
from mrq_broker_redis.asking import Turns
from mrq_broker_redis.changes import Records
from mrq_broker_redis.connection import Connection
from mrq_broker_redis.rows import Stored, moment
from mrq_core.clock import from_ms
from mrq_core.contract import lifecycle
from mrq_core.contract.messages import Claimed, ClaimRequest
from mrq_core.contract.pair import Replacement, WriteResult
from mrq_core.contract.record import JobRecord
from mrq_core.ids import new_nonce


def claim(connection: Connection, request: ClaimRequest, turns: Turns) -> Claimed:
    """See `Broker.claim`."""
    taken: list[JobRecord] = []
    ended: list[JobRecord] = []
    nonce = new_nonce()
    answer = _run(connection, request, turns, nonce, limit=request.limit, leave_suspects=False)
    if answer[0] == b"suspects":
        taken, ended = _see_to_suspects(connection, request, [job_id.decode() for job_id in answer[2]])
        limit = 0 if taken else request.limit
        answer = _run(connection, request, turns, nonce, limit=limit, leave_suspects=True)
    _, now_ms, found, due, suspects_due, new_turns, parked_turn, swept = answer
    now = from_ms(int(now_ms))
    for number, data in enumerate(found):
        record = lifecycle.claimed(
            rows.record_in(data)[0],
            now=now,
            worker=request.worker,
            nonce=f"{nonce}{number:03x}",
            lease=request.lease,
            alone=False,
        )
        taken.append(record)
    turns.note(int(now_ms), new_turns, parked_turn, swept)
    return Claimed(
        records=tuple(taken),
        next_due=moment(due),
        suspects_due=bool(suspects_due),
        ended=tuple(ended),
        now=now,
    )


def _run(
    connection: Connection,
    request: ClaimRequest,
    turns: Turns,
    nonce: str,
    *,
    limit: int,
    leave_suspects: bool,
) -> Any:
    arguments = asking.arguments(request, turns, nonce, limit=limit, leave_suspects=leave_suspects)
    return connection.run("claim", [*arguments, request.max_lost_claims])


def _see_to_suspects(
    connection: Connection, request: ClaimRequest, ids: list[str]
) -> tuple[list[JobRecord], list[JobRecord]]:
    """Ends the jobs that may not run again, and takes one of the others if the worker is idle.

    Each is written only if it is still what was read: another worker may have been quicker, and the job
    may have been renewed or settled in the last moment.
    """
    records = Records(connection)
    now, stored = records.read(ids)
    planned: list[tuple[Stored, JobRecord]] = []
    one: JobRecord | None = None
    for item in stored:
        record = item.record if item is not None else None
        if item is None or record is None or record.lease_until is None or record.lease_until > now:
            continue
        ended = lifecycle.after_lost_claim(record, request, now)
        if ended is not None:
            after = ended
        elif one is None and request.idle and request.limit > 0:
            after = one = lifecycle.claimed(
                record,
                now=now,
                worker=request.worker,
                nonce=new_nonce(),
                lease=request.lease,
                alone=True,
            )
        else:
            continue
        planned.append((item, after))
    answers = records.write([Replacement(item, after) for item, after in planned], now, request.limits)
    written = [
        after for (_, after), answer in zip(planned, answers, strict=True) if answer is WriteResult.DONE
    ]
    return (
        [after for after in written if after is one],
        [after for after in written if after is not one],
    )
