"""The contracts of the two halves of a composed broker: JobQueue and JobStore.

The store keeps the records, and the queue keeps due times and claims. Neither half knows the other;
`mrq_core.composed` combines them, and three rules make any order of crashes harmless:

- **An entry is a ticket for one version of a record.** The store numbers the versions. Only an entry of the
  stored version may start a waiting job. So an entry that a crash left behind starts nothing, and a missing
  entry can be pushed again at any time.
- **The store is written first.** Later calls of the queue can be repeated, because only a later version
  replaces an entry, and only a caller that knows the version removes it.
- **The queue owns the leases.** A claim is made in the queue, under a new token, before the store starts the
  job.

The rules for every method in `mrq_core.contract.broker` apply here too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Generic, Protocol, TypeVar

from msgspec import Struct

from mrq_core.contract.messages import (
    ClaimRef,
    ClaimRequest,
    Enqueued,
    NewJob,
    Note,
    RawClaim,
    Settlement,
    Unique,
    Wanted,
)
from mrq_core.contract.queries import Finding, QueueCounts, QueuePosition
from mrq_core.contract.raw import RawParameters
from mrq_core.contract.record import JobRecord
from mrq_core.contract.services import StoreServices


class Entry(Struct, frozen=True, kw_only=True):
    """A job in a queue: a ticket for one version of its record.

    `due_at`: the due time of a waiting entry, or the end of the lease of a claimed entry; None: parked, or as
    `JobQueue.push` says.
    `claims`: the number of claims in the record. `token`: the claim that holds the entry.
    `unique`: the unique key of the job, which a push reserves.
    """

    id: str
    queue: str
    version: int
    priority: int = 0
    due_at: datetime | None
    claims: int = 0
    token: str | None = None
    limit_keys: tuple[str, ...] = ()
    unique: Unique | None = None


class KeyRequest(Struct, frozen=True, kw_only=True):
    """A job's request for a unique key. A period without a length reserves nothing and only asks for the
    holder, as a requeued job does, whose period does not start again."""

    id: str
    unique: Unique


class KeyHolder(Struct, frozen=True, kw_only=True):
    """The job that holds a unique key. None: the key is free. `since`: the time of a reservation that may
    have lost its job; see `JobQueue.reserve`."""

    id: str | None
    since: datetime | None = None


class ClaimedEntries(Struct, frozen=True, kw_only=True):
    """The answer of a claim in the queue.

    `entries` are claimed now, in the order to start them. `suspects` are entries with expired leases, which
    the caller handles first; then nothing was claimed. The other fields are as in `Claimed`.
    """

    entries: tuple[Entry, ...] = ()
    suspects: tuple[Entry, ...] = ()
    next_due: datetime | None = None
    now: datetime


class Removal(Struct, frozen=True, kw_only=True):
    """The removal of an entry of this version or an earlier one, or of the entry that this claim holds.

    `key`: a unique key to release too, if the job holds it and has no other entry. The removal releases the
    key of the entry itself, except for a key that is held for a period.
    """

    id: str
    version: int | None = None
    token: str | None = None
    key: str | None = None


class Parking(Struct, frozen=True, kw_only=True):
    """The parking of a claimed entry under a limit key. Once it is let go, the entry is due at `due_at`."""

    claim: ClaimRef
    key: str
    due_at: datetime


class JobQueue(ABC):
    """Due times and claims of jobs. Keeps no history."""

    name: str
    """The driver's name."""
    location: str = ""
    """Where its data are, for people, without secrets."""

    @abstractmethod
    def now(self) -> datetime:
        """The time of the queue, which leases and due times use. Callers ask for it before they store
        anything, so it raises ConfigError where the queue holds data of another arrangement."""

    # --- unique keys -------------------------------------------------------------------------

    @abstractmethod
    def reserve(self, wanted: Sequence[KeyRequest]) -> list[KeyHolder]:
        """Reserves each free key for its job, in the order of the call; returns the holders.

        A crash may leave a key with a job that was never stored or no longer needs it. So the answer has the
        time of each reservation that is not confirmed; the caller reads the store if the time is
        long ago, and calls `free`. The queue gets no keys until `record`, because the store holds these. The
        push of the job's entry confirms the reservation of a period; its
        answer has no `since` until the job itself requests the key again, before a requeue or a removal.
        """

    @abstractmethod
    def free(self, held: Sequence[tuple[str, KeyHolder]]) -> None:
        """Releases keys that these jobs hold, and hold since the given time if one is given. Other keys stay
        unchanged."""

    # --- entries -----------------------------------------------------------------------------

    @abstractmethod
    def push(self, entries: Sequence[Entry], lease: float | None = None) -> list[bool]:
        """Pushes entries. True: the queue now holds the entry of this version.

        An existing entry of the same version (True) or a later version (False) stays unchanged. An entry of
        an earlier version is replaced, and its claim, slots and parking end. An entry without a due time
        keeps the due time, or the parking, of a waiting entry that it replaces; otherwise it is due now. A
        free key is reserved, and the reservation is confirmed. An entry with a token is claimed until now +
        `lease`; it does not replace an entry that a later claim holds (False). Wakes as many waiting workers
        as there are waiting entries.
        """

    @abstractmethod
    def claim(self, request: ClaimRequest, *, leave_suspects: bool = False) -> ClaimedEntries:
        """Claims due entries for a worker, in one operation; see `Broker.claim`.

        The token of each entry counts one claim more than the entry. The queue enforces limits: it parks an
        entry over its concurrency, and pushes back or parks an entry over its rate. The answer has a bounded
        number of suspects, in the order of `wanted` and, in a queue, of their leases, unless
        `leave_suspects`. A suspect whose limits leave no room is not due, nor is one if `lost_limit` is 0.
        """

    @abstractmethod
    def reclaim(self, suspects: Sequence[tuple[Entry, str]], request: ClaimRequest) -> list[bool]:
        """Claims entries with expired leases under these new tokens, for the worker and lease of the request.

        False: the entry has changed since it was read (renewed, claimed, replaced or removed), or its limits
        leave no room."""

    @abstractmethod
    def release(self, claims: Sequence[ClaimRef]) -> list[bool]:
        """Ends claims that started nothing: the entries wait again, due now, as if never claimed. False: the
        entry was claimed again, or does not exist."""

    @abstractmethod
    def park(self, parkings: Sequence[Parking]) -> list[bool]:
        """Ends claims that started nothing, and parks the entries. Slots become free; a charge to a rate
        stays. A repetition answers the same while the entry is parked. False: the entry was claimed again,
        or does not exist."""

    @abstractmethod
    def renew(self, claims: Sequence[ClaimRef], lease: float) -> list[bool | None]:
        """Moves the due time of claimed entries, and the end of their slots, to now + lease. False: the entry
        was claimed again, or waits. None: the entry does not exist."""

    @abstractmethod
    def put_off(self, claims: Sequence[ClaimRef], seconds: float) -> None:
        """Leaves entries with expired leases out of the suspects for these seconds. Their leases stay
        expired, so they hold no slots. An entry that was renewed, claimed or replaced stays unchanged."""

    @abstractmethod
    def remove(self, removals: Sequence[Removal]) -> list[bool]:
        """Removes entries, claimed or not, with their slots and keys. False: the entry does not exist, or is
        of a later version or another claim. Repeating a removal is harmless."""

    @abstractmethod
    def entries(self, ids: Sequence[str]) -> list[Entry | None]:
        """The entries. None: the entry does not exist."""

    def restore(self, ids: Sequence[str]) -> list[str]:
        """Gives entries that `entries` has, but that no claim finds, their places back, as a server may lose
        the one and keep the other. Returns the ids of those. Safe at any time; a repetition finds nothing.
        A queue that loses only whole entries does not need this."""
        return []

    # --- queries -----------------------------------------------------------------------------

    @abstractmethod
    def counts(self, queues: Sequence[str]) -> list[QueueCounts]:
        """See `Broker.counts`."""

    @abstractmethod
    def position(self, job_id: str) -> QueuePosition | None:
        """The position of a waiting entry; see `Broker.queue_position`. None: the entry is claimed or does
        not exist."""

    @abstractmethod
    def queue_names(self, prefix: str = "", after: str = "", limit: int = 1000) -> list[str]:
        """The names of queues that hold entries or parameters, in alphabetical order, after `after`. One of
        the next calls of `prune` forgets other names; see `Broker.queue_names`."""

    @abstractmethod
    def wait(self, wanted: Sequence[Wanted], timeout: float) -> bool:
        """See `Broker.wait`."""

    # --- raw queues --------------------------------------------------------------------------

    @abstractmethod
    def raw(self, name: str) -> RawParameters:
        """The parameters of the raw queue with this name. Does no I/O."""

    @abstractmethod
    def admit(self, name: str, claims: Sequence[tuple[RawClaim, Entry]], lease: float) -> list[bool]:
        """Replaces the leases of claimed parameters by the entries of their jobs, which are already stored,
        as claimed until now + lease; one atomic step for each parameter. True also if this claim was admitted
        before. False: another worker has claimed the parameter since."""

    @abstractmethod
    def is_leased(self, name: str, ids: Sequence[str]) -> list[bool]:
        """Whether a parameter of the raw queue is claimed for the job with this id and not yet admitted."""

    # --- maintenance -------------------------------------------------------------------------

    @abstractmethod
    def prune(self, limit: int) -> None:
        """Deletes up to `limit` each of expired unique keys, unused rates and settled claims of parameters,
        and examines up to `limit` names of queues, to forget those without entries and parameters."""

    @abstractmethod
    def check(self) -> list[Finding]:
        """See `Broker.check`."""

    @abstractmethod
    def prepare(self) -> None:
        """See `Broker.prepare`."""

    @abstractmethod
    def close(self) -> None:
        """See `Broker.close`."""


