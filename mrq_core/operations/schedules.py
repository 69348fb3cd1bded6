"""Schedules in shared state: their definitions, pauses, fires and counts. Every change is atomic.

| namespace | name | value |
|---|---|---|
| `schedules` | a schedule | a StoredSchedule |
| `schedule_changes` | `number` | the number of changes by people and configs, which schedulers poll |
| `schedulers` | a scheduler | the time of its last report; the value expires |
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import msgspec
from msgspec.structs import replace

from mrq_core.clock import from_ms, to_ms
from mrq_core.contract.broker import Broker
from mrq_core.contract.codec import JsonValue
from mrq_core.contract.plain import whole_of
from mrq_core.contract.shared_state import StateItem
from mrq_core.contract.signal_errors import raised_by_handler
from mrq_core.errors import (
    BrokerUnavailable,
    ChangedMeanwhile,
    InvalidValue,
    ScheduleExists,
    ScheduleNotFound,
    shown,
    shown_error,
)
from mrq_core.operations.task_descriptions import published_task
from mrq_core.operations.task_forms import check_params
from mrq_core.scheduler.definitions import Definition, Moment, trigger_of
from mrq_core.scheduler.triggers import Trigger
from mrq_core.tasks.describing import TaskDescription

SCHEDULES, CHANGES, SCHEDULERS = "schedules", "schedule_changes", "schedulers"
UPCOMING_MOST = 1000
"""The most fires that are foretold."""
RECENT_MOST = 20
"""The jobs that a schedule remembers."""
_ATTEMPTS = 100

Source = Literal["config", "person"]
Change = Callable[["StoredSchedule | None", int], "StoredSchedule | None"]
"""Makes the new schedule of the stored one and the broker's time. None: it stays unchanged."""


class Fire(msgspec.Struct, frozen=True, kw_only=True):
    """A fire, in Unix milliseconds, and the id of its job."""

    at: Moment
    job: str


