"""The arguments and answers of a broker: frozen values without behaviour.

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
    """Whether the attempt counts in retry_count."""
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
    HELD = "held"
    """Another job holds its unique key."""
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


# --- queries ----------------------------------------------------------------------------------


class JobFilter(Struct, frozen=True, kw_only=True):
    """Selects jobs that satisfy every given part. An empty filter selects all jobs.

    A queue name that ends with ``/`` selects its tree, as in `Wanted`. `params` compares top-level values for
    equality, by JSON type. `since` (inclusive) and `until` (exclusive) compare `queued_at`.

    An exception is that of the latest attempt: the full or the short name of its type is one of
    `exception_types`, and the message has all `error_words` (`terms.words_of`) among its first words. Each of
    the `search_keys` must have the given value, by JSON type. An index serves these parts.
    """

    ids: tuple[str, ...] = ()
    statuses: tuple[Status, ...] = ()
    paths: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    workers: tuple[str, ...] = ()
    exception_types: tuple[str, ...] = ()
    error_words: tuple[str, ...] = ()
    error_groups: tuple[str, ...] = ()
    search_keys: JsonObject = {}
    schedules: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    params: JsonObject = {}

    @property
    def is_empty(self) -> bool:
        """Whether this filter selects all jobs."""
        return self == JobFilter()


class Order(StrEnum):
    """The order of jobs by id, which is the order of creation."""

    NEWEST_FIRST = "newest"
    OLDEST_FIRST = "oldest"


class Page(Struct, frozen=True, kw_only=True):
    """A page of matching jobs.

    `cursor` continues after them; None: there are no more jobs. `searched_until`: the id at which a scan
    without an index ran out of time.
    """

    records: tuple[JobRecord, ...]
    cursor: str | None
    searched_until: str | None = None


class Counted(Struct, frozen=True, kw_only=True):
    """The numbers of matching jobs that one call of `count` found.

    `numbers`: by the values of `group_by`, or under ``""``. `cursor` continues after the counted jobs: the
    numbers of all calls add up. None: the count is complete.
    """

    numbers: dict[str, int]
    cursor: str | None = None

    @property
    def number(self) -> int:
        """The number of jobs in all groups."""
        return sum(self.numbers.values())

    @property
    def is_complete(self) -> bool:
        """Whether all matching jobs are counted. If not, there are at least `number`."""
        return self.cursor is None


class QueueCounts(Struct, frozen=True, kw_only=True):
    """The numbers of jobs in a queue.

    `waiting`: jobs that are not claimed, due or not. `due`: jobs that could be claimed now, counted
    up to 10,000. `claimed`: jobs held by workers. `oldest_due`: the due time of the oldest due job.
    """

    queue: str
    waiting: int = 0
    due: int = 0
    claimed: int = 0
    oldest_due: datetime | None = None


class KeyUse(Struct, frozen=True, kw_only=True):
    """The use of a limit key.

    `running` and `parked` are numbers of jobs, `parked` up to MOST_AHEAD. `holders` run, in the order of
    their ids; `waiters` are parked, in the order in which they are let go; up to MOST_NAMED ids each. Where
    more than 10,000 jobs with limits run, some holders may be left out. `even_at`: the time of the next claim
    under the rate of the key if all claims were evenly spaced (see `mrq_core.drivers.limits`); None: no claim
    has used a rate lately.
    """

    key: str
    running: int
    holders: tuple[str, ...]
    parked: int
    waiters: tuple[str, ...]
    even_at: datetime | None = None


class QueuePosition(Struct, frozen=True, kw_only=True):
    """The position of a waiting job in its queue.

    `ahead`: the number of jobs that are claimed before it, without those that become due later. They have a
    larger priority, or the same priority and an earlier due time or a smaller id. Of a parked job, the number
    of jobs that are let go before it. `is_exact` is False if there may be more than `ahead`, which is then
    at least MOST_AHEAD.

    `due_at`: the due time of the entry; None: parked under the limit key `parked_under` since `parked_since`.
    `allowed_at`: the time until which a rate has pushed the job back. `keys`: the use of its limit keys, and
    of the key under which it is parked.
    """

    ahead: int
    is_exact: bool = True
    due_at: datetime | None
    parked_under: str | None = None
    parked_since: datetime | None = None
    allowed_at: datetime | None = None
    keys: tuple[KeyUse, ...] = ()


class Totals(Struct, frozen=True, kw_only=True):
    """The numbers of jobs by queue, path, error group and status, updated with every change.

    `by_error_group` has the jobs whose latest attempt raised, without groups that have no jobs."""

    by_queue: Mapping[str, Mapping[Status, int]]
    by_path: Mapping[str, Mapping[Status, int]]
    by_error_group: Mapping[str, Mapping[Status, int]] = {}

    def by_status(self) -> dict[Status, int]:
        """The totals by status, summed over all queues. Statuses without jobs are left out."""
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
    """Log lines in order of attempt and seq. `cursor` continues after them, also after an empty page."""

    lines: tuple[LogLine, ...]
    cursor: str


class RepairResult(Struct, frozen=True, kw_only=True):
    """What one step of `Broker.repair` did: the number of unfinished jobs that it examined, and the ids of
    those that it put back into their queues. `cursor` continues the repair; None: it is complete."""

    examined: int
    repaired: tuple[str, ...] = ()
    cursor: str | None = None


class Finding(Struct, frozen=True, kw_only=True):
    """A result of a check. `level` is ``ok``, ``warning`` or ``error``; `advice` says what to do."""

    level: str
    subject: str
    message: str
    advice: str = ""


# --- shared state -----------------------------------------------------------------------------


class StateItem(Struct, frozen=True, kw_only=True):
    """A named value that every process sees. `version` grows with each write of the name."""

    namespace: str
    name: str
    value: JsonValue
    version: int
    expires_at: datetime | None = None


class Pause(Struct, frozen=True, kw_only=True):
    """A pause of a queue, a tree or a task. `since` is None if an earlier version of mrq stored the pause.
    `until`: the time at which it ends by itself; None: it lasts until it is resumed."""

    since: datetime | None = None
    until: datetime | None = None


class Rules(Struct, frozen=True, kw_only=True):
    """What all workers obey: pauses by the name of the queue or tree, pauses by the path of the task, and
    limit rules by name."""

    queues: Mapping[str, Pause] = {}
    tasks: Mapping[str, Pause] = {}
    limits: Mapping[str, Limit] = {}

    @property
    def paused_queues(self) -> frozenset[str]:
        """The names of the paused queues and trees."""
        return frozenset(self.queues)

    @property
    def paused_tasks(self) -> frozenset[str]:
        """The paths of the paused tasks."""
        return frozenset(self.tasks)


class WorkerRequest(Struct, frozen=True, kw_only=True):
    """A request to one worker, such as ``stack``. A worker does not begin to answer it after `expires_at`."""

    id: str
    kind: str
    args: JsonObject = {}
    expires_at: datetime


class Versions(Struct, frozen=True, kw_only=True):
    """The versions that a process knows already, so that poll returns only later changes.

    `rules_until_ms`: the broker's time, in Unix milliseconds, from which poll returns the rules again because
    a pause has ended."""

    rules: int = 0
    signals: int = 0
    rules_until_ms: int | None = None


class PollResult(Struct, frozen=True, kw_only=True):
    """The changes for a worker. `rules`: all rules, or None without a change. `interrupts`: ids of running
    jobs that the worker has to interrupt. `requests`: all requests to the worker that have not expired, in
    each answer, so that a lost answer loses no request; the worker knows requests by their ids."""

    versions: Versions
    rules: Rules | None = None
    interrupts: tuple[str, ...] = ()
    requests: tuple[WorkerRequest, ...] = ()

    @property
    def paused(self) -> frozenset[str] | None:
        """The paused queues and trees, or None without a change."""
        return None if self.rules is None else self.rules.paused_queues


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
