"""The jobs and claims that are passed to a broker, and its answers: frozen values without behaviour.

Times are aware UTC datetimes with millisecond resolution. Durations are float seconds, sizes
are bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

from msgspec import Struct

from mrq_core.contract.codec import JsonObject, JsonValue
from mrq_core.contract.naming import is_task_in
from mrq_core.contract.record import JobRecord, Status

CHUNK = 1000
"""The largest number of items in one call. Drivers rely on callers to keep to it."""
MOST_AHEAD = 10_000
"""The number of jobs up to which a QueuePosition counts."""
MOST_NAMED = 20
"""The most ids in each list of a KeyUse."""


# --- queueing and claiming ------------------------------------------------------------------


class Unique(Struct, frozen=True, kw_only=True):
    """A unique key, and how long the job that reserves it holds it.

    `until` is ``queued`` (until the job is first claimed), ``done`` (until the job has ended), ``period``
    (for `period` seconds from the enqueue, independent of the job) or ``record`` (as long as the record
    exists: an idempotency key). Keys until ``record`` are separate from all others: a job may hold such a
    key while another job holds the same text until it is done.
    """

    key: str
    until: str = "done"
    period: float | None = None

    @property
    def is_of_record(self) -> bool:
        """Whether the record holds the key as long as it exists."""
        return self.until == "record"


class NewJob(Struct, frozen=True, kw_only=True):
    """A record to enqueue, with the values that only the enqueue needs.

    `delay` makes the job due that many seconds after the broker's now. Without a delay the job is
    due at `record.due_at`, or at once where `due_at` is None.
    """

    record: JobRecord
    delay: float | None = None
    unique: Unique | None = None


class Enqueued(Struct, frozen=True, kw_only=True):
    """The id of the queued job: the given job, or the holder of its unique key.

    `created` is False where the id existed or another job held the unique key.
    """

    id: str
    created: bool


class Wanted(Struct, frozen=True, kw_only=True):
    """A queue to claim from, or a tree: a name that ends with ``/``.

    A tree is all queues whose names begin with its name, the queue with this name included.

    `quota` limits the jobs claimed from it in one call; `reverse` claims the newest jobs first
    within a priority; `exclude` names queues and trees to skip, such as paused ones.
    """

    name: str
    quota: int | None = None
    reverse: bool = False
    exclude: frozenset[str] = frozenset()


class Limit(Struct, frozen=True, kw_only=True):
    """A limit rule: the number of jobs that run at once, and `rate` claims each `per` seconds.

    A limit key is the name of a rule, or ``rule:value`` to count each value separately, such as
    ``api:customer-7``. After a quiet time a rate allows a burst of `rate` claims,
    and then one claim each ``per / rate`` seconds. A changed rate lets jobs start from one new interval after
    the change, at the latest.
    """

    concurrency: int | None = None
    rate: float | None = None
    per: float = 1.0


class ClaimRequest(Struct, frozen=True, kw_only=True):
    """A worker's request for jobs.

    `limit`: the number of jobs that the worker has room for. `lost_limit`: the most suspects (jobs with an
    expired lease) among them. `lease`: seconds.
    `failed_ttl` and `cancel_ttl` are the parameters of `lifecycle.after_lost_claim`.
    `limits`: the limit rules by name; a limit key without a rule does not limit. `paused_tasks`: paths whose
    jobs are parked instead of claimed. `denied_tasks` and `allowed_tasks`: patterns of `naming.is_task_in`.
    The worker leaves jobs of denied tasks to other workers, and all others than those of allowed tasks where
    there are any. A call steps over at most max(100, 4 * `limit`) such jobs; jobs behind more than that wait
    until other workers have claimed some. Raises NotSupported where `Broker.supports_denied_tasks` is False.
    """

    worker: str
    wanted: tuple[Wanted, ...]
    limit: int
    lease: float
    lost_limit: int = 1
    failed_ttl: float = 15_552_000.0
    cancel_ttl: float = 86_400.0
    limits: Mapping[str, Limit] = {}
    paused_tasks: frozenset[str] = frozenset()
    denied_tasks: frozenset[str] = frozenset()
    allowed_tasks: frozenset[str] = frozenset()

    @property
    def chooses_tasks(self) -> bool:
        """Whether the worker leaves some tasks to other workers."""
        return bool(self.denied_tasks or self.allowed_tasks)

    def leaves(self, path: str) -> bool:
        """Whether the worker leaves jobs of this task to other workers."""
        if self.allowed_tasks and not is_task_in(path, self.allowed_tasks):
            return True
        return is_task_in(path, self.denied_tasks)


class Claimed(Struct, frozen=True, kw_only=True):
    """The answer to a ClaimRequest.

    `records` are the jobs that the worker now holds, in the order to start them: status `started`,
    with `token` and `lease_until`. `next_due` is the earliest time at which one of the wanted
    queues may have more jobs (None: no job waits in them). `ended`: jobs with a lost claim that this call
    failed or cancelled. `now`: the broker's time. `is_denied`: all due jobs that the call met are of tasks
    that the worker leaves to other workers, so that another claim at once finds nothing new.
    """

    records: tuple[JobRecord, ...] = ()
    next_due: datetime | None = None
    ended: tuple[JobRecord, ...] = ()
    now: datetime
    is_denied: bool = False


class ClaimRef(Struct, frozen=True, kw_only=True):
    """A claim: the job and the token that proves the claim."""

    id: str
    token: str


class Outcome(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How one attempt ended, and what happens next.

    A `delay` of None removes the entry; a number makes the entry due again that
    many seconds later, by the server's clock. An ended job is kept for `ttl` seconds, and for `cancel_ttl`
    seconds where a cancel request turns the outcome into `cancel`.
    """

    status: Status
    delay: float | None = None
    lost: bool = False
    """Whether the job's own process died. The status is `queued`, or `failed` if the job must not run
    again."""
    is_retry: bool = False
    """Whether the attempt counts in retry_count. A job that a cancel request ends is not retried."""
    queue: str | None = None
    """The queue for the next attempt. None: the same queue."""
    ttl: float | None = None
    cancel_ttl: float | None = None
    result: JsonValue = None
    exception_type: str | None = None
    exception_message: str | None = None
    error_group: str | None = None
    traceback: str | None = None
    original_traceback: str | None = None
    total_time: float | None = None
    greenlet_time: float | None = None
    switches: int | None = None
    memory_diff: int | None = None
    followups: tuple[NewJob, ...] = ()
    """Jobs to enqueue with this outcome. `lifecycle.followup_id` derives their ids from the attempt and the
    time of the outcome."""


