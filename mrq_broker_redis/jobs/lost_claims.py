"""Lost claims: started jobs whose lease has expired.

The script of a claim reports them as suspects (`lua/jobs/claiming.lua`, `lua/jobs/claim.lua`), and
`lifecycle.after_lost_claim` says which jobs end. Where the records are in another store, the same is in
`mrq_core/composed/claiming.py`.
"""

from __future__ import annotations

from mrq_broker_redis.jobs.changing import Records
from mrq_broker_redis.jobs.records import Stored
from mrq_broker_redis.server.connection import Connection
from mrq_core.contract import lifecycle
from mrq_core.contract.messages import ClaimRequest
from mrq_core.contract.pair import Replacement, WriteResult
from mrq_core.contract.record import JobRecord
from mrq_core.ids import new_nonce


def see_to(
    connection: Connection, request: ClaimRequest, ids: list[str]
) -> tuple[list[JobRecord], list[JobRecord]]:
    """Ends the jobs that must not run again, and claims one of the others for an idle worker.

    Returns the claimed and the ended jobs. Each job is written only if it is unchanged since it was read,
    because another worker may have claimed, renewed or settled it meanwhile.
    """
    stored_jobs = Records(connection)
    now, stored = stored_jobs.read(ids)
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
    answers = stored_jobs.write([Replacement(item, after) for item, after in planned], now, request.limits)
    written = [
        after for (_, after), answer in zip(planned, answers, strict=True) if answer is WriteResult.DONE
    ]
    return (
        [after for after in written if after is one],
        [after for after in written if after is not one],
    )
