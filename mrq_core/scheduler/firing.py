"""The scheduler: makes the jobs of schedules when they are due. Any number may run at once, without a leader.

A schedule fires in three steps. One scheduler chooses the fires that make jobs, and advances the schedule to
the next fire, by compare-and-set: the chosen fires are pending. It enqueues their jobs. Then it counts them,
and nothing is pending. So two schedulers that find several fires due at different times choose once.

The id of a job is derived from schedule and fire time. After a crash between two steps, another scheduler
takes the pending fires over and enqueues the same ids again, which changes nothing where they are stored.

A scheduler keeps only the due times of schedules in memory. It reads a schedule before it fires, and reads it
again if it was stopped in between. All times are those of the broker's clock: the next fire follows from the
last one, so that a clock that steps repeats no fire.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from msgspec.structs import replace

from mrq_core import failpoints
from mrq_core.client.client import Client
from mrq_core.client.schedules import (
    cancel_others,
    job_of_fire,
    recent_failures,
    refusal_of,
)
from mrq_core.clock import monotonic, to_ms
from mrq_core.contract.messages import CHUNK, NewJob
from mrq_core.contract.naming import shown_names
from mrq_core.contract.plain_tracebacks import log_error
from mrq_core.errors import BrokerError, MrqError, shown_error
from mrq_core.operations import schedule_sync, schedules
from mrq_core.operations.limits import publish_overlap_rule
from mrq_core.operations.schedules import (
    RECENT_MOST,
    SCHEDULES,
    Fire,
    StoredSchedule,
    read_schedule,
    stored_value,
)
from mrq_core.scheduler.definitions import Definition, trigger_of
from mrq_core.scheduler.due_times import DueTimes
from mrq_core.scheduler.policies import due_fires, fire_id

BATCH = 100
"""The most schedules that fire together."""
PAUSE = 1.0
"""The most seconds between two looks for changes."""
RELOAD_SECONDS = 60.0
"""Seconds after which all schedules are read again, also without a known change."""
STALE_SECONDS = 1.0
"""Seconds after which a schedule is read again before it fires."""
_RETRY_MS = 30_000
"""The time until a schedule that cannot fire is tried again."""
_STEP_SECONDS = 5.0
"""Seconds by which the broker's clock may go back without a warning."""
_REPORT_SECONDS, _REPORT_TTL = 10.0, 30.0
_TRIES = 10
"""Attempts to count the jobs of a schedule that people change at the same time."""

_log = logging.getLogger("mrq.scheduler")


@dataclass(slots=True, kw_only=True)
class _Plan:
    """A schedule that is due: in the form that stores its choice, the version that this replaces, and
    what the fires make."""

    stored: StoredSchedule
    version: int
    missed: int
    dropped: int
    jobs: list[NewJob] = field(default_factory=list)
    refused: int = 0
    error: str = ""
    made: list[str] = field(default_factory=list)
    """The ids of the jobs that the overlap policy allowed."""


