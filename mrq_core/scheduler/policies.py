"""Which fires of a schedule make jobs, when a scheduler finds them due. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

from mrq_core.ids import derived_id
from mrq_core.scheduler.definitions import Definition
from mrq_core.scheduler.triggers import Trigger, jitter_ms

_UNDUE_MOST = 8
"""The fires at the end of a backlog that jitter may hold back. Their jitter is at most the time to the next
fire, except near a change of the clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DueFires:
    """The fires that are due: `fires` make jobs, oldest first. `missed` and `dropped` are numbers of fires,
    `last` is the latest of all, and `next` the following fire. Times are Unix milliseconds."""

    fires: tuple[int, ...]
    missed: int
    dropped: int
    last: int
    next: int | None


def fire_id(schedule: str, fire_ms: int) -> str:
    """The id of the job of a fire, the same in every scheduler."""
    return derived_id(fire_ms / 1000, "schedule", schedule, str(fire_ms))


def due_at(definition: Definition, fire_ms: int) -> int:
    """The time at which a fire is due: its time and its jitter."""
    return fire_ms + jitter_ms(definition.name, fire_ms, definition.jitter)


def due_fires(definition: Definition, trigger: Trigger, next_ms: int, now_ms: int) -> DueFires | None:
    """The fires that are due now, from the fire `next_ms` on. None: not even that fire is due.

    Of several due fires, the latest is on time if it is not later than the grace time, and all earlier ones
    are missed. `skip` and `once` make the job of the latest fire; `all` makes those of the last
    `missed_limit` fires. No fire that is later than the grace time makes a job.
    """
    if due_at(definition, next_ms) > now_ms:
        return None
    wanted = definition.missed_limit if definition.missed == "all" else 1
    # `next_ms` counts as a fire, whatever the trigger says: the clock may have changed the zone's rules.
    latest = [next_ms, *trigger.latest(next_ms, now_ms, wanted + _UNDUE_MOST)]
    number = 1 + trigger.number(next_ms, now_ms)
    following = None
    while len(latest) > 1 and due_at(definition, latest[-1]) > now_ms:
        following = latest.pop()
        number -= 1
    if number > len(latest):
        del latest[0]
    grace = definition.grace_ms
    last = latest[-1]
    kept = [at for at in latest[-wanted:] if grace is None or now_ms - due_at(definition, at) <= grace]
    is_over_limit = definition.missed == "all" and len(kept) == wanted
    not_made = number - len(kept)
    return DueFires(
        fires=tuple(kept),
        missed=0 if is_over_limit else not_made,
        dropped=not_made if is_over_limit else 0,
        last=last,
        next=trigger.next_after(last) if following is None else following,
    )
