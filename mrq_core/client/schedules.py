"""The jobs of schedules, and the handle of a schedule."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from mrq_core.client.ambient import current_client
from mrq_core.client.attempt import whole_call
from mrq_core.client.client import Client, checked_client
from mrq_core.clock import from_ms, to_ms
from mrq_core.contract.messages import CHUNK, Cancel, Enqueued, NewJob, Unique
from mrq_core.contract.naming import check_time
from mrq_core.contract.queries import Finding, JobFilter, Order
from mrq_core.contract.record import UNFINISHED, Status
from mrq_core.contract.rules import OVERLAP_RULE
from mrq_core.errors import InvalidValue, shown
from mrq_core.ids import new_id
from mrq_core.operations import schedules
from mrq_core.operations.checking.checks import uses_scheduler
from mrq_core.operations.limits import publish_overlap_rule
from mrq_core.operations.schedules import StoredSchedule
from mrq_core.scheduler.definitions import Definition, check_name, definition_from
from mrq_core.scheduler.policies import fire_id
from mrq_core.tasks.describing import TaskDescription, describe
from mrq_core.tasks.scheduled import schedules_of

BACKFILL_MOST = 10_000
"""The most fires of one backfill."""


# --- jobs -----------------------------------------------------------------------------------


def job_of_fire(client: Client, definition: Definition, job_id: str, *, exclusive: bool = True) -> NewJob:
    """The job of a fire, with the keys of the overlap policy:

    | policy | unique key | limit key |
    |---|---|---|
    | `skip` | until the job has ended | no |
    | `buffer_one` | until the job is claimed | one runs at a time |
    | `cancel_other` | no | one runs at a time |

    Without `exclusive` there is no unique key, and all policies but `allow` have the limit key. Raises
    InvalidValue for a job that cannot be queued.
    """
    policy = definition.overlap
    until = {"skip": "done", "buffer_one": "queued"}.get(policy) if exclusive else None
    is_limited = policy != "allow" and (policy != "skip" or not exclusive)
    return client.scheduled_job(
        definition.path,
        definition.params,
        job_id=job_id,
        schedule=definition.name,
        queue=definition.queue,
        priority=definition.priority,
        limit_keys=(f"{OVERLAP_RULE}:{definition.name}",) if is_limited else (),
        unique=Unique(key=f"schedule:{definition.name}", until=until) if until is not None else None,
    )


def cancel_others(client: Client, definition: Definition, job_id: str) -> int:
    """Cancels the unfinished jobs of the schedule that are older than this job, and interrupts running jobs.
    Returns their number."""
    cursor, number = None, 0
    wanted = JobFilter(schedules=(definition.name,), statuses=UNFINISHED)
    while True:
        page = client.broker.find(wanted, order=Order.OLDEST_FIRST, cursor=cursor, limit=CHUNK)
        older = [record.id for record in page.records if record.id < job_id]
        if older:
            with whole_call():
                client.broker.cancel(older, Cancel(interrupt=True, ttl=client.config.default_job_cancel_ttl))
        number += len(older)
        cursor = page.cursor
        if cursor is None or len(older) < len(page.records):
            return number


def run_schedule(client: Client, name: str, *, job_id: str | None = None) -> Enqueued:
    """Queues a job of the schedule now, also if it is paused. Its next fire stays. Where the overlap policy
    forbids the job, `created` is False, with the id of the other job. A call without an answer can be
    repeated with the same `job_id`. Raises InvalidValue."""
    definition = schedules.find_schedule(client.broker, name).definition
    if definition.overlap != "allow":
        publish_overlap_rule(client.broker)
    job_id = job_id or new_id()
    (answer,) = client.enqueue([job_of_fire(client, definition, job_id)])
    if definition.overlap == "cancel_other":
        cancel_others(client, definition, job_id)
    return answer


def fires_between(stored: StoredSchedule, start: datetime, end: datetime, now: datetime) -> list[int]:
    """The fires from `start` and before `end`, for a backfill. Raises InvalidValue for more than
    BACKFILL_MOST, and for times that are not past or before 1970."""
    start, end = check_time(start, "from"), check_time(end, "to")
    first, last = to_ms(start), to_ms(end)
    if first < 0:
        raise InvalidValue(
            f"a backfill from {start.isoformat()}: expected a beginning from 1970 on", path="from"
        )
    if first >= last or last > to_ms(now):
        raise InvalidValue(
            f"a backfill from {start.isoformat()} to {end.isoformat()}: expected a beginning before the end, "
            "and an end that is past",
            path="to",
        )
    trigger = schedules.trigger_in(stored)
    number = trigger.number(first - 1, last - 1)
    if number > BACKFILL_MOST:
        raise InvalidValue(
            f"a backfill of {number:,} fires: expected at most {BACKFILL_MOST:,}; use several shorter spans",
            path="to",
        )
    return trigger.latest(first - 1, last - 1, BACKFILL_MOST)


def backfill_schedule(
    client: Client,
    name: str,
    start: datetime,
    end: datetime,
    *,
    on_step: Callable[[list[Enqueued]], None] = lambda answers: None,
) -> list[Enqueued]:
    """Queues a job for each fire from `start` and before `end`, oldest first, also if the schedule is paused.

    A fire whose job is stored makes no second job. Where the overlap policy is not `allow`, the jobs run one
    at a time. Calls `on_step` with the answers so far, after each 1,000 fires. Raises InvalidValue.
    """
    stored = schedules.find_schedule(client.broker, name)
    fires = fires_between(stored, start, end, client.broker.now())
    if stored.definition.overlap != "allow":
        publish_overlap_rule(client.broker)
    answers: list[Enqueued] = []
    for index in range(0, len(fires), CHUNK):
        part = fires[index : index + CHUNK]
        jobs = [
            job_of_fire(client, stored.definition, fire_id(stored.name, at), exclusive=False) for at in part
        ]
        answers += client.enqueue(jobs)
        on_step(answers)
    return answers


# --- the handle -----------------------------------------------------------------------------


class Schedule:
    """A handle of a schedule. Making a handle does no I/O; it finds its client like the handle of a job.

    Each method raises InvalidValue if there is no such schedule."""

    def __init__(self, name: str, *, client: Client | None = None) -> None:
        self.name = check_name(name)
        self._own_client = checked_client(client)

    @property
    def _client(self) -> Client:
        return self._own_client or current_client()

    def __repr__(self) -> str:
        return f"Schedule({self.name!r})"

    @property
    def stored(self) -> StoredSchedule:
        """The schedule now: its definition, its next and last fires, the jobs they made, and its counts."""
        return schedules.find_schedule(self._client.broker, self.name)

    def next_fires(self, number: int = 1) -> list[datetime]:
        """The next fires, 1 to 1,000, without jitter. Empty if the schedule fires no more."""
        return [from_ms(at) for at in schedules.upcoming(self.stored, number)]

    def pause(self) -> None:
        """Pauses the schedule until `resume`. Its jobs go on."""
        schedules.pause_schedules(self._client.broker, [self.name])

    def resume(self) -> None:
        """Resumes the schedule. Fires of the pause are left out."""
        schedules.resume_schedules(self._client.broker, [self.name])

    def run(self) -> str:
        """Queues a job now. Returns its id, or that of the job that the overlap policy keeps instead."""
        return run_schedule(self._client, self.name).id

    def backfill(self, start: datetime, end: datetime) -> list[str]:
        """Queues a job for each fire from `start` and before `end`, at most 10,000. Returns their ids."""
        return [answer.id for answer in backfill_schedule(self._client, self.name, start, end)]

    def delete(self) -> None:
        """Deletes the schedule. Its jobs stay. A schedule of a config stays deleted until `resume`."""
        schedules.delete_schedules(self._client.broker, [self.name])


def add_schedule(*, replaces: bool = False, client: Client | None = None, **keys: Any) -> Schedule:
    """Adds a schedule with the keys of an entry of SCHEDULER_TASKS, such as `path`, `name` and `cron`. Raises
    ScheduleExists for a name that is taken, unless `replaces`, and InvalidValue for other wrong keys, for an
    `end` that is past, and for params that do not fit the task, if its code is found here or a worker has
    published it."""
    own = checked_client(client) or current_client()
    definition = definition_from(keys)
    described = described_here(own, definition.path)
    schedules.add_schedule(own.broker, definition, replaces=replaces, described=described)
    return Schedule(definition.name, client=client)


def described_here(client: Client, path: str) -> TaskDescription | None:
    """The description of a task whose code can be imported here. None: it cannot."""
    loaded = client.options_of(path)
    return None if loaded is None else describe(loaded)


def refusal_of(
    client: Client, definition: Definition, now: datetime, *, has_fired: bool
) -> InvalidValue | None:
    """Why a schedule of a config would be refused if a person added it, and it had the same past. None: it
    would not be. Imports the task."""
    try:
        schedules.check_job_params(client.broker, definition, described_here(client, definition.path))
        if not has_fired:
            schedules.check_end(definition, to_ms(now))
    except InvalidValue as error:
        return error
    return None


def refused_schedules(client: Client) -> list[Finding]:
    """A warning for each schedule of the configuration that `refusal_of` names. Imports the tasks."""
    if not uses_scheduler(client.config):
        return []
    fired = {stored.name for stored in schedules.list_schedules(client.broker) if stored.fired}
    now, findings = client.broker.now(), []
    for definition in schedules_of(client.config):
        refusal = refusal_of(client, definition, now, has_fired=definition.name in fired)
        if refusal is not None:
            message = f"the schedule {shown(definition.name)}: {refusal}"
            advice = "Correct the definition in the config file, or the options of the task."
            findings.append(
                Finding(level="warning", subject="SCHEDULER_TASKS", message=message, advice=advice)
            )
    return findings


def recent_failures(client: Client, stored: StoredSchedule) -> int:
    """The number of failures in a row among the latest ended jobs of the schedule."""
    fires = [fire for fire in stored.recent if fire.at >= stored.failures_from]
    number = 0
    records = client.broker.get([fire.job for fire in fires]) if fires else []
    for record in reversed(records):
        if record is not None and record.is_ended:
            if record.status not in _FAILURES:
                break
            number += 1
    return number


_FAILURES = frozenset({Status.FAILED, Status.TIMEOUT, Status.MAXRETRIES, Status.ABORT})
