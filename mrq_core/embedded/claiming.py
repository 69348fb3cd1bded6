"""Taking due jobs for a worker: one transaction, and a sync where its effect must not be lost."""

from __future__ import annotations

from mrq_core import failpoints
from mrq_core.clock import Clock
from mrq_core.contract.messages import Claimed, ClaimRequest
from mrq_core.embedded.database import Database
from mrq_core.embedded.taking import Round, Turns


def claim(database: Database, clock: Clock, request: ClaimRequest, turns: Turns) -> Claimed:
    """See `Broker.claim`."""
    claimed = database.write(lambda connection: Round(connection, clock, request, turns).run())
    if any(record.at_most_once for record in claimed.records):
        failpoints.reach("claim.unsynced")
        database.sync()  # that it was started must be known even after a power failure
    return claimed
