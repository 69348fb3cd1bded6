"""The contract that drivers implement: Broker, with its SharedState and its RawQueues.

These docstrings are the specification; the conformance suite in `mrq_core.testing` is the same
in executable form.

What holds for every method:

- List in, list out; the answer lines up with the question. At most `CHUNK` items a call.
- Each operation is atomic for each job: record, indexes, totals and queue change together or
  not at all. A call of many items is not one transaction unless it says so.
- Nothing grows with the length of a queue or the size of the store, unless it says so.
- Repeating a call whose reply was lost does no harm: enqueue answers with the same ids, settle
  with its first answer, and a lost claim costs one lease and no job.
- Times are aware UTC with millisecond resolution and come from the server's clock, the host's
  for embedded drivers. Durations are float seconds.
- Errors: `BrokerUnavailable` where repeating may help (away, locked, full, read-only),
  `BrokerCorrupt` where it does not, `NotSupported` for a part that the driver does not have.
  A driver's own exceptions do not pass this boundary.
- A broker may be used by all threads of an unpatched process and by all greenlets of one gevent
  hub. Another native thread of a patched process opens its own. It goes on working in a forked
  child. Work that would stall the hub goes through the `run_blocking` of its `Opening`.
- Expired records are invisible at once, whenever prune gets to them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from mrq_core.contract.codec import JsonValue
from mrq_core.contract.messages import (
    Action,
    Applied,
    Cancel,
    ChangeResult,
    Claimed,
    ClaimRef,
    ClaimRequest,
    Enqueued,
    Finding,
    JobFilter,
    LogLine,
    LogPage,
    Metric,
    Move,
    NewJob,
    Note,
    Order,
    Page,
    PollResult,
    QueueCounts,
    RawClaim,
    RawItem,
    RepairResult,
    Requeue,
    Settlement,
    StateItem,
    Totals,
    Versions,
    Wanted,
)
from mrq_core.contract.record import JobRecord


class RawParameters(ABC):
    """The parameters of a raw queue: a queue that holds no jobs. A job exists from the moment of the claim.

    The kind follows from the suffix of the queue's root name: a list (``_raw``), a set (``_set``:
    each parameter once), a set ordered by score (``_sorted_set``), or by the Unix time from which
    a parameter is due (``_timed_set``).
    """

    @abstractmethod
    def push(self, items: Sequence[RawItem]) -> list[bool]:
        """Adds parameters; False for one that a set holds already (its score is updated).

        Atomic for each item. A list has no memory: repeating a push adds the items again.
        """

    @abstractmethod
    def claim(self, limit: int, lease: float, worker: str, pushback: float | None = None) -> list[RawClaim]:
        """Takes up to `limit` due parameters: a list from its head, a set in any fair order, the others
        by score; in a timed set only those whose time has come.

        Without `pushback` the parameter moves, with the id of the job to be, to the leased set of
        this queue, and expired leases are taken first: they keep their job id, so that a crash
        between claim and admit neither loses a parameter nor doubles a job. With `pushback` (timed
        sets) the parameter stays, due again that many seconds later.
        """

    @abstractmethod
    def renew(self, claims: Sequence[RawClaim], lease: float) -> list[bool]:
        """Prolongs leases of parameters that have no record. False: another claim has been made, or the
        parameter was admitted, settled or removed."""

    @abstractmethod
    def settle(self, claims: Sequence[RawClaim], due_again: Sequence[float | None]) -> list[bool]:
        """Ends claims that have no record: None drops the parameter, a number makes it due again that
        many seconds later. Guarded by the token; repeated, it gives its first answer."""

    @abstractmethod
    def peek(self, limit: int, offset: int = 0) -> list[RawItem]:
        """The parameters next in line, not claimed ones. Costs offset + limit."""

    @abstractmethod
    def remove(self, params: Sequence[str]) -> list[bool]:
        """Removes waiting parameters; False for one that is not there. Lists: the first equal one."""

    @abstractmethod
    def size(self) -> int:
        """How many parameters wait, claimed ones not included. O(1), or O(log n) for those due."""

    @abstractmethod
    def histogram(self, start: float, stop: float, buckets: int) -> list[int]:
        """How many scores lie in each of the equal parts between start and stop. O(buckets log n)."""


class RawQueue(RawParameters):
    """A raw queue of a broker, which makes jobs of its parameters."""

    @abstractmethod
    def admit(self, claims: Sequence[tuple[RawClaim, JobRecord]], lease: float) -> list[bool]:
        """Makes jobs of claimed parameters: inserts the record, started, with its claimed entry, and
        drops the parameter's lease, in one step each.

        The record's id, token and claim number become those of the claim, its times and its lease
        those of this moment; the rest is as given. True also where this claim was admitted before;
        False where another worker has claimed the parameter since.
        """


class SharedState(ABC):
    """Small named values that every process sees: workers, schedules, pauses, rate limits.

    A name lives in a namespace. Values are JSON values of at most a few kilobytes.
    """

    @abstractmethod
    def get(self, namespace: str, name: str) -> StateItem | None:
        """The value, or None where there is none or it has expired."""

    @abstractmethod
    def put(self, namespace: str, name: str, value: JsonValue, ttl: float | None = None) -> StateItem:
        """Writes the value, whatever was there. `ttl`: seconds until it vanishes."""

    @abstractmethod
    def compare_and_set(
        self, namespace: str, name: str, value: JsonValue, *, version: int, ttl: float | None = None
    ) -> StateItem | None:
        """Writes only if the name's version is still this one (0: there is no such value); else None."""

    @abstractmethod
    def add(self, namespace: str, name: str, amount: int, ttl: float | None = None) -> int:
        """Adds to a counter, which starts at 0, and answers with the new count. `ttl` counts from its
        start and is not prolonged."""

    @abstractmethod
    def delete(self, namespace: str, names: Sequence[str]) -> list[bool]:
        """Removes values; False for one that is not there."""

    @abstractmethod
    def list(self, namespace: str) -> list[StateItem]:
        """All values of the namespace, by name. Grows with their number."""


