"""The contract that drivers implement: Broker, with its SharedState (`services`) and its RawQueues (`raw`).

The docstrings of the three modules are the specification. The conformance suite in `mrq_core.testing` is the
same specification in executable form.

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
  `CallRefused` of these if the server answers and may take other calls (full, read-only, a missing right),
  `BrokerLost` of these if only another process can use the broker, at which a worker exits,
  `BrokerCorrupt` where repeating does not help, `NotSupported` for a part that the driver does not offer.
  A driver wraps its own exceptions in these.
- All threads of an unpatched process, or all greenlets of one gevent hub, may share a broker. Another
  native thread of a patched process opens its own broker. A broker keeps working in a forked
  child. Work that would stall the hub runs through the `run_blocking` of the `Opening`.
- Expired records are invisible at once, even before prune deletes them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from mrq_core.contract.messages import (
    Action,
    AddedKeys,
    Applied,
    Cancel,
    ChangeResult,
    Claimed,
    ClaimRef,
    ClaimRequest,
    Edit,
    Enqueued,
    Move,
    NewJob,
    Note,
    Requeue,
    Settlement,
    Wanted,
)
from mrq_core.contract.queries import JobFilter, QueueCounts, QueuePosition, RepairResult
from mrq_core.contract.raw import RawQueue
from mrq_core.contract.record import JobRecord
from mrq_core.contract.services import StoreServices


class Broker(StoreServices):
    """Queue, store and shared state in one object, which client, worker and operations use."""

    name: str
    """The arrangement as people name it: ``sqlite``, ``redis``, ``redis+mongo``."""
    location: str = ""
    """Where its data are, for people, without secrets."""
    is_shared: bool = True
    """Whether other processes reach the same jobs. If not, all jobs run in the worker's own process."""
    supports_denied_tasks: bool = True
    """Whether a claim obeys `denied_tasks` and `allowed_tasks`. A pair does not: its queue knows no tasks."""
    has_separate_entries: bool = True
    """Whether entries are stored apart from records. If not, no job can lack its entry, and the numbers of
    `counts` may come from totals, which a crash leaves wrong for a while."""

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
        back once, to the time that the rate allows (GCRA; see `mrq_core.drivers.limits`), and is then charged
        to all its rates. A job that one of its rates lets start more than RATE_HORIZON_MS ahead is charged to
        none and parked under that key, until its start comes within the horizon or the rule changes. So is a
        job that comes later than the parked jobs of one of its rates. A call parks, pushes back and releases
        a bounded number of jobs, and `next_due` counts the time at which a rate lets the next parked job go.
        No call scans past blocked jobs, and a blocked job uses no attempt.

        A job that was pushed back to its time and comes late, behind others that come late, is pushed back
        again, after the times that are given: a rate lets its burst and one more start at once, and no more.

        One job at a time runs under each limit key of OVERLAP_RULE, also where the request has no such rule,
        or another one.

        Where the rule of a key has changed since the last claim, the times of its rate are cut to at most one
        new interval ahead. Jobs that are pushed back keep their times; parked jobs go on under the new rule.
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
        """Moves waiting jobs to another queue; due time and priority stay. REFUSED: the job does not wait.
        UNCHANGED: the job waits in that queue already."""

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
        has all names, would have more keys than `terms.MOST_KEYS`, or would be too large to be claimed."""

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
        or stops matching meanwhile is changed at most once. TOO_LARGE: the job would be too large to be
        claimed.
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

        A broker whose entries are the records has nothing to repair, as here.
        """
        return RepairResult(examined=0)