S_co = TypeVar("S_co", bound="ReadJob", covariant=True)


class ReadJob(Protocol):
    """A record as it was read, with the proof that a write needs."""

    @property
    def record(self) -> JobRecord: ...


class WriteResult(Enum):
    """The result of writing a replacement."""

    DONE = "done"
    CHANGED = "changed"
    """The job has changed since it was read."""
    HELD = "held"
    """Another job holds its unique key."""


@dataclass(frozen=True, slots=True)
class Replacement(Generic[S_co]):
    """A record to write in place of the record that was read. None: delete the job."""

    before: S_co
    after: JobRecord | None
    followups: tuple[NewJob, ...] = ()
    """Jobs to store together with the record."""
    reserve: bool = False
    """Whether the write needs to reserve the unique key of the job again."""
    ask_to_stop: bool = False
    """Whether to ask the worker of the job to interrupt it."""


class StoredJob(Protocol):
    """A job as the store returned it. A write checks that the job is unchanged since."""

    @property
    def record(self) -> JobRecord:
        """The record of the job. Its due time and lease are those of the last write; the entry has the
        current ones."""
        ...

    @property
    def version(self) -> int:
        """1 after the insert, and one more with each `write` and each `start`; greater after `succeed`, and
        unchanged by `annotate`."""
        ...

    @property
    def unique(self) -> Unique | None:
        """The unique key with which the job was enqueued."""
        ...


