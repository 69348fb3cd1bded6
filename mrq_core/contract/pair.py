"""The contracts of the two halves of a composed broker: JobQueue and JobStore.

The store says what a job is, the queue says when it is due and who holds it. Neither knows the other;
`mrq_core.composed` puts them together, and these rules make any order of crashes harmless:

- **An entry is a ticket for one version of a record.** The store numbers the versions; a waiting job may be
  started only by an entry of the very version that is stored. So an entry that a crash has left behind starts
  nothing, and one that is missing can be put back at any time.
- **The store is written first.** What the queue is told afterwards can be told again: an entry is replaced
  only by one of a later version, and removed only by who knows of that version.
- **Leases are the queue's.** A claim is made there, under a new token, before the store is told.

Everything that `mrq_core.contract.broker` says of all methods of a broker holds here, too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Generic, Protocol, TypeVar

from msgspec import Struct

from mrq_core.contract.broker import RawParameters, StoreServices
from mrq_core.contract.messages import (
    ClaimRef,
    ClaimRequest,
    Finding,
    NewJob,
    Note,
    QueueCounts,
    RawClaim,
    Settlement,
    Unique,
    Wanted,
)
from mrq_core.contract.record import JobRecord


class Entry(Struct, frozen=True, kw_only=True):
    """A job's place in a queue: a ticket for one version of its record.

    `due_at`: from when it may be claimed; of a claimed entry the end of its lease; None: it is parked.
    `claims`: how many claims of the job its record counts. `token`: the claim that holds the entry.
    `unique`: the key that the job holds; an entry brings its key along when it is pushed.
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
    """A unique key that a job wants. A period without its length takes nothing: it only asks who holds the
    key, as a requeued job does, whose period is not begun again."""

    id: str
    unique: Unique


class KeyHolder(Struct, frozen=True, kw_only=True):
    """Who holds a unique key; None: nobody. `since`: when it was reserved, where that tells whether the
    holder may be gone: see `JobQueue.reserve`."""

    id: str | None
    since: datetime | None = None


class ClaimedEntries(Struct, frozen=True, kw_only=True):
    """What a claim in the queue gave.

    `entries` are claimed now, in the order to start them. `suspects` are entries whose lease ran out, to be
    seen to first; then nothing was claimed. The rest is as in `Claimed`.
    """

    entries: tuple[Entry, ...] = ()
    suspects: tuple[Entry, ...] = ()
    next_due: datetime | None = None
    suspects_due: bool = False
    now: datetime


class Removal(Struct, frozen=True, kw_only=True):
    """An entry that is to go: the one of this version or an earlier one, or the one that this claim holds.

    `key`: the unique key to let go too, if the job holds it and no other entry of it is there. An entry takes
    its own key along, but for one that is held for a period.
    """

    id: str
    version: int | None = None
    token: str | None = None
    key: str | None = None


