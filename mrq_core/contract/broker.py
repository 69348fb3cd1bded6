"""The contract that drivers implement: Broker, with its SharedState and its RawQueues.

These docstrings are the specification. The conformance suite in `mrq_core.testing` is the same
specification in executable form.

Rules for every method:

- A method takes a list and returns a list of the same length and order. A call has at most `CHUNK` items.
- Each operation is atomic for each job: record, indexes, totals and queue change together or
  not at all. A call of many items is one transaction only where its docstring says so.
- The cost does not grow with the length of a queue or the size of the store, except where noted.
- Repeating a call whose reply was lost is harmless: enqueue returns the same ids, settle
  returns its first answer, and a lost claim costs one lease and no job.
- Times are timezone-aware UTC with millisecond resolution and come from the server's clock, or from the
  host's clock for embedded drivers. Durations are float seconds.
- Errors: `BrokerUnavailable` where repeating may help (unreachable, locked, full, read-only),
  `BrokerCorrupt` where repeating does not help, `NotSupported` for a part that the driver does not offer.
  A driver wraps its own exceptions in these.
- All threads of an unpatched process, or all greenlets of one gevent hub, may share a broker. Another
  native thread of a patched process opens its own broker. A broker keeps working in a forked
  child. Work that would stall the hub runs through the `run_blocking` of the `Opening`.
- Expired records are invisible at once, even before prune deletes them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime

from mrq_core.contract import rules
from mrq_core.contract.codec import JsonValue
from mrq_core.contract.messages import (
    Action,
    AddedKeys,
    Applied,
    Cancel,
    ChangeResult,
    Claimed,
    ClaimRef,
    ClaimRequest,
    Counted,
    Edit,
    Enqueued,
    Finding,
    JobFilter,
    LogLine,
    LogPage,
    Move,
    NewJob,
    Note,
    Order,
    Page,
    PollResult,
    QueueCounts,
    QueuePosition,
    RawClaim,
    RawItem,
    RepairResult,
    Requeue,
    Rules,
    Settlement,
    StateItem,
    Totals,
    Versions,
    Wanted,
)
from mrq_core.contract.metrics import Metric, Resolution
from mrq_core.contract.record import JobRecord


class RawParameters(ABC):
    """The parameters of a raw queue, which holds parameters instead of jobs. A job exists from the claim on.

    The suffix of the queue's root name gives the kind: a list (``_raw``), a set (``_set``:
    each parameter once), a set ordered by score (``_sorted_set``), or a set ordered by the Unix time from
    which a parameter is due (``_timed_set``).
    """

    @abstractmethod
    def push(self, items: Sequence[RawItem]) -> list[bool]:
        """Adds parameters. False: the set already holds the parameter; its score is updated.

        Atomic for each item. Repeating a push to a list adds the items again.
        """

    @abstractmethod
    def claim(self, limit: int, lease: float, worker: str, pushback: float | None = None) -> list[RawClaim]:
        """Claims up to `limit` due parameters: from the head of a list, in any fair order from a set, by
        score from a sorted set, and only parameters whose time has come from a timed set.

        Without `pushback`, the parameter moves to the leased set of the queue together with the id of its
        future job. Parameters with expired leases are claimed first and keep their job id, so a crash
        between claim and admit neither loses a parameter nor doubles a job. With `pushback` (timed
        sets), the parameter stays in the set and is due again that many seconds later.
        """

    @abstractmethod
    def renew(self, claims: Sequence[RawClaim], lease: float) -> list[bool]:
        """Extends the leases of parameters without a record. False: the parameter was claimed again,
        admitted, settled or removed."""

    @abstractmethod
    def settle(self, claims: Sequence[RawClaim], due_again: Sequence[float | None]) -> list[bool]:
        """Ends claims without a record. None drops the parameter; a number makes it due again that
        many seconds later. Guarded by the token; a repeated call returns its first answer."""

    @abstractmethod
    def peek(self, limit: int, offset: int = 0) -> list[RawItem]:
        """The waiting parameters in claim order, without claimed parameters. Costs offset + limit."""

    @abstractmethod
    def remove(self, params: Sequence[str]) -> list[bool]:
        """Removes waiting parameters. False: the parameter was not found. A list loses the first equal
        item."""

    @abstractmethod
    def size(self) -> int:
        """The number of waiting parameters, without claimed parameters. O(1), or O(log n) for due
        parameters."""

    @abstractmethod
    def histogram(self, start: float, stop: float, buckets: int) -> list[int]:
        """The number of scores in each of `buckets` equal intervals between start and stop. O(buckets log
        n)."""


class RawQueue(RawParameters):
    """A raw queue of a broker, which turns its parameters into jobs."""

    @abstractmethod
    def admit(self, claims: Sequence[tuple[RawClaim, JobRecord]], lease: float) -> list[bool]:
        """Turns claimed parameters into jobs: inserts the started record with its claimed entry and
        drops the parameter's lease, in one atomic step for each parameter.

        The record takes its id, token and claim number from the claim, and its times and lease from the
        moment of the call; the other fields stay as given. True also if this claim was admitted before.
        False: another worker has claimed the parameter since.
        """


class SharedState(ABC):
    """Small named values that every process sees: workers, schedules, pauses, limit rules.

    Each name belongs to a namespace. Values are JSON values of at most a few kilobytes. A write to one of
    `rules.NAMESPACES` also raises the version of the rules that `poll` compares, together with the value or
    after it.
    """

    @abstractmethod
    def get(self, namespace: str, name: str) -> StateItem | None:
        """The value. None: the name has no value, or the value has expired."""

    @abstractmethod
    def put(self, namespace: str, name: str, value: JsonValue, ttl: float | None = None) -> StateItem:
        """Writes the value unconditionally. `ttl`: seconds until the value expires."""

    @abstractmethod
    def compare_and_set(
        self, namespace: str, name: str, value: JsonValue, *, version: int, ttl: float | None = None
    ) -> StateItem | None:
        """Writes the value if the name still has this version (0: the name has no value). None: not
        written."""

    @abstractmethod
    def add(self, namespace: str, name: str, amount: int, ttl: float | None = None) -> int:
        """Adds to a counter, which starts at 0, and returns the new count. `ttl` counts from the first
        addition; later additions do not extend it."""

    @abstractmethod
    def delete(self, namespace: str, names: Sequence[str]) -> list[bool]:
        """Deletes values. False: the name had no value."""

    @abstractmethod
    def list(self, namespace: str) -> list[StateItem]:
        """All values of the namespace, by name. Grows with their number."""


class StoreServices(ABC):
    """Queries, logs, metrics and notifications, shared by Broker and JobStore."""

    @property
    @abstractmethod
    def state(self) -> SharedState:
        """The values that all processes share."""

    # --- queries -----------------------------------------------------------------------------

    @abstractmethod
    def now(self) -> datetime:
        """The time of the broker's clock, by which jobs are due and leases end."""

    @abstractmethod
    def find(
        self,
        wanted: JobFilter,
        *,
        order: Order = Order.NEWEST_FIRST,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page:
        """A page of matching jobs, ordered by id.

        Paging by cursor shows each job that matches throughout exactly once, even while other jobs
        change. A filter that no index serves scans for at most 250 ms; the page says how far the scan got.
        Statuses, paths, queues, schedules, and the terms of `mrq_core.contract.terms` have an index, which
        holds what is true of the job now.
        """

    @abstractmethod
    def count(self, wanted: JobFilter, group_by: str | None = None, *, cursor: str | None = None) -> Counted:
        """The number of matching jobs for each value of `group_by` (status, path, queue, worker,
        exception_type, error_group), or under the key ``""`` without `group_by`. Jobs without a value are
        left out.

        Totals answer for statuses combined with one of queues, trees, paths, exception types and error
        groups, grouped by one of the two, at once and completely. Other jobs are counted one by one, in the
        order of ids, from the index with the fewest entries, for at most 250 ms; `cursor` of the answer
        continues the count. Over all calls, a job that matches throughout is counted once. Reads no
        consistent state. Raises InvalidValue for another `group_by`, and for a malformed cursor.
        """

    @abstractmethod
    def totals(self) -> Totals:
        """The numbers of jobs by queue, path, error group and status, which change together with the jobs.
        The cost grows with the number of queues, paths and groups. Expired jobs count until they are
        pruned."""

    @abstractmethod
    def queue_names(self, prefix: str = "", after: str = "", limit: int = 1000) -> list[str]:
        """The names of queues that hold jobs or parameters, in alphabetical order, after the name `after`.

        A name whose jobs and parameters are all gone is forgotten by one of the next calls of `prune`, a
        bounded number of names each. A name stays while a job of any status has it, expired jobs included.
        No crash and no job that is enqueued meanwhile makes `prune` forget a queue that holds jobs. A pause
        outlives the name.
        """

    # --- workers -----------------------------------------------------------------------------

    @abstractmethod
    def poll(self, worker: str, versions: Versions) -> PollResult:
        """The changes for a worker since these versions: pauses and limit rules, jobs of the worker to
        interrupt, and requests to the worker. O(1) without changes. Each process polls once a second.

        A pause that ends by itself is a change at its end.
        """

    def pause(self, queues: Sequence[str], until: datetime | None = None) -> None:
        """Pauses queues and trees (names that end with ``/``): workers claim nothing from them until
        `until`, by the broker's clock, or until `resume`. Running jobs go on.

        Replaces earlier pauses of these names, unless `until` is not in the future. Atomic for each name.
        """
        self._pause(rules.PAUSED_QUEUES, queues, until)

    def resume(self, queues: Sequence[str]) -> None:
        """Resumes paused queues and trees. A queue that is not paused is left unchanged."""
        self.state.delete(rules.PAUSED_QUEUES, queues)

    def paused(self) -> frozenset[str]:
        """The paused queues and trees."""
        return frozenset(item.name for item in self.state.list(rules.PAUSED_QUEUES))

    def pause_tasks(self, paths: Sequence[str], until: datetime | None = None) -> None:
        """Pauses tasks: a claim parks their jobs and claims none of them. Otherwise as `pause`."""
        self._pause(rules.PAUSED_TASKS, paths, until)

    def resume_tasks(self, paths: Sequence[str]) -> None:
        """Resumes paused tasks. Later claims let their parked jobs go, a bounded number each."""
        self.state.delete(rules.PAUSED_TASKS, paths)

    def rules(self) -> Rules:
        """All pauses, with their times, and all limit rules. Grows with their number."""
        return rules.read(self.state.list)

    def _pause(self, namespace: str, names: Sequence[str], until: datetime | None) -> None:
        now = self.now()
        if until is None or until > now:
            ttl = None if until is None else (until - now).total_seconds()
            for name in dict.fromkeys(names):
                self.state.put(namespace, name, rules.pause_value(now, until), ttl=ttl)

    # --- logs and metrics --------------------------------------------------------------------

    @abstractmethod
    def append_logs(self, lines: Sequence[LogLine], max_size: int) -> None:
        """Stores log lines of jobs. Idempotent by (job, attempt, seq).

        A job's log keeps about its first `max_size` bytes. A notice replaces the first line that no longer
        fits, and later lines are dropped. Lines of unknown jobs are dropped.
        """

    @abstractmethod
    def read_logs(self, job_id: str, cursor: str | None = None, limit: int = 1000) -> LogPage:
        """The lines after the cursor, in order of attempt and seq. Raises JobNotFound."""

    @abstractmethod
    def record_metrics(self, metrics: Sequence[Metric]) -> None:
        """Adds metrics to the roll-ups of their minute and of their hour.

        Atomic for each roll-up of a metric: no addition of another process is lost. Not idempotent: a
        repeated call counts twice. The metrics may be lost with a crash of the server. The cost grows with
        the number of metrics and their buckets. Raises InvalidValue, before anything is stored, for a metric
        that `mrq_core.contract.metrics.check_metrics` refuses.
        """

    @abstractmethod
    def read_metrics(
        self,
        names: Sequence[str],
        since: datetime,
        until: datetime,
        resolution: Resolution = Resolution.MINUTE,
    ) -> list[Metric]:
        """The roll-ups of these names that begin at `since` or later and before `until`: a metric for each
        set of tags and each minute or hour, by name, and oldest first within a name. Empty where `since` is
        not before `until`. The cost grows with the number of roll-ups in the answer."""

    # --- maintenance -------------------------------------------------------------------------

    @abstractmethod
    def check(self) -> list[Finding]:
        """Reports problems of the server, its settings and its schema, and how to fix them."""

    @abstractmethod
    def prepare(self) -> None:
        """Creates missing schema, indexes and scripts, and upgrades data of earlier versions.

        Idempotent, safe in several processes at once and beside running workers of the version before.
        Raises SchemaTooNew where the data may no longer be used by this version; see
        `mrq_core.drivers.versions`."""

    def repair_totals(self) -> int:
        """Corrects the totals that differ from the stored jobs, and returns their number. Safe beside running
        workers. The cost grows with the number of jobs.

        A broker that changes a job and its totals in one operation has nothing to repair, as here.
        """
        return 0

    @abstractmethod
    def close(self) -> None:
        """Closes all connections. Calls in progress fail; using the broker afterwards is an error."""


class Broker(StoreServices):
    """Queue, store and shared state in one object, which client, worker and operations use."""

    name: str
    """The arrangement as people name it: ``sqlite``, ``redis``, ``redis+mongo``."""
    location: str = ""
    """Where its data are, for people, without secrets."""
    is_shared: bool = True
    """Whether other processes reach the same jobs. If not, all jobs run in the worker's own process."""
    supports_denied_tasks: bool = True
    """Whether a claim leaves out denied tasks. A pair does not: its queue knows no tasks."""

    # --- a job's life ------------------------------------------------------------------------

    @abstractmethod
    def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        """Stores new jobs and adds them to their queues.

        After the call, the jobs survive the death of any worker, and the death of the server as far as the
        driver promises. Idempotent by id: an existing job stays unchanged, with `created` False. A unique
        key is reserved with the job's id before the record is written. While another job holds the key,
        nothing is stored and the answer has the holder's id. The same holds within one call: the first of
        two jobs with the same key is created. One enqueue wakes as many waiting workers as it has jobs.

        A key until `record` is stored together with the record, and released in the same operation that
        deletes the record. The key of an expired record is free at once. The holder stays unchanged, whatever
        the params of the later job. One more lookup for each job with such a key.
        """

    @abstractmethod
    def claim(self, request: ClaimRequest) -> Claimed:
        """Claims due jobs for a worker, in a bounded number of round trips.

        Queues are served in the order of `wanted`, each up to its quota. Within a queue: larger
        priority first, then earlier due time, then smaller id; `reverse` inverts the order of due time and
        id. The server resolves a tree, at most 32 subqueues a call, and rotates so that every subqueue
        is served. Jobs that are not due are never claimed and never scanned.

        Pushback: the entry stays in the queue and its due time moves to now + lease. The record
        becomes started under a new token, whose claim number is one larger than the last. Two
        claims of a job are never valid at the same time.

        An entry with an expired lease is a suspect. `lifecycle.after_lost_claim` says which suspects end, as
        failed with ClaimLost or as cancelled; `ended` lists them. The others are claimed again beside waiting
        jobs, in the order of `wanted` and, in a queue, of their leases: first up to `lost_limit` suspects,
        then waiting jobs for the rest of `limit`. A call examines a bounded number of suspects. They do not
        count for the quotas. After `lost_limit` suspects, further suspects do not count for `next_due`.

        Limits: a job over the concurrency of one of its limit keys is parked under that key. A parked job
        stays queued without a due time until a settle, a cancel or the end of a lease makes room; then
        the job that has waited longest (priority first) is due at once. A job over a rate is pushed
        back once, to the time that the rate allows (GCRA; see `mrq_core.drivers.limits`). A call
        parks and pushes back a bounded number of jobs. No call scans past blocked jobs, and a blocked job
        uses no attempt.
        """

    @abstractmethod
    def renew(self, claims: Sequence[ClaimRef], lease: float) -> list[bool]:
        """Extends claims to now + lease. False: the claim is over, because its job was settled, claimed again
        or removed. An expired lease is renewed as long as no other worker has claimed the job."""

    @abstractmethod
    def annotate(self, notes: Sequence[Note]) -> list[bool]:
        """Writes the progress of running attempts, guarded by their tokens. False: the token is not the
        latest."""

    @abstractmethod
    def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """Writes the outcomes of attempts as `lifecycle.settled` says: record, queue, totals and follow-ups.

        Accepted while the token is the latest, even after the lease has expired. False: the job was
        claimed again since, and nothing was written. A repeated call with the same token returns
        its first answer as long as the record remembers the attempt.

        Follow-ups are stored with the parent, then enqueued as `enqueue` does, then marked as done; `prune`
        completes them after a crash in between. Their ids (`lifecycle.followup_id`) make a repetition
        harmless and embed the time of the outcome; their delay counts from
        the settle, and a follow-up whose unique key another job holds is dropped. A cancel request that
        turns the outcome into `cancel` drops all follow-ups.
        """

    @abstractmethod
    def requeue(self, ids: Sequence[str], how: Requeue) -> list[ChangeResult]:
        """Queues jobs again, as `lifecycle.requeued` says. REFUSED: the job is queued or started. HELD:
        another job holds the unique key. A requeued job keeps a key that it holds until `record`."""

    @abstractmethod
    def cancel(self, ids: Sequence[str], how: Cancel) -> list[ChangeResult]:
        """Cancels waiting and unsuccessfully ended jobs (DONE). A started job is marked (REQUESTED): it
        becomes `cancel` if it would otherwise run again, and with `interrupt` its worker
        interrupts it. REFUSED: the job has succeeded or is already cancelled."""

    @abstractmethod
    def move(self, ids: Sequence[str], how: Move) -> list[ChangeResult]:
        """Moves waiting jobs to another queue; due time and priority stay. REFUSED: the job does not wait."""

    @abstractmethod
    def edit(self, edits: Sequence[Edit]) -> list[ChangeResult]:
        """Changes params, priority and due time of waiting jobs, as `lifecycle.edited` says: record, index
        of search keys and entry in one operation for each job; on a pair the store first, then the entry.
        REFUSED: the job does not wait, or was claimed or edited since it was read.

        Without a new due time, a parked job stays parked under its key, ordered by its new priority, and a
        job that a rate pushed back keeps its time. A new due time puts the job into its queue; its limits
        are checked, and its rates charged, when it is claimed. Unique key and limit keys stay, also where
        they were made from the params. A repeated edit is REFUSED.
        """

    @abstractmethod
    def remove(self, ids: Sequence[str]) -> list[ChangeResult]:
        """Deletes jobs with their logs and unique keys. REFUSED: the job is started."""

    @abstractmethod
    def add_search_keys(self, added: Sequence[AddedKeys]) -> list[ChangeResult]:
        """Adds search keys to jobs of any status, for jobs that are older than the option of their task. A
        name that a job has keeps its value. Status, due time, claim and `updated_at` stay. REFUSED: the job
        has all names, or would have more keys than `terms.MOST_KEYS`."""

    @abstractmethod
    def prune(self, limit: int = 1000) -> int:
        """Deletes up to `limit` expired jobs with their logs and unique keys, expired shared state, and some
        roll-ups of metrics whose time is over (`Resolution.kept`), and forgets names of queues (see
        `queue_names`), in a bounded step; returns the number of jobs. Never deletes a waiting or running
        job. A key that is held for a period outlives its job."""

    @abstractmethod
    def apply(
        self, wanted: JobFilter, action: Action, *, limit: int = 1000, cursor: str | None = None
    ) -> Applied:
        """Performs one bounded step of a bulk action, at once, in the caller.

        Applies the action to up to `limit` matching jobs after the cursor, oldest first. A job that starts
        or stops matching meanwhile is changed at most once.
        """

    # --- queries -----------------------------------------------------------------------------

    @abstractmethod
    def get(self, ids: Sequence[str]) -> list[JobRecord | None]:
        """The records. None: the job is unknown or has expired."""

    @abstractmethod
    def counts(self, queues: Sequence[str]) -> list[QueueCounts]:
        """The numbers of jobs in queues; zeros for an unknown queue. A bounded number of round trips for all
        queues together. A few look-ups for each queue, and up to 10,000 index entries where some of its
        waiting jobs are due and others are not."""

    @abstractmethod
    def queue_position(self, job_id: str) -> QueuePosition | None:
        """The position of a waiting job in its queue, and what holds it back. None: the job is unknown, does
        not wait, or has lost its entry.

        Reads a consistent state, except on a pair and on MongoDB. Costs up to MOST_AHEAD index entries, and
        a look at up to 10,000 slots of limits for each limit key.
        """

    def parent_of(self, followup: str) -> str | None:
        """The job that holds this follow-up, which is stored with an outcome of the job and is not enqueued
        yet. None: no job holds it.

        A broker that enqueues follow-ups in the operation that stores the outcome has none, as here. Other
        brokers have some for an instant, and after a crash until `prune` enqueues them.
        """
        return None

    # --- workers -----------------------------------------------------------------------------

    @abstractmethod
    def wait(self, wanted: Sequence[Wanted], timeout: float) -> bool:
        """Blocks until one of the queues or trees may have a due job, at most `timeout` seconds.
        Excluded queues do not count.

        True is a hint; the claim decides. A lost hint costs at most the timeout.
        """

    # --- raw queues --------------------------------------------------------------------------

    @abstractmethod
    def raw(self, name: str) -> RawQueue:
        """The raw queue with this name. Does no I/O."""

    # --- maintenance -------------------------------------------------------------------------

    def repair(self, limit: int = 1000, cursor: str | None = None) -> RepairResult:
        """Puts unfinished jobs back into their queues where a crash between two servers, or the loss of a
        server's data, removed their entries. Examines up to `limit` unfinished jobs, oldest first, from
        behind the cursor. Safe at any time, beside running workers.

        A broker that changes each job in one operation has nothing to repair, as here.
        """
        return RepairResult(examined=0)
