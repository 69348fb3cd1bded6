"""The schedules of configs in shared state: those of a config are made to be what it says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from msgspec.structs import replace

from mrq_core.clock import to_ms
from mrq_core.contract.broker import Broker
from mrq_core.operations.schedules import (
    CHANGES,
    SCHEDULES,
    Change,
    Source,
    StoredSchedule,
    change_one,
    existing,
    new_schedule,
    read_schedule,
    redefined,
    tell_schedulers,
    written,
)
from mrq_core.scheduler.definitions import Definition

_SYNCED_BY = "config"
_PLACE_SECONDS = 86_400.0
_TOMBSTONE_SECONDS = 30 * 86_400.0


class Synced(msgspec.Struct, frozen=True, kw_only=True):
    """The names of the schedules that a sync added, changed and removed."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


def sync_schedules(broker: Broker, definitions: Iterable[Definition], *, place: str = "") -> Synced:
    """Makes the schedules of configs those of this config: adds, changes and removes. Pauses, counts, and
    schedules of people stay, except those that have the name of a definition. Idempotent, and safe in several
    processes at once; of two configs that differ, the last sync wins. A round trip for each difference.

    `place`: the process and its config file, which other schedulers name when they follow."""
    wanted = {definition.name: definition for definition in definitions}
    now = to_ms(broker.now())
    items = {item.name: item for item in broker.state.list(SCHEDULES)}
    stored = {name: read_schedule(item) for name, item in items.items()}
    added: list[str] = []
    changed: list[str] = []
    removed: list[str] = []
    for name, definition in wanted.items():
        before = stored.get(name)
        if before is None or _differs(before, definition):
            after = written(broker, name, _sync_to(definition), items.get(name), now)
            if after is not None:
                (changed if before is not None and before.removed_at is None else added).append(name)
    for name, before in stored.items():
        if before is not None and before.source == "config" and name not in wanted:
            is_gone = before.removed_at is not None
            if not is_gone or before.removed_by == "person":
                written(broker, name, _left_out, items[name], now, ttl=_TOMBSTONE_SECONDS)
                removed += [] if is_gone else [name]
    if added or changed or removed:
        broker.state.put(CHANGES, _SYNCED_BY, place, ttl=_PLACE_SECONDS)
        tell_schedulers(broker)
    return Synced(added=tuple(added), changed=tuple(changed), removed=tuple(removed))


def load_schedules(
    broker: Broker, definitions: Sequence[Definition]
) -> tuple[list[StoredSchedule], list[str]]:
    """All schedules as `list_schedules`, and the names of those that were restored: schedules of a config
    that shared state has lost, or whose values are damaged. Deleted schedules stay deleted."""
    items = broker.state.list(SCHEDULES)
    known = {item.name for item in items if isinstance(item.value, dict)}
    lost = [definition for definition in definitions if definition.name not in known]
    restored = [one.name for one in lost if change_one(broker, one.name, _add_only(one))]
    return existing(broker.state.list(SCHEDULES) if lost else items), restored


def who_changed(broker: Broker, stored: Iterable[StoredSchedule | None]) -> str:
    """Where changes of schedules come from: a config with its place, people, or both. `stored`: the schedules
    as they are now, None where it is gone. The place is that of the latest sync."""
    sources: set[Source] = set()
    for one in stored:
        if one is not None and one.removed_at is None:
            sources.add(one.source)
        else:  # nothing remains of what people have added and deleted
            sources.add((one and one.removed_by) or "person")
    item = broker.state.get(CHANGES, _SYNCED_BY) if "config" in sources else None
    place = item.value if item is not None and isinstance(item.value, str) else ""
    words = {"config": f"the config of {place}" if place else "another config", "person": "a person"}
    return " and ".join(words[source] for source in sorted(sources))


def _add_only(definition: Definition) -> Change:
    return lambda stored, now: new_schedule(definition, "config", now) if stored is None else None


def _differs(stored: StoredSchedule, definition: Definition) -> bool:
    """Whether a sync has to change the schedule. One that a person deleted stays deleted."""
    if stored.definition != definition or stored.source != "config":
        return True
    return stored.removed_at is not None and stored.removed_by == "config"


def _sync_to(definition: Definition) -> Change:
    def change(stored: StoredSchedule | None, now: int) -> StoredSchedule | None:
        if stored is None:
            return new_schedule(definition, "config", now)
        return redefined(stored, definition, "config", now) if _differs(stored, definition) else None

    return change


def _left_out(stored: StoredSchedule | None, now: int) -> StoredSchedule | None:
    if stored is None or stored.source != "config":
        return None
    return replace(stored, removed_at=stored.removed_at or now, removed_by="config")