class Settlement(Struct, frozen=True, kw_only=True):
    """The outcome of the attempt under a claim."""

    id: str
    token: str
    outcome: Outcome


class Note(Struct, frozen=True, kw_only=True):
    """The progress of a running attempt, from 0 to 1."""

    id: str
    token: str
    progress: float


# --- changes by operators and rules -----------------------------------------------------------


class ChangeResult(StrEnum):
    """The answer to a change of one job."""

    DONE = "done"
    REQUESTED = "requested"
    """The job is running: it was marked, and its worker or its settle completes the change."""
    REFUSED = "refused"
    """The job's status does not allow it, or the job has changed since the caller read it."""
    TOO_LARGE = "too_large"
    """A bulk change would leave a job that is too large to be claimed."""
    HELD = "held"
    """Another job holds its unique key."""
    UNCHANGED = "unchanged"
    """The job already is as the change asks: nothing was written."""
    UNKNOWN = "unknown"


class Requeue(Struct, frozen=True, kw_only=True):
    """Queue the job again, on `queue` if given. `reset_retries` sets retry_count to 0."""

    queue: str | None = None
    reset_retries: bool = True
    delay: float = 0.0


class Cancel(Struct, frozen=True, kw_only=True):
    """Cancel the job. `interrupt` also stops a running attempt. `ttl`: seconds to keep the cancelled job."""

    interrupt: bool = False
    ttl: float = 86_400.0


class Move(Struct, frozen=True, kw_only=True):
    """Move a waiting job to another queue."""

    queue: str


class Remove(Struct, frozen=True, kw_only=True):
    """Delete the job: record, entry, logs and unique key. A running job is refused."""


Action = Requeue | Cancel | Move | Remove


class AddedKeys(Struct, frozen=True, kw_only=True):
    """Search keys to add to a stored job."""

    id: str
    search_keys: JsonObject


class Edit(Struct, frozen=True, kw_only=True):
    """A change of a waiting job. None: the value stays.

    `claims` and `edits` are those of the record that the caller has read; the job must still have them.
    `params` replaces the params, and `search_keys` the search keys with them. The job becomes due `delay`
    seconds after the broker's now, or at `due_at` without a delay.
    """

    id: str
    claims: int
    edits: int
    params: JsonObject | None = None
    search_keys: JsonObject = {}
    priority: int | None = None
    delay: float | None = None
    due_at: datetime | None = None


class Applied(Struct, frozen=True, kw_only=True):
    """The result of one bounded step of a bulk action. `cursor` continues the action; None: complete."""

    matched: int
    changes: Mapping[ChangeResult, int]
    cursor: str | None


# --- raw queues -------------------------------------------------------------------------------


class RawClaim(Struct, frozen=True, kw_only=True):
    """A claimed parameter of a raw queue, with the id of its future job.

    `token` has the form of a job's token; its claim number counts the deliveries of the parameter.
    """

    param: str
    job_id: str
    token: str
    score: float | None = None
    redelivered: bool = False


class RawItem(Struct, frozen=True, kw_only=True):
    """A waiting parameter of a raw queue."""

    param: str
    score: float | None = None