class JobQueue(ABC):
    """Which jobs are due and who holds them. Keeps no history."""

    name: str
    """The driver's name."""

    @abstractmethod
    def now(self) -> datetime:
        """The queue's time, by which leases and due times go. Before anything is stored, it is asked for: so
        it raises where there is something that belongs to others."""

    # --- unique keys -------------------------------------------------------------------------

    @abstractmethod
    def reserve(self, wanted: Sequence[KeyRequest]) -> list[KeyHolder]:
        """Gives each key to its job if nobody holds it, in the order of the call; answers with the holders.

        A key that is reserved for a job that then is never stored, or that a crash kept from being let go,
        would be held for ever. So a holder whose reservation is not known to be needed is named with the
        time of it: if that is long ago, whoever asks looks into the store, and calls `free`. A period is
        sure once the entry of its job was pushed; then no `since` is given, until the job itself asks for
        the key again, as it does before it is queued again or removed.
        """

    @abstractmethod
    def free(self, held: Sequence[tuple[str, KeyHolder]]) -> None:
        """Lets keys go that these jobs hold, if they have held them since then, where that is given. Nothing
        happens to the others."""

    # --- entries -----------------------------------------------------------------------------

    @abstractmethod
    def push(self, entries: Sequence[Entry], lease: float | None = None) -> list[bool]:
        """Gives jobs their places; True for each that has the place now that was asked for.

        An entry that is there stays as it is if it is of the same version or a later one: True for the
        same, False for a later one. One of an earlier version is replaced, whoever holds it: its claim,
        its slots and its being parked end. The key is reserved if nobody holds it, and sure from now on.
        An entry with a token comes as claimed, until now + `lease`; it does not replace one that a later
        claim holds, and is answered with False. Wakes as many waiters as it has
        entries that wait.
        """

    @abstractmethod
    def claim(self, request: ClaimRequest, *, leave_suspects: bool = False) -> ClaimedEntries:
        """Takes due entries for a worker, in one operation; see `Broker.claim`.

        The token of each counts one claim more than the entry does. Limits are kept here: an entry over
        its concurrency is parked, one over its rate is pushed back. Suspects, a bounded number, are given
        to every worker, idle or not, unless they are to be left; `suspects_due`: there are some, they
        were left, and the worker is not idle. One whose limits leave no room is not due.
        """

    @abstractmethod
    def reclaim(self, suspects: Sequence[tuple[Entry, str]], request: ClaimRequest) -> list[bool]:
        """Claims entries whose lease has run out under these new tokens, for the request's worker and lease.
        False where the entry is not what was seen any more: it was renewed, taken, replaced or removed; and
        where its limits leave no room."""

    @abstractmethod
    def release(self, claims: Sequence[ClaimRef]) -> list[bool]:
        """Ends claims under which nothing was started: the entries wait again, due now, as if they had not
        been claimed. False: another claim has been made since, or the entry is gone."""

    @abstractmethod
    def renew(self, claims: Sequence[ClaimRef], lease: float) -> list[bool | None]:
        """Moves the due time of claimed entries, and the end of their slots, to now + lease. False: another
        claim has been made since, or the entry waits. None: there is no entry."""

    @abstractmethod
    def remove(self, removals: Sequence[Removal]) -> list[bool]:
        """Removes entries, claimed or not, with their slots, and lets their keys go. False for one that is
        not there or not the one that is meant. Repeating it does no harm."""

    @abstractmethod
    def entries(self, ids: Sequence[str]) -> list[Entry | None]:
        """The entries as they are; None where there is none."""

    # --- looking -----------------------------------------------------------------------------

    @abstractmethod
    def counts(self, queues: Sequence[str]) -> list[QueueCounts]:
        """See `Broker.counts`."""

    @abstractmethod
    def queue_names(self, prefix: str = "", after: str = "", limit: int = 1000) -> list[str]:
        """Names of queues that hold, or held, entries or parameters: alphabetical, from behind `after`."""

    @abstractmethod
    def wait(self, wanted: Sequence[Wanted], timeout: float) -> bool:
        """See `Broker.wait`."""

    # --- raw queues --------------------------------------------------------------------------

    @abstractmethod
    def raw(self, name: str) -> RawParameters:
        """The parameters of the raw queue of that name. Does no I/O."""

    @abstractmethod
    def admit(self, name: str, claims: Sequence[tuple[RawClaim, Entry]], lease: float) -> list[bool]:
        """Gives claimed parameters of a raw queue the entries of their jobs, which are stored already, as
        claimed until now + lease, and drops the parameters' leases, in one step each. True also where
        this claim was admitted before; False where another worker has claimed the parameter since."""

    @abstractmethod
    def is_leased(self, name: str, ids: Sequence[str]) -> list[bool]:
        """Whether a parameter of the raw queue is claimed for the job of that id and not admitted yet."""

    # --- care --------------------------------------------------------------------------------

    @abstractmethod
    def prune(self, limit: int) -> None:
        """Deletes up to `limit` each of what says nothing any more: keys whose period has ended, rates,
        settled claims of parameters."""

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
    """A record as it was read, with whatever proves that it has not changed when it is written."""

    @property
    def record(self) -> JobRecord: ...


