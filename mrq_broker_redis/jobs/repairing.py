"""Repairs after an administrator, or a server that evicts keys, has removed some: entries and totals.

The hash of each job says which entry it has, and the indexes say how many jobs there are. What is lost with
the hash of a job, or with an index, is lost.
"""

from __future__ import annotations

from mrq_broker_redis.jobs import searching
from mrq_broker_redis.server import layout
from mrq_broker_redis.server.connection import Connection
from mrq_broker_redis.server.layout import Contents
from mrq_core.contract.queries import JobFilter, Order, RepairResult
from mrq_core.contract.record import UNFINISHED

BATCH = 100
"""The most jobs that one script examines."""
_UNFINISHED = JobFilter(statuses=UNFINISHED)


def repair(connection: Connection, limit: int, cursor: str | None) -> RepairResult:
    """See `Broker.repair`. Each script examines up to 100 jobs, and leaves existing entries as they are."""
    layout.ensure(connection, Contents.JOBS)
    page = searching.find(
        connection, _UNFINISHED, order=Order.OLDEST_FIRST, cursor=cursor, limit=max(1, limit)
    )
    ids = [record.id for record in page.records]
    repaired: list[str] = []
    for start in range(0, len(ids), BATCH):
        found = connection.run("repair", ids[start : start + BATCH], repeatable=True)
        repaired += [job_id.decode() for job_id in found]
    return RepairResult(examined=len(ids), repaired=tuple(repaired), cursor=page.cursor)


def repair_totals(connection: Connection) -> int:
    """See `Broker.repair_totals`. Reads a number for each status and each queue; where these differ from the
    totals, one script counts all jobs, about a second for a million, in which the server serves no other
    client. The index of the times at which jobs expire counts as one total, and is made anew if it lacks one
    of up to a thousand jobs of a status."""
    layout.ensure(connection, Contents.JOBS)
    return int(connection.run("repair_totals", [], repeatable=True))
