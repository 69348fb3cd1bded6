"""What is passed to a broker and what comes back: frozen values without behaviour.

Times are aware UTC datetimes with millisecond resolution. Durations are float seconds, sizes
are bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

from msgspec import Struct

from mrq_core.contract.codec import JsonObject, JsonValue
from mrq_core.contract.record import JobRecord, Status

CHUNK = 1000
"""The most items that a caller puts into one call. Drivers may rely on it."""
METRICS_KEPT = 30 * 86_400.0
"""Seconds after which figures of workers are deleted."""


# --- queueing and claiming ------------------------------------------------------------------


class Unique(Struct, frozen=True, kw_only=True):
    """How long a unique key is held by the job that reserved it.

    `until` is ``queued`` (until the job is first claimed), ``done`` (until it has ended) or
    ``period`` (for `period` seconds from the enqueue, whatever becomes of the job).
    """

    key: str
    until: str = "done"
    period: float | None = None


class NewJob(Struct, frozen=True, kw_only=True):
    """A record to be enqueued, with what is needed only at that moment.

    `delay` makes the job due that many seconds after the broker's now; without it the job is
    due at `record.due_at`, or at once where that is None.
    """

    record: JobRecord
    delay: float | None = None
    unique: Unique | None = None


class Enqueued(Struct, frozen=True, kw_only=True):
    """The job that is queued now: the given one, or the holder of its unique key.

    `created` is False where the id, or the unique key, was there before.
    """

    id: str
    created: bool


class Wanted(Struct, frozen=True, kw_only=True):
    """A queue to claim from, or, where the name ends with ``/``, all its subqueues.

    `quota` is the most jobs to take from it in this call; `reverse` takes the newest first
    within a priority; `exclude` names queues (or trees) to leave out: the paused ones.
    """

    name: str
    quota: int | None = None
    reverse: bool = False
    exclude: frozenset[str] = frozenset()


class Limit(Struct, frozen=True, kw_only=True):
    """What a limit key allows: so many running at once, and `rate` claims each `per` seconds.

    A limit key is the name of a rule, or ``rule:value`` for a count of its own per value, such as
    ``api:customer-7``. A rate lets `rate` claims through at once after a quiet time (its burst),
    and then one each ``per / rate`` seconds.
    """

    concurrency: int | None = None
    rate: float | None = None
    per: float = 1.0


class ClaimRequest(Struct, frozen=True, kw_only=True):
    """One request for work.

    `limit`: how many jobs the worker has room for. `lease`: seconds. `idle`: the worker holds
    no claim and nothing runs in it; only then may it be given a suspect, and then that alone.
    `max_lost_claims` and `failed_ttl` say what becomes of jobs that must not run again.
    `limits`: by the name of the rule; a key whose rule is not among them does not limit.
    """

    worker: str
    wanted: tuple[Wanted, ...]
    limit: int
    lease: float
    idle: bool = True
    max_lost_claims: int = 3
    failed_ttl: float = 15_552_000.0
    cancel_ttl: float = 86_400.0
    limits: Mapping[str, Limit] = {}


class Claimed(Struct, frozen=True, kw_only=True):
    """The answer to a ClaimRequest.

    `records` are the jobs now held by the worker, in the order to start them: status `started`,
    with `token` and `lease_until`. `next_due` is the earliest time at which one of the wanted
    queues may have more (None: nothing is waiting in them). `suspects_due`: jobs with a lost
    claim are due, and the worker was not idle. `ended`: jobs that this call ended because their
    lease ran out and they may not run again, or were cancelled. `now`: the broker's time.
    """

    records: tuple[JobRecord, ...] = ()
    next_due: datetime | None = None
    suspects_due: bool = False
    ended: tuple[JobRecord, ...] = ()
    now: datetime


class ClaimRef(Struct, frozen=True, kw_only=True):
    """Names one claim: the job and the token that proves it."""

    id: str
    token: str


class Outcome(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How one attempt ended, and what happens next.

    `delay` says what becomes of the entry: None removes it, a number makes it due again that
    many seconds later, by the server's clock. `ttl` is how many seconds an ended job is kept.
    `cancel_ttl` is the same for a job that a cancel request turns into a cancelled one.
    """

    status: Status
    delay: float | None = None
    is_retry: bool = False
    """Whether this counts in retry_count."""
    queue: str | None = None
    """The queue on which the job goes on; None leaves it where it is."""
    ttl: float | None = None
    cancel_ttl: float | None = None
    result: JsonValue = None
    exception_type: str | None = None
    traceback: str | None = None
    original_traceback: str | None = None
    total_time: float | None = None
    greenlet_time: float | None = None
    switches: int | None = None
    memory_diff: int | None = None
    followups: tuple[JobRecord, ...] = ()
    """Jobs to enqueue because of this outcome; their ids are derived from this job's id."""


class Settlement(Struct, frozen=True, kw_only=True):
    """How the attempt under this claim ended."""

    id: str
    token: str
    outcome: Outcome


class Note(Struct, frozen=True, kw_only=True):
    """Progress of a running attempt, from 0 to 1."""

    id: str
    token: str
    progress: float


# --- changes by people and rules --------------------------------------------------------------


class ChangeResult(StrEnum):
    """What became of a change that was asked of one job."""

    DONE = "done"
    REQUESTED = "requested"
    """The job is running: it was marked, and its worker or its settle acts on it."""
    REFUSED = "refused"
    """The job's status does not allow it."""
    HELD = "held"
    """Another job holds its unique key."""
    UNKNOWN = "unknown"