class WriteResult(Enum):
    """What became of a replacement."""

    DONE = "done"
    CHANGED = "changed"
    """The job is not what was read."""
    HELD = "held"
    """Another job holds its unique key."""


@dataclass(frozen=True, slots=True)
class Replacement(Generic[S_co]):
    """What is to be written in place of what was read; None: the job is to be deleted."""

    before: S_co
    after: JobRecord | None
    followups: tuple[NewJob, ...] = ()
    """Jobs to store together with it."""
    reserve: bool = False
    """Whether the job's unique key is to be reserved again, or the change not made."""
    ask_to_stop: bool = False
    """Whether its worker is to be asked to interrupt it."""


class StoredJob(Protocol):
    """A job as the store gave it. It proves, when it is written, that nothing has changed meanwhile."""

    @property
    def record(self) -> JobRecord:
        """What is known of the job. When it is due, and its lease, is as of the last write: the entry knows
        better."""
        ...

    @property
    def version(self) -> int:
        """1 when it is inserted, and one more with each `write` and each `start`; more with `succeed`, and
        the same after `annotate`."""
        ...

    @property
    def unique(self) -> Unique | None:
        """The unique key that the job was enqueued with."""
        ...


S = TypeVar("S", bound=StoredJob)


class JobStore(StoreServices):
    """What is known of each job, and what all processes share. Knows nothing of order, limits and keys.

    Every change of a record is a compare-and-set; totals change with it.
    """

    name: str
    """The driver's name."""

    # --- records -----------------------------------------------------------------------------

    @abstractmethod
    def insert(self, jobs: Sequence[NewJob]) -> list[bool]:
        """Stores new jobs, as version 1, with their `due_at` as it is. False where the id exists, whose
        record then stays as it is, and for the second of two jobs of one id. What has expired makes room.
        Repeated after a lost reply by the driver itself, it answers as the first time."""

    @abstractmethod
    def read(self, ids: Sequence[str]) -> Sequence[StoredJob | None]:
        """The jobs, expired ones too; None for unknown ones."""

    @abstractmethod
    def write(self, replacements: Sequence[Replacement[StoredJob]], now: datetime) -> list[WriteResult]:
        """Writes each if the job is still what was read, with all that follows from it here: totals, the
        deletion of logs, the signal to its worker. Never HELD. `Replacement.followups` are stored with
        the job, not enqueued; see `unfinished`."""

    @abstractmethod
    def start(
        self, entries: Sequence[Entry], *, worker: str, lease: float, now: datetime
    ) -> list[JobRecord | None]:
        """Starts claimed jobs: each that waits, in the entry's queue, at the entry's version, becomes what
        `lifecycle.claimed` says, under the entry's token. None for the others. A call that fails may have
        started some: their entries are held by nobody who knows, until the lease ends."""

    @abstractmethod
    def succeed(self, settlements: Sequence[Settlement], now: datetime) -> list[bool]:
        """Ends running attempts with success, as `lifecycle.settled` says, each if the token is the latest
        and nobody has asked to cancel the job. False: it was not written, and has to be looked at.
        Only outcomes that `records.is_plain_success` allows, without follow-ups."""

    @abstractmethod
    def annotate(self, notes: Sequence[Note], now: datetime) -> list[bool]:
        """See `Broker.annotate`."""

    @abstractmethod
    def unfinished(self, limit: int, *, before: datetime | None = None) -> list[tuple[str, list[NewJob]]]:
        """Jobs with follow-ups that may not be enqueued yet, of changes made before that time.

        Each follow-up has its `due_at`, and its unique key if it has one."""

    @abstractmethod
    def finish(self, parent: str, followups: Sequence[str]) -> None:
        """These follow-ups of the job are enqueued: forgets that they are to be. Nothing happens where others
        have taken their place, by a later attempt."""

    @abstractmethod
    def prune(self, limit: int) -> int:
        """Deletes up to `limit` expired jobs with their logs, and expired state and old figures; mends
        totals. Answers with the number of jobs."""
