"""Deleting expired jobs, keys, rates, metrics, raw claims and names of queues, each in one script."""

from __future__ import annotations

from mrq_broker_redis.jobs import damaged
from mrq_broker_redis.server.connection import Connection
from mrq_broker_redis.shared.metrics import LETTERS


def prune(connection: Connection, limit: int) -> int:
    """See `Broker.prune`. Deletes up to `limit` jobs, and up to `limit` of everything else that has expired;
    examines up to `limit` names of queues."""
    spans = [[letter, one.seconds * 1000, round(one.kept * 1000)] for one, letter in LETTERS.items()]
    arguments = [max(0, limit), spans]
    answer = connection.run("prune", arguments, repeatable=True, even_if_full=True)
    if not isinstance(answer, list):
        return int(answer)
    number, ids = answer
    damaged.set_aside(connection, [job_id.decode() for job_id in ids])  # the next call deletes them
    return int(number)


def prune_entries(connection: Connection, limit: int) -> None:
    """See `JobQueue.prune`. Deletes up to `limit` expired unique keys, unused rates and settled claims of
    parameters, and forgets names of queues."""
    connection.run("entry_prune", [max(0, limit)], repeatable=True, even_if_full=True)
