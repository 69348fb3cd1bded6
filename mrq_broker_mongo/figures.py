"""What queues hold."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from mrq_broker_mongo.connection import Connection
from mrq_broker_mongo.documents import RANKS, WAITING_CELLS
from mrq_broker_mongo.layout import DUE, LEASES
from mrq_broker_mongo.lines import EVER, due_query
from mrq_core.contract.messages import QueueCounts

MOST_DUE = 10_000


def counts(connection: Connection, queues: Sequence[str]) -> list[QueueCounts]:
    """See `Broker.counts`. What waits and what is claimed comes from the totals; what is due is counted, so
    far."""
    now = connection.now()
    names = [f"q {queue}" for queue in queues]
    found = connection.run("totals", lambda totals: list(totals.find({"_id": {"$in": names}})))
    numbers = {doc["_id"]: doc.get("n", {}) for doc in found}
    return [_counts(connection, queue, numbers.get(f"q {queue}", {}), now) for queue in queues]


def _counts(connection: Connection, queue: str, numbers: dict[str, int], now: datetime) -> QueueCounts:
    if not any(numbers.values()):
        return QueueCounts(queue=queue)
    waiting = max(0, sum(numbers.get(cell, 0) for cell in WAITING_CELLS))
    started = max(0, numbers.get("started", 0))
    lost = {"queue": queue, "lease_until": {"$lte": now}}
    due = connection.run(
        "jobs", lambda jobs: jobs.count_documents(due_query(queue, now), limit=MOST_DUE, hint=DUE.name)
    )
    over = connection.run("jobs", lambda jobs: jobs.count_documents(lost, limit=MOST_DUE, hint=LEASES.name))
    oldest: list[datetime] = []
    if due:
        head = {"queue": queue, "rank": {"$in": RANKS}, "due_at": {"$gt": EVER, "$lte": now}}
        oldest += connection.run(
            "jobs",
            lambda jobs: [doc["due_at"] for doc in jobs.find(head, {"due_at": 1}).sort("due_at").limit(1)],
        )
    if over:
        oldest += connection.run(
            "jobs",
            lambda jobs: [
                doc["lease_until"] for doc in jobs.find(lost, {"lease_until": 1}).sort("lease_until").limit(1)
            ],
        )
    return QueueCounts(
        queue=queue,
        waiting=waiting + over,
        due=min(due + over, MOST_DUE),
        claimed=max(0, started - over),
        oldest_due=min(oldest, default=None),
    )