class StoreServices(ABC):
    """What a broker and the store of a pair have in common: they can be asked about jobs, keep logs and
    figures, and tell processes what is new."""

    @property
    @abstractmethod
    def state(self) -> SharedState:
        """The small values shared by all processes."""

    # --- looking -----------------------------------------------------------------------------

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

        Paging by cursor shows each job that matches all the while exactly once, whatever else
        changes. A filter that no index serves is looked for during at most 250 ms, and the page
        says how far it got.
        """

    @abstractmethod
    def count(self, wanted: JobFilter, group_by: str | None = None) -> dict[str, int]:
        """How many jobs match, by the values of `group_by` (status, path, queue, worker, exception_type),
        or under the key ``""`` without; jobs without a value are left out. It counts: for what is
        asked often there are totals."""

    @abstractmethod
    def totals(self) -> Totals:
        """Numbers of jobs by queue, path and status, changed together with the jobs. Grows with the
        number of queues and paths only. Expired jobs are in it until they are pruned."""

    @abstractmethod
    def queue_names(self, prefix: str = "", after: str = "", limit: int = 1000) -> list[str]:
        """Names of queues that have, or had, jobs: alphabetical, from behind `after`."""

    # --- workers -----------------------------------------------------------------------------

    @abstractmethod
    def poll(self, worker: str, versions: Versions) -> PollResult:
        """What is new for a worker since those versions: pauses, and its jobs to interrupt. O(1) when
        nothing is. Each process asks once a second."""

    @abstractmethod
    def pause(self, queues: Sequence[str]) -> None:
        """Marks queues, or trees (names that end with ``/``), as paused: workers leave them out."""

    @abstractmethod
    def resume(self, queues: Sequence[str]) -> None:
        """Takes the mark away. A queue that is not paused stays as it is."""

    @abstractmethod
    def paused(self) -> frozenset[str]:
        """The paused queues and trees."""

    # --- logs and metrics --------------------------------------------------------------------

    @abstractmethod
    def append_logs(self, lines: Sequence[LogLine], max_size: int) -> None:
        """Stores log lines of jobs. Idempotent by (job, attempt, seq).

        A job's log keeps about its first `max_size` bytes; the line that does not fit any more is
        replaced by one that says so, and later ones are dropped. Lines of a job that does not
        exist are dropped.
        """

    @abstractmethod
    def read_logs(self, job_id: str, cursor: str | None = None, limit: int = 1000) -> LogPage:
        """Lines from behind the cursor, in order of attempt and seq. Raises JobNotFound."""

    @abstractmethod
    def record_metrics(self, metrics: Sequence[Metric]) -> None:
        """Adds figures to their roll-up of the minute. Atomic for each; not idempotent."""

    @abstractmethod
    def read_metrics(self, names: Sequence[str], since: float, until: float) -> list[Metric]:
        """The roll-ups between two Unix times, oldest first. Grows with the span."""

    # --- care --------------------------------------------------------------------------------

    @abstractmethod
    def check(self) -> list[Finding]:
        """Reports problems of the server, its settings and its schema, and how to fix them."""

    @abstractmethod
    def prepare(self) -> None:
        """Creates schema, indexes and scripts where they are missing. Idempotent, safe to run at once
        in several processes. Raises SchemaTooNew where a newer version was here."""

    @abstractmethod
    def close(self) -> None:
        """Lets connections go. A call that is under way fails; using the broker afterwards is an error."""


class Broker(StoreServices):
    """Queue, store and state that belong together: what everything else talks to."""

    name: str
    """The arrangement, as a person would name it: ``sqlite``, ``redis``, ``redis+mongo``."""

    # --- a job's way -------------------------------------------------------------------------

    @abstractmethod
    def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        """Stores new jobs and gives them their place in their queue.

        When it returns, the jobs survive the death of any worker, and of the server as the driver's
        promises say. Idempotent by id: an id that exists is left as it is, `created` False. A unique
        key is reserved with the job's id before the record is written; while another job holds it,
        nothing is stored and the holder's id is the answer. Also within one call: of two jobs with
        the same key the first is created. One enqueue wakes as many waiting workers as it has jobs.
        """

    @abstractmethod
    def claim(self, request: ClaimRequest) -> Claimed:
        """Takes due jobs for a worker, in one bounded number of round trips.

        Queues are taken in the order of `wanted`, each up to its quota. Within a queue: larger
        priority first, then earlier due time, then smaller id; `reverse` turns due time and id
        around. A tree is resolved by the server, at most 32 subqueues a call, rotating so that
        each gets its turn. Jobs that are not due are never taken and never scanned.

        Pushback: the entry stays in the queue with its due time moved to now + lease; the record
        becomes started under a new token, whose claim number is one more than the last. No two
        claims of a job are valid at the same time.

        An entry whose lease ran out is a suspect. Suspects go before waiting jobs, by the end of their
        lease, but only if the request is `idle`, and then one alone; a worker that is not idle is
        told `suspects_due`. Where the record says that it must not run again (at_most_once, or lost
        `max_lost_claims` times while alone) it is failed with ClaimLost, and where a cancel was
        requested it is cancelled; both are listed in `ended`, a bounded number a call.

        Limits: a job over the concurrency of one of its limit keys is parked under that key: it stays
        queued, without a due time, until a settle, a cancel or the end of a lease makes room, when
        the one that has waited longest (priority first) is due at once. A job over a rate is pushed
        back once, to its turn (GCRA: ITU-T I.371; B. Leach, Rate Limiting, Cells, and GCRA, 2015). A call
        parks and pushes back a bounded number. Nothing scans past blocked jobs, and no attempt is used.
        """

    @abstractmethod
    def renew(self, claims: Sequence[ClaimRef], lease: float) -> list[bool]:
        """Prolongs claims to now + lease. False: the claim is over; its job was settled, claimed again,
        or removed. A lease that has run out is renewed while nobody else has claimed the job."""

    @abstractmethod
    def annotate(self, notes: Sequence[Note]) -> list[bool]:
        """Writes the progress of running attempts, guarded by their tokens. False: not the latest token."""

    @abstractmethod
    def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """Writes how attempts ended, as `lifecycle.settled` says: record, queue, totals and follow-ups.

        Accepted while the token is the latest, even after the lease has run out. False: another
        claim has been made since, and nothing was written. Repeated with the same token it gives
        its first answer, whatever happened in between, as long as the record remembers the attempt.
        Follow-ups are stored with the parent before they are enqueued, and marked done after; a
        crash in between is repaired by RequeueLostJobs. Their ids make a repetition harmless. They are
        left out where a cancel request turned the outcome into `cancel`.
        """

    @abstractmethod
    def requeue(self, ids: Sequence[str], how: Requeue) -> list[ChangeResult]:
        """Queues jobs again that are neither queued nor started (REFUSED). A unique key that another job
        holds by now refuses it (HELD). Follows `lifecycle.requeued`."""

    @abstractmethod
    def cancel(self, ids: Sequence[str], how: Cancel) -> list[ChangeResult]:
        """Cancels waiting and unsuccessfully ended jobs (DONE). A started job is marked (REQUESTED): it
        becomes cancel if its attempt would otherwise run again, and with `interrupt` its worker
        is told to stop it. REFUSED for success and for what is cancelled already."""

    @abstractmethod
    def move(self, ids: Sequence[str], how: Move) -> list[ChangeResult]:
        """Moves waiting jobs to another queue; due time and priority stay. REFUSED for all others."""

    @abstractmethod
    def remove(self, ids: Sequence[str]) -> list[ChangeResult]:
        """Deletes jobs with their logs and keys. REFUSED while started."""

    @abstractmethod
    def prune(self, limit: int = 1000) -> int:
        """Deletes up to `limit` expired jobs with their logs, expired state, and figures older than
        METRICS_KEPT; answers with the number of jobs. Never touches a job that is to run or running."""

    @abstractmethod
    def apply(
        self, wanted: JobFilter, action: Action, *, limit: int = 1000, cursor: str | None = None
    ) -> Applied:
        """Does one bounded step of a bulk action, at once, in the caller.

        Looks at up to `limit` matching jobs, oldest first, from the cursor. Jobs that come to
        match, or cease to, while it goes on are each acted on at most once.
        """

    # --- looking -----------------------------------------------------------------------------

    @abstractmethod
    def get(self, ids: Sequence[str]) -> list[JobRecord | None]:
        """The records; None for unknown and expired ones."""

    @abstractmethod
    def counts(self, queues: Sequence[str]) -> list[QueueCounts]:
        """What queues hold; zeros for an unknown one."""

    # --- workers -----------------------------------------------------------------------------

    @abstractmethod
    def wait(self, wanted: Sequence[Wanted], timeout: float) -> bool:
        """Blocks until one of the queues or trees may have something due, at most `timeout` seconds.
        What `claim` would leave out, because it is excluded, does not count.

        True is a hint, not a promise: the claim decides. A lost hint costs at most the timeout.
        """

    # --- raw queues --------------------------------------------------------------------------

    @abstractmethod
    def raw(self, name: str) -> RawQueue:
        """The raw queue of that name. Does no I/O."""

    # --- care --------------------------------------------------------------------------------

    def repair(self, limit: int = 1000, cursor: str | None = None) -> RepairResult:
        """Puts unfinished jobs back into their queues where a crash between two servers, or the loss of a
        server's data, removed their entries. Examines up to `limit` unfinished jobs, oldest first, from
        behind the cursor. Safe at any time, beside running workers.

        A broker whose changes are one operation each has nothing to repair, as here.
        """
        return RepairResult(examined=0)