S = TypeVar("S", bound=StoredJob)


class JobStore(StoreServices):
    """The records of jobs, and the state that all processes share. Knows no order and no limits.

    Of unique keys the store holds those until `record`, because they begin and end with their record.

    Every change of a record is a compare-and-set; totals change with it.
    """

    name: str
    """The driver's name."""
    location: str = ""
    """Where its data are, for people, without secrets."""

    def recognize(self) -> None:
        """Raises ConfigError if the records there belong to a broker without a separate queue, and
        SchemaTooNew. Writes nothing, and asks the server until there are records. Does nothing where no other
        broker can have its data."""

    # --- records -----------------------------------------------------------------------------

    @abstractmethod
    def insert(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        """Stores new jobs as version 1, with their `due_at` unchanged. `created` is False where the id
        exists, also earlier in the same call, or where another record holds the key until `record`; the
        answer has the id of the holder. The existing record stays unchanged. An expired record makes room. A
        repetition by the driver itself after a lost reply returns the first answer."""

    @abstractmethod
    def read(self, ids: Sequence[str]) -> Sequence[StoredJob | None]:
        """The jobs, including expired jobs. None: the job is unknown."""

    @abstractmethod
    def write(self, replacements: Sequence[Replacement[StoredJob]], now: datetime) -> list[WriteResult]:
        """Writes each replacement if the job is unchanged since it was read, with its consequences: totals,
        the deletion of logs, the signal to its worker. Never HELD. `Replacement.followups` are stored with
        the job, not enqueued; see `unfinished`."""

    @abstractmethod
    def start(
        self, entries: Sequence[Entry], *, worker: str, lease: float, now: datetime
    ) -> list[JobRecord | None]:
        """Starts claimed jobs as `lifecycle.claimed` says, under the token of the entry. None: the job does
        not wait in the queue of the entry at the version of the entry. A call that fails may have started
        some jobs; their claims are lost with the end of the lease."""

    @abstractmethod
    def succeed(self, settlements: Sequence[Settlement], now: datetime) -> list[bool]:
        """Ends running attempts with success, as `lifecycle.settled` says, if the token is the latest and no
        cancel is requested. False: nothing was written, and the caller has to read the job. Accepts
        outcomes that `encoding.is_plain_success` allows, without follow-ups."""

    @abstractmethod
    def annotate(self, notes: Sequence[Note], now: datetime) -> list[bool]:
        """See `Broker.annotate`."""

    @abstractmethod
    def unfinished(self, limit: int, *, before: datetime | None = None) -> list[tuple[str, list[NewJob]]]:
        """Jobs with follow-ups that may not be enqueued yet, of changes made before that time.

        Each follow-up has its `due_at`, and its unique key if it has one."""

    @abstractmethod
    def finish(self, parent: str, followups: Sequence[str]) -> None:
        """Removes these enqueued follow-ups from the job, unless a later attempt has replaced them."""

    @abstractmethod
    def prune(self, limit: int) -> int:
        """Deletes up to `limit` expired jobs with their logs, expired shared state and old metrics, repairs
        totals and forgets the names of queues without records. Returns the number of jobs."""