class Requeue(Struct, frozen=True, kw_only=True):
    """Queue the job again, on another queue if one is named. Keeps nothing of retry_count unless asked."""

    queue: str | None = None
    reset_retries: bool = True
    delay: float = 0.0


class Cancel(Struct, frozen=True, kw_only=True):
    """Cancel the job; if it is running, interrupt it only when asked. `ttl`: how long it is kept."""

    interrupt: bool = False
    ttl: float = 86_400.0


class Move(Struct, frozen=True, kw_only=True):
    """Move a waiting job to another queue."""

    queue: str


class Remove(Struct, frozen=True, kw_only=True):
    """Delete the job: record, entry, logs and keys. A running job is refused."""


Action = Requeue | Cancel | Move | Remove


class Applied(Struct, frozen=True, kw_only=True):
    """What one bounded step of a bulk action did. `cursor` goes on where it stopped; None: all done."""

    matched: int
    changes: Mapping[ChangeResult, int]
    cursor: str | None


# --- looking ----------------------------------------------------------------------------------


class JobFilter(Struct, frozen=True, kw_only=True):
    """Which jobs: every part that is given has to hold. An empty filter means all jobs.

    A queue that ends with ``/`` means its subqueues. `params` compares top-level values for
    equality, by JSON's types. `since` (inclusive) and `until` (exclusive) compare `queued_at`.
    """

    ids: tuple[str, ...] = ()
    statuses: tuple[Status, ...] = ()
    paths: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    workers: tuple[str, ...] = ()
    exception_types: tuple[str, ...] = ()
    schedules: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    params: JsonObject = {}

    @property
    def is_empty(self) -> bool:
        """Whether this filter means all jobs."""
        return self == JobFilter()


class Order(StrEnum):
    """By id, which is by the time of creation."""

    NEWEST_FIRST = "newest"
    OLDEST_FIRST = "oldest"


class Page(Struct, frozen=True, kw_only=True):
    """Some of the matching jobs.

    `cursor` goes on behind them; None: there are no more. `searched_until`: where a filter that
    no index serves used up its time, the id up to which it has looked.
    """

    records: tuple[JobRecord, ...]
    cursor: str | None
    searched_until: str | None = None


class QueueCounts(Struct, frozen=True, kw_only=True):
    """What a queue holds.

    `waiting`: everything not claimed, due or not. `due`: those that could be claimed now, counted
    up to 10,000. `claimed`: held by workers. `oldest_due`: since when the first of them is due.
    """

    queue: str
    waiting: int = 0
    due: int = 0
    claimed: int = 0
    oldest_due: datetime | None = None


class Totals(Struct, frozen=True, kw_only=True):
    """How many jobs there are, kept up to date with every change and never counted."""

    by_queue: Mapping[str, Mapping[Status, int]]
    by_path: Mapping[str, Mapping[Status, int]]

    def by_status(self) -> dict[Status, int]:
        """The same, summed over all queues. Statuses without jobs are left out."""
        sums: dict[Status, int] = {}
        for statuses in self.by_queue.values():
            for status, number in statuses.items():
                if number:
                    sums[status] = sums.get(status, 0) + number
        return sums


class LogLine(Struct, frozen=True, kw_only=True):
    """One line of a job's log. `attempt` is the claim number, `seq` counts within the attempt."""

    job_id: str
    attempt: int
    seq: int
    at: datetime
    level: str
    message: str


class LogPage(Struct, frozen=True, kw_only=True):
    """Lines in order of attempt and seq. `cursor` goes on behind them, also when there are none yet."""

    lines: tuple[LogLine, ...]
    cursor: str


class Metric(Struct, frozen=True, kw_only=True):
    """A figure that a worker recorded for one period, to be added to what others recorded."""

    name: str
    at: datetime
    value: float


class RepairResult(Struct, frozen=True, kw_only=True):
    """What one step of `Broker.repair` did: the number of unfinished jobs that it examined, and the ids of
    those that it put back into their queues. `cursor` continues the repair; None: it is complete."""

    examined: int
    repaired: tuple[str, ...] = ()
    cursor: str | None = None


class Finding(Struct, frozen=True, kw_only=True):
    """What a check found. `level` is ``ok``, ``warning`` or ``error``; `advice` says what to do."""

    level: str
    subject: str
    message: str
    advice: str = ""


# --- shared state -----------------------------------------------------------------------------


class StateItem(Struct, frozen=True, kw_only=True):
    """A named value that every process sees. `version` grows with every write of this name."""

    namespace: str
    name: str
    value: JsonValue
    version: int
    expires_at: datetime | None = None


class Versions(Struct, frozen=True, kw_only=True):
    """What a process knows already, so that poll can tell it only what is new."""

    pauses: int = 0
    signals: int = 0


class PollResult(Struct, frozen=True, kw_only=True):
    """What is new for a worker. `paused`: all paused queues, or None if nothing changed there.
    `interrupts`: ids of its running jobs that somebody asked to interrupt."""

    versions: Versions
    paused: frozenset[str] | None = None
    interrupts: tuple[str, ...] = ()


# --- raw queues -------------------------------------------------------------------------------


class RawClaim(Struct, frozen=True, kw_only=True):
    """A parameter taken from a raw queue, with the id that its job is to have.

    `token` has the form of a job's; its claim number counts the deliveries of this parameter.
    """

    param: str
    job_id: str
    token: str
    score: float | None = None
    redelivered: bool = False


class RawItem(Struct, frozen=True, kw_only=True):
    """A parameter as it waits in a raw queue."""

    param: str
    score: float | None = None