class StoredSchedule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A schedule as shared state holds it. Times are Unix milliseconds.

    `next_fire` None: it fires no more. An interval counts from `anchor`. Failures before `failures_from` do
    not count for `pause_after`. `pending`: fires whose jobs a scheduler makes, since `pending_at`.
    `removed_at`: it was deleted, and is kept so that a config that still has it continues its fires, or
    leaves it deleted if a person deleted it.
    """

    definition: Definition
    source: Source
    anchor: Moment
    next_fire: Moment | None
    last_fire: Moment | None = None
    pending: tuple[Moment, ...] = ()
    pending_at: Moment = 0
    recent: tuple[Fire, ...] = ()
    """The latest fires that made jobs, oldest first."""
    fired: int = 0
    missed: int = 0
    overlapped: int = 0
    dropped: int = 0
    paused_at: Moment | None = None
    pause_reason: str = ""
    failures_from: Moment = 0
    removed_at: Moment | None = None
    removed_by: Source | None = None
    error: str = ""
    """Why the latest fire made no job."""

    @property
    def name(self) -> str:
        """The name of the schedule."""
        return self.definition.name

    @property
    def fires(self) -> bool:
        """Whether the schedule will fire."""
        return self.paused_at is None and self.removed_at is None and self.next_fire is not None


# --- reading --------------------------------------------------------------------------------


def list_schedules(broker: Broker) -> list[StoredSchedule]:
    """All schedules, by name, without deleted ones and those that this version cannot read."""
    return existing(broker.state.list(SCHEDULES))


def existing(items: Iterable[StateItem]) -> list[StoredSchedule]:
    """The schedules in these values, without deleted ones and those that this version cannot read."""
    return [
        stored for stored in map(read_schedule, items) if stored is not None and stored.removed_at is None
    ]


def find_schedule(broker: Broker, name: str) -> StoredSchedule:
    """The schedule with this name. Raises ScheduleNotFound, and InvalidValue for an empty name."""
    if not name:
        raise InvalidValue("the name of the schedule is empty: expected a name", path="name")
    item = broker.state.get(SCHEDULES, name)
    stored = None if item is None else read_schedule(item)
    if stored is None or stored.removed_at is not None:
        raise ScheduleNotFound(
            f"there is no schedule {shown(name)}: expected a name that `mrq schedules list` shows",
            path="name",
        )
    return stored


def read_schedule(item: StateItem) -> StoredSchedule | None:
    """The schedule in a value. None: this version cannot read it."""
    try:
        stored = msgspec.convert(item.value, StoredSchedule)
    except msgspec.ValidationError:
        return None
    return stored if stored.name == item.name else None


def trigger_in(stored: StoredSchedule) -> Trigger:
    """The trigger of a schedule. Raises InvalidValue for a definition that this version, or the zones of this
    machine, refuse."""
    try:
        return trigger_of(stored.definition, stored.anchor)
    except Exception as error:
        if raised_by_handler(error) is not None:
            raise
        raise InvalidValue(
            f"the definition of the schedule {shown(stored.name)} cannot be used ({shown_error(error)}): add "
            "the schedule again, or correct its config",
            path="name",
        ) from error


def upcoming(stored: StoredSchedule, number: int) -> list[int]:
    """The next fires, at most `number`, in Unix milliseconds. Raises InvalidValue unless `number` is a whole
    number from 1 to UPCOMING_MOST."""
    most = whole_of(number)
    if most is None or not 1 <= most <= UPCOMING_MOST:
        raise InvalidValue(
            f"number is {shown(number)}: expected a whole number from 1 to {UPCOMING_MOST:,}", path="number"
        )
    trigger = trigger_in(stored)
    found: list[int] = []
    at = stored.next_fire
    while at is not None and len(found) < most:
        found.append(at)
        at = trigger.next_after(at)
    return found


def schedulers(broker: Broker) -> list[str]:
    """The names of the schedulers that have reported in the last half minute."""
    return [item.name for item in broker.state.list(SCHEDULERS)]


# --- changing -------------------------------------------------------------------------------


def digest_of(definition: Definition) -> str:
    """Tells a definition from another one."""
    return hashlib.sha256(msgspec.json.encode(definition)).hexdigest()[:32]


def check_end(definition: Definition, now: int) -> None:
    """Raises InvalidValue for a schedule whose `end` is past: it would never fire."""
    if definition.end is not None and definition.end <= now:
        end = from_ms(definition.end).isoformat(timespec="seconds").replace("+00:00", "Z")
        raise InvalidValue(
            f"end is {end}, which is past: the schedule would never fire; expected a later end, or none",
            path="end",
        )


def check_job_params(broker: Broker, definition: Definition, described: TaskDescription | None) -> None:
    """Raises InvalidValue if the params do not fit the arguments of the task, as `described` or, if that is
    None, as workers have published it."""
    check_params(described or published_task(broker, definition.path), definition.params)


def add_schedule(
    broker: Broker,
    definition: Definition,
    *,
    replaces: bool = False,
    seen: str | None = None,
    described: TaskDescription | None = None,
) -> StoredSchedule:
    """Adds a schedule that belongs to no config. Raises ScheduleExists if its name is taken, unless
    `replaces`: then its definition changes, and its counts stay. Raises InvalidValue for an `end` that is
    past, and for params that do not fit the task, see `check_job_params`. `seen`: the `digest_of` of the
    definition to replace; raises ChangedMeanwhile if the schedule has another one, or is gone."""
    check_job_params(broker, definition, described)

    def change(stored: StoredSchedule | None, now: int) -> StoredSchedule:
        check_end(definition, now)
        is_gone = stored is None or stored.removed_at is not None
        if seen is not None and (is_gone or stored is None or digest_of(stored.definition) != seen):
            raise ChangedMeanwhile(
                f"the schedule {shown(definition.name)} was {'deleted' if is_gone else 'changed'} since you "
                "opened it: open it again"
            )
        if stored is None or stored.removed_at is not None:
            return new_schedule(definition, "person", now)
        if not replaces:
            raise ScheduleExists(
                f"there is a schedule {shown(definition.name)} already: expected another name, or a request "
                "to replace it",
                path="name",
            )
        return redefined(stored, definition, "person", now)

    changed = change_one(broker, definition.name, change)
    assert changed is not None
    return changed


def pause_schedules(broker: Broker, names: Sequence[str], *, why: str = "") -> list[StoredSchedule]:
    """Pauses schedules until they are resumed: they do not fire, and their jobs go on. A second pause changes
    nothing. Raises InvalidValue for an unknown name, before any is paused."""

    def change(stored: StoredSchedule | None, now: int) -> StoredSchedule | None:
        if stored is None or stored.paused_at is not None:
            return None
        return replace(stored, paused_at=now, pause_reason=why)

    return _change_known(broker, names, change)


def resume_schedules(broker: Broker, names: Sequence[str]) -> list[StoredSchedule]:
    """Resumes schedules, and restores deleted schedules of a config. Fires of the pause are left out, and
    earlier failures are forgotten. Raises InvalidValue for an unknown name, before any is resumed."""

    def change(stored: StoredSchedule | None, now: int) -> StoredSchedule | None:
        if stored is None or (stored.paused_at is None and stored.removed_at is None):
            return None
        next_fire = stored.next_fire
        if next_fire is not None and next_fire <= now:
            next_fire = trigger_in(stored).next_after(now)
        return replace(
            stored,
            paused_at=None,
            pause_reason="",
            removed_at=None,
            removed_by=None,
            next_fire=next_fire,
            failures_from=now,
        )

    return _change_known(broker, names, change, with_removed=True)


def delete_schedules(broker: Broker, names: Sequence[str]) -> list[StoredSchedule]:
    """Deletes schedules; their jobs stay. A schedule of a config stays deleted until `resume_schedules`, or
    until the config defines it otherwise. Raises InvalidValue for an unknown name, before any is deleted."""

    def change(stored: StoredSchedule | None, now: int) -> StoredSchedule | None:
        return None if stored is None else replace(stored, removed_at=now, removed_by="person")

    deleted = _change_known(broker, names, change)
    own = [stored.name for stored in deleted if stored.source == "person"]
    broker.state.delete(SCHEDULES, own)
    return deleted


def redefined(stored: StoredSchedule, definition: Definition, source: Source, now: int) -> StoredSchedule:
    """The schedule with another definition. It keeps its next fire if the trigger stays; otherwise it fires
    next after now, and an interval counts from the last fire, or fires at once if there was none."""
    fresh = replace(stored, definition=definition, source=source, removed_at=None, removed_by=None)
    if stored.removed_at is None and definition.has_trigger_of(stored.definition):
        return fresh
    if definition.has_trigger_of(stored.definition):
        return replace(fresh, next_fire=_next_after(fresh, now))
    anchor = now if stored.last_fire is None else stored.last_fire
    fresh = replace(fresh, anchor=anchor)
    is_first = definition.interval is not None and stored.last_fire is None
    return replace(fresh, next_fire=_next_after(fresh, now - 1 if is_first else now))


def new_schedule(definition: Definition, source: Source, now: int) -> StoredSchedule:
    """A schedule that has not fired. An interval fires at once."""
    made = StoredSchedule(definition=definition, source=source, anchor=now, next_fire=None)
    return replace(made, next_fire=_next_after(made, now - 1 if definition.interval is not None else now))


def _next_after(stored: StoredSchedule, moment: int) -> int | None:
    return trigger_in(stored).next_after(moment)


def _change_known(
    broker: Broker, names: Sequence[str], change: Change, *, with_removed: bool = False
) -> list[StoredSchedule]:
    """Changes schedules that exist, each once. Returns those that changed."""
    names = list(dict.fromkeys(names))
    for name in names:
        item = broker.state.get(SCHEDULES, name)
        stored = None if item is None else read_schedule(item)
        is_kept = stored is not None and stored.removed_at is not None and stored.removed_by == "person"
        if not (with_removed and is_kept):
            find_schedule(broker, name)
    changed = (change_one(broker, name, change) for name in names)
    return [stored for stored in changed if stored is not None]


def change_one(broker: Broker, name: str, change: Change) -> StoredSchedule | None:
    """Changes one schedule, and tells schedulers. None: `change` left it unchanged."""
    now = to_ms(broker.now())
    after = written(broker, name, change, broker.state.get(SCHEDULES, name), now)
    if after is not None:
        tell_schedulers(broker)
    return after


def written(
    broker: Broker,
    name: str,
    change: Change,
    item: StateItem | None,
    now: int,
    *,
    ttl: float | None = None,
) -> StoredSchedule | None:
    """Changes one schedule by compare-and-set. `item`: its value as the caller has read it; it is read again
    if it has changed since. None: `change` left it unchanged."""
    for _ in range(_ATTEMPTS):
        after = change(None if item is None else read_schedule(item), now)
        if after is None:
            return None
        version = 0 if item is None else item.version
        if broker.state.compare_and_set(SCHEDULES, name, stored_value(after), version=version, ttl=ttl):
            return after
        item = broker.state.get(SCHEDULES, name)
    raise BrokerUnavailable(f"the schedule {name!r} changes too often to be changed: try again")


def tell_schedulers(broker: Broker) -> None:
    """Makes schedulers read all schedules. After a crash before this call they read them within a minute."""
    broker.state.add(CHANGES, "number", 1)


def stored_value(stored: StoredSchedule) -> JsonValue:
    """The value that stores a schedule."""
    value: JsonValue = msgspec.to_builtins(stored)
    return value
