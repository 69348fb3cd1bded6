"""Taking due jobs for a worker: which queues to look at, and then the claim itself."""

from __future__ import annotations

import sqlite3

from mrq_core import failpoints
from mrq_core.clock import Clock
from mrq_core.embedded import subqueues
from mrq_core.embedded.database import Database
from mrq_core.embedded.taking import Choice, Round, Turns
from mrq_core.messages import Claimed, ClaimRequest, Wanted


def claim(database: Database, clock: Clock, request: ClaimRequest, turns: Turns) -> Claimed:
    """See `Broker.claim`."""
    wanted = _resolved(database, clock, request, turns)
    failpoints.reach("claim.chosen")
    claimed = database.write(lambda connection: Round(connection, clock, request, turns).run(wanted))
    _advance(turns, wanted, claimed)
    if any(record.at_most_once for record in claimed.records):
        failpoints.reach("claim.committed")
        database.sync()  # that it was started must be known even after a power failure
    return claimed


def _resolved(database: Database, clock: Clock, request: ClaimRequest, turns: Turns) -> Choice:
    """For each wanted queue or tree the queues to look at. Read before the lock is taken."""
    trees = [wanted for wanted in request.wanted if wanted.name.endswith("/")]
    found: dict[Wanted, list[str]] = {}
    if trees:

        def look(connection: sqlite3.Connection) -> None:
            now_ms = clock.now_ms()
            for tree in trees:
                resolved = subqueues.resolve(connection, tree, now_ms, turns.trees.get(tree.name, ""))
                found[tree] = resolved.names
                if not resolved.names:
                    turns.trees[tree.name] = resolved.last

        database.read(look)
    return [
        (wanted, found[wanted] if wanted in found else _unless_excluded(wanted)) for wanted in request.wanted
    ]


def _unless_excluded(wanted: Wanted) -> list[str]:
    return [] if subqueues.is_excluded(wanted.name, wanted.exclude) else [wanted.name]


def _advance(turns: Turns, wanted: Choice, claimed: Claimed) -> None:
    """The next call begins behind the last subqueue that gave something to this one."""
    given = {record.queue for record in claimed.records}
    for tree, names in wanted:
        if tree.name.endswith("/") and names:
            turns.trees[tree.name] = next((name for name in reversed(names) if name in given), names[-1])
