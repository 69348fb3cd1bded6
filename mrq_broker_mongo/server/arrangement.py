"""What is stored under a prefix: jobs together with their queues, or jobs alone, as one half of a broker.

The documents of the two are the same but for what a queue needs. Where jobs stand alone, the times that a
queue goes by have names that none of its indexes knows: so a claim changes the index of statuses alone.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Arrangement:
    """One of the two. A prefix has the one under which it was first used."""

    has_queue: bool
    """Whether a job has its place in a queue here, and its limits and its unique key are kept here."""
    names: tuple[tuple[str, str], ...]
    """Fields of a record that are stored under another name, and that name."""
    special: frozenset[str]
    """Fields which, where they are set, make an outcome concern more than the job's own document."""
    mark: str | None
    """By what the prefix is known; None: it has no mark."""
    message: str
    """What is wrong with using it for the other one."""

    def name(self, field: str) -> str:
        """The name under which a field of the record is stored."""
        return next((name for other, name in self.names if other == field), field)


WHOLE = Arrangement(
    has_queue=True,
    names=(),
    special=frozenset({"limit_keys", "unique_key", "cancel_requested"}),
    mark=None,
    message="hold the queue of their jobs too: they belong to the broker mongo without a STORE",
)
STORE = Arrangement(
    has_queue=False,
    names=(("due_at", "due"), ("lease_until", "lease")),
    special=frozenset({"cancel_requested"}),
    mark="store",
    message="hold jobs whose queue is elsewhere: they belong to a broker with mongo as its STORE",
)
ARRANGEMENTS = {one.mark: one for one in (WHOLE, STORE)}