class Scheduler:
    """Fires the schedules of a broker. `definitions` are synced at the start.

    `now` tells the time instead of the broker, and `wait` waits for some seconds, or less.
    """

    def __init__(
        self,
        client: Client,
        definitions: Sequence[Definition] | None,
        *,
        now: Callable[[], datetime] | None = None,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        self._client = client
        self._broker = client.broker
        self._definitions = definitions
        self._now = now or client.broker.now
        self._is_stopped = False
        self._wait = wait or time.sleep
        self.name = f"{socket.gethostname()}.{os.getpid()}"
        self._due = DueTimes()
        self._loaded: set[str] = set()
        self._followed: dict[str, Definition] | None = None
        self._examined: dict[str, Definition] = {}
        self._known_changes = -1
        self._loaded_at = -RELOAD_SECONDS
        self._reported_at = -_REPORT_SECONDS
        self._is_failing = False
        self._latest = 0

    def start(self) -> None:
        """Syncs the definitions. None keeps the stored schedules. Raises BrokerError."""
        if self._definitions is not None:
            config = getattr(self._client.config.module, "__file__", None) or "no file"
            synced = schedule_sync.sync_schedules(
                self._broker, self._definitions, place=f"{self.name} ({config})"
            )
            for what, names in (
                ("added", synced.added),
                ("changed", synced.changed),
                ("removed", synced.removed),
            ):
                if names:
                    _log.info("schedules.%s %s", what, shown_names(names))
        _log.info("scheduler.started name=%s broker=%s", self.name, self._broker.name)

    def run(self) -> None:
        """Fires schedules until `stop`. Waits for a broker that is away."""
        is_disturbed = True
        while not self._is_stopped:
            if is_disturbed:  # what was due may be neither made nor remembered
                self._known_changes = -1
            is_disturbed = True
            try:
                pause = self.tick()
                is_disturbed = self._is_failing = False
            except (BrokerError, OSError) as error:
                if not self._is_failing:
                    _log.warning("scheduler.waiting error=%s", error)
                self._is_failing, pause = True, PAUSE
            except Exception:
                _log.exception("scheduler.broke: it goes on in a second")
                pause = PAUSE
            if not self._is_stopped:  # also for 0 seconds: the jobs of a worker go on during a backlog
                self._wait(pause)

    def stop(self) -> None:
        """Ends `run` after the current tick. May be called in a signal handler."""
        self._is_stopped = True

    def close(self) -> None:
        """Deletes the report of this scheduler, unless the broker is away: the report expires soon."""
        if not self._is_failing:
            with contextlib.suppress(BrokerError):
                self._broker.state.delete(schedules.SCHEDULERS, [self.name])

    def tick(self) -> float:
        """Fires up to BATCH schedules that are due; returns the seconds until the next tick. Raises
        BrokerError."""
        self._report()
        self._follow_changes()
        now = to_ms(self._now())
        self._notice_step(now)
        names = self._due.take(now, BATCH)
        if names:
            self._fire(names, now)
            now = to_ms(self._now())
        following = self._due.first()
        return PAUSE if following is None else max(0.0, min(PAUSE, (following - now) / 1000))

    def _notice_step(self, now: int) -> None:
        """Warns if the broker's clock was set back: schedules then stand still until it shows their time."""
        back, self._latest = (self._latest - now) / 1000, now
        if back > _STEP_SECONDS:
            _log.warning(
                "scheduler.clock_back seconds=%.0f: no schedule fires again before its next fire", back
            )

    # --- what is due ------------------------------------------------------------------------

    def _follow_changes(self) -> None:
        """Reads all schedules if people or configs have changed some."""
        item = self._broker.state.get(schedules.CHANGES, "number")
        changes = item.value if item is not None and isinstance(item.value, int) else 0
        elapsed = monotonic() - self._loaded_at
        if changes == self._known_changes and elapsed < RELOAD_SECONDS:
            return
        found, restored = schedule_sync.load_schedules(self._broker, self._definitions or ())
        if restored:
            _log.warning("schedules.restored %s: the broker had lost them", shown_names(restored))
        self._tell_followed({stored.name: stored for stored in found}, restored)
        self._due.note_all(found)
        if any(stored.definition.overlap != "allow" for stored in found):
            publish_overlap_rule(self._broker)
        self._load_tasks({stored.definition.path for stored in found} - self._loaded)
        for stored in found:
            if stored.source == "config" and self._examined.get(stored.name) != stored.definition:
                self._examined[stored.name] = stored.definition
                self._warn_of(stored)
        self._known_changes, self._loaded_at = changes, monotonic()

    def _warn_of(self, stored: StoredSchedule) -> None:
        """Warns of a schedule of a config that would be refused if a person added it."""
        refusal = refusal_of(self._client, stored.definition, self._now(), has_fired=bool(stored.fired))
        if refusal is not None:
            _log.warning("schedule.invalid name=%s: %s", shown_names([stored.name]), refusal)

    def _tell_followed(self, found: Mapping[str, StoredSchedule], restored: Collection[str]) -> None:
        """Logs one line if other schedulers or people have changed definitions since the last look."""
        before, self._followed = self._followed, {name: one.definition for name, one in found.items()}
        if before is None:
            return
        changes = {
            "added": [name for name in found if name not in before and name not in restored],
            "changed": [
                name for name, one in found.items() if before.get(name, one.definition) != one.definition
            ],
            "removed": [name for name in before if name not in found],
        }
        names = [name for group in changes.values() for name in group]
        if not names:
            return
        gone = changes["removed"][:1]  # the others went with it
        read = [read_schedule(item) for name in gone if (item := self._broker.state.get(SCHEDULES, name))]
        now = [*(found[name] for name in names if name in found), *(read or [None] * len(gone))]
        told = " ".join(f"{what}={shown_names(group)}" for what, group in changes.items() if group)
        _log.info("schedules.followed %s by=%s", told, schedule_sync.who_changed(self._broker, now))

    def _load_tasks(self, paths: Iterable[str]) -> None:
        """Imports the tasks of schedules before they fire. Jobs of a missing task have default options."""
        for path in paths:
            self._loaded.add(path)
            if self._client.options_of(path) is None:
                _log.warning("schedule.task_missing path=%s: its jobs get the default options", path)

    # --- fires ------------------------------------------------------------------------------

    def _fire(self, names: Sequence[str], now: int) -> None:
        plans, read_at = self._plans(names, now)
        if monotonic() - read_at > STALE_SECONDS:  # it was stopped, or imported the code of tasks
            now = to_ms(self._now())
            plans, read_at = self._plans(names, now)
        plans = [plan for plan in plans if self._choose(plan, now)]
        failpoints.reach("scheduler.chosen")
        if monotonic() - read_at > STALE_SECONDS:  # another scheduler may have taken fires over
            plans = [plan for plan in plans if self._keep(plan)]
        self._enqueue(plans)
        failpoints.reach("scheduler.enqueued")
        for plan in plans:
            self._count(plan)

    def _plans(self, names: Sequence[str], now: int) -> tuple[list[_Plan], float]:
        """What the schedules make now, and the monotonic time before they were read."""
        read_at = monotonic()
        plans: list[_Plan] = []
        number = 0
        for name in names:
            if number >= CHUNK:  # a backlog: the others fire in the next tick
                self._due.set(name, now)
                continue
            self._due.forget(name)
            try:
                plan = self._plan(name, now)
            except BrokerError:
                raise
            except Exception as error:  # of a definition that this version, or this machine's zones, refuse
                _log.exception("schedule.broken name=%s error=%s", name, shown_error(error))
                self._due.set(name, now + _RETRY_MS)
                continue
            if plan is not None:
                plans.append(plan)
                number += len(plan.jobs)
        return plans, read_at

    def _plan(self, name: str, now: int) -> _Plan | None:
        """What the schedule makes now. None: it is not due, because another scheduler was first, or a person
        has changed it."""
        item = self._broker.state.get(SCHEDULES, name)
        stored = None if item is None else read_schedule(item)
        if item is None or stored is None:
            return None
        definition = stored.definition
        if stored.pending and stored.removed_at is None:
            if now < self._due.taken_from(stored):
                self._due.note(stored)
                return None
            fires, missed, dropped = stored.pending, 0, 0
            chosen = replace(stored, pending_at=now)
        else:
            if not stored.fires or stored.next_fire is None:
                return None
            due = due_fires(definition, trigger_of(definition, stored.anchor), stored.next_fire, now)
            if due is None:
                self._due.note(stored)
                return None
            limit = definition.pause_after
            if limit and recent_failures(self._client, stored) >= limit:
                why = f"{limit} failures in a row"
                schedules.pause_schedules(self._broker, [name], why=why)
                _log.warning("schedule.paused name=%s reason=%s", name, why)
                return None
            fires, missed, dropped = due.fires, due.missed, due.dropped
            chosen = replace(
                stored,
                next_fire=due.next,
                last_fire=due.last,
                missed=stored.missed + missed,
                dropped=stored.dropped + dropped,
                pending=fires,
                pending_at=now if fires else 0,
            )
        plan = _Plan(stored=chosen, version=item.version, missed=missed, dropped=dropped)
        for at in fires:
            try:
                plan.jobs.append(job_of_fire(self._client, definition, fire_id(name, at)))
            except BrokerError:
                raise
            except (KeyboardInterrupt, SystemExit):  # of a signal: those of a plugin are a ConfigError
                raise
            except BaseException as error:  # of the task's options, or of a plugin
                plan.refused += 1
                plan.error = shown_error(error)
                if not issubclass(type(error), MrqError):
                    log_error(_log, "schedule.refused name=%s", name, error=error)
        return plan

    def _choose(self, plan: _Plan, now: int) -> bool:
        """Stores the choice. False: there is no job to make, another scheduler was first, or a person has
        changed the schedule."""
        if not self._write(plan, now):
            return False
        for what, number in (("missed", plan.missed), ("dropped", plan.dropped)):
            if number:
                _log.warning("schedule.%s name=%s fires=%d", what, plan.stored.name, number)
        return bool(plan.stored.pending)

    def _keep(self, plan: _Plan) -> bool:
        """Prolongs the time after which other schedulers take the fires over. False: one of them has."""
        now = to_ms(self._now())
        plan.stored = replace(plan.stored, pending_at=now)
        return self._write(plan, now)

    def _write(self, plan: _Plan, now: int) -> bool:
        name = plan.stored.name
        written = self._broker.state.compare_and_set(
            SCHEDULES, name, stored_value(plan.stored), version=plan.version
        )
        if written is None:
            self._due.set(name, now)  # read again at once
            return False
        plan.version = written.version
        self._due.chose(plan.stored)
        self._due.note(plan.stored)
        return True

    def _enqueue(self, plans: Sequence[_Plan]) -> None:
        """Enqueues all jobs, in calls of at most CHUNK. Then cancels the jobs that they replace."""
        pairs = [(plan, job) for plan in plans for job in plan.jobs]
        for index in range(0, len(pairs), CHUNK):
            part = pairs[index : index + CHUNK]
            answers = self._client.enqueue([job for _, job in part])
            for (plan, job), answer in zip(part, answers, strict=True):
                if answer.id == job.record.id:
                    plan.made.append(answer.id)
        for plan in plans:
            if plan.stored.definition.overlap == "cancel_other" and plan.made:
                cancel_others(self._client, plan.stored.definition, plan.made[-1])

    def _count(self, plan: _Plan) -> None:
        """Stores what the chosen fires have made. If another scheduler has done so, its counts stand."""
        stored, pending = plan.stored, (plan.stored.pending, plan.stored.pending_at)
        of_id = {fire_id(stored.name, at): at for at in stored.pending}
        fires = tuple(Fire(at=of_id[job_id], job=job_id) for job_id in plan.made)
        overlapped = len(plan.jobs) - len(fires)
        for _ in range(_TRIES):
            after = replace(
                stored,
                pending=(),
                pending_at=0,
                recent=(*stored.recent, *fires)[-RECENT_MOST:],
                fired=stored.fired + len(fires),
                overlapped=stored.overlapped + overlapped,
                dropped=stored.dropped + plan.refused,
                error=plan.error,
            )
            if self._broker.state.compare_and_set(
                SCHEDULES, stored.name, stored_value(after), version=plan.version
            ):
                self._due.note(after)
                self._tell(plan, fires, overlapped)
                return
            # A person may have paused or changed the schedule meanwhile.
            item = self._broker.state.get(SCHEDULES, stored.name)
            found = None if item is None else read_schedule(item)
            if item is None or found is None or (found.pending, found.pending_at) != pending:
                self._due.set(stored.name, pending[1])  # read again at once
                return
            stored, plan.version = found, item.version

    def _tell(self, plan: _Plan, fires: Sequence[Fire], overlapped: int) -> None:
        name = plan.stored.name
        for fire in fires:
            _log.info("schedule.fired name=%s job=%s", name, fire.job)
        if overlapped:
            _log.warning("schedule.overlapped name=%s fires=%d", name, overlapped)
        if plan.refused:
            _log.error("schedule.refused name=%s fires=%d error=%s", name, plan.refused, plan.error)

    def _report(self) -> None:
        """Tells people that a scheduler runs."""
        elapsed = monotonic() - self._reported_at
        if elapsed >= _REPORT_SECONDS:
            self._broker.state.put(schedules.SCHEDULERS, self.name, {}, ttl=_REPORT_TTL)
            self._reported_at = monotonic()
