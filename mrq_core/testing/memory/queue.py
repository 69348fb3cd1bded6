"""The queue half in memory. An entry is stored as a record with only the fields that a queue needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from msgspec.structs import replace

from mrq_core.clock import Clock, SystemClock, after, from_ms
from mrq_core.contract import pair
from mrq_core.contract.lifecycle import claim_number
from mrq_core.contract.messages import ClaimRef, ClaimRequest, RawClaim, Unique, Wanted
from mrq_core.contract.pair import ClaimedEntries, Entry, JobQueue, KeyHolder, KeyRequest, Removal
from mrq_core.contract.queries import Finding, QueueCounts, QueuePosition
from mrq_core.contract.record import JobRecord, Status
from mrq_core.drivers.limits import rules_of
from mrq_core.testing.memory.broker import MemoryBroker
from mrq_core.testing.memory.data import MemoryData, Parking
from mrq_core.testing.memory.jobs import claiming, limits, lost_claims
from mrq_core.testing.memory.jobs.records import is_held
from mrq_core.testing.memory.raw.claiming import RawClaims
from mrq_core.testing.memory.raw.queue import MemoryRawQueue


@dataclass(slots=True)
class _Key:
    """A held unique key."""

    id: str
    """The job that holds the key."""
    since: datetime
    until: datetime | None
    is_sure: bool = False
    """The key is held for a period and its entry was pushed: it stays held without the entry."""


@dataclass(slots=True)
class QueueData:
    """The data that queues of one process share."""

    data: MemoryData = field(default_factory=MemoryData)
    versions: dict[str, int] = field(default_factory=dict)
    uniques: dict[str, Unique] = field(default_factory=dict)
    keys: dict[str, _Key] = field(default_factory=dict)


class MemoryQueue(JobQueue):
    """A queue on `data`, which other queues of the same process may share."""

    name = "memory"

    def __init__(self, *, clock: Clock | None = None, data: QueueData | None = None) -> None:
        self._clock = clock or SystemClock()
        self._queue = data or QueueData()
        self._data = self._queue.data
        self._broker = MemoryBroker(clock=self._clock, data=self._data)

    def now(self) -> datetime:
        return from_ms(self._clock.now_ms())

    # --- unique keys -------------------------------------------------------------------------

    def reserve(self, wanted: Sequence[KeyRequest]) -> list[KeyHolder]:
        with self._broker.locked() as now:
            return [self._reserve(one.id, one.unique, now) for one in wanted]

    def _reserve(self, job_id: str, unique: Unique, now: datetime) -> KeyHolder:
        keys = self._queue.keys
        held = keys.get(unique.key)
        if held is not None and (held.until is None or held.until > now):
            if held.id == job_id:
                held.since, held.is_sure = now, False
            return KeyHolder(id=held.id, since=None if held.is_sure else held.since)
        if unique.until == "period" and unique.period is None:
            return KeyHolder(id=None)
        until = None if unique.until != "period" or unique.period is None else after(now, unique.period)
        keys[unique.key] = _Key(job_id, now, until)
        return KeyHolder(id=job_id, since=now)

    def free(self, held: Sequence[tuple[str, KeyHolder]]) -> None:
        with self._broker.locked():
            for key, holder in held:
                self._free(key, holder.id, holder.since)

    def _free(self, key: str, job_id: str | None, since: datetime | None = None) -> None:
        found = self._queue.keys.get(key)
        if found is not None and found.id == job_id and since in (None, found.since):
            del self._queue.keys[key]

    # --- entries -----------------------------------------------------------------------------

    def push(self, entries: Sequence[Entry], lease: float | None = None) -> list[bool]:
        with self._broker.locked() as now:
            return [self._push_held(entry, lease, now) for entry in entries]

    def _push_held(self, entry: Entry, lease: float | None, now: datetime) -> bool:
        """Refuses an entry under an earlier claim than the stored entry."""
        record = self._data.get(entry.id)
        held = "" if record is None else record.token or ""
        is_earlier = entry.token is not None and claim_number(held) > claim_number(entry.token)
        return not is_earlier and self._push(entry, lease, now)

    def _push(self, entry: Entry, lease: float | None, now: datetime) -> bool:
        before = self._queue.versions.get(entry.id)
        if before is not None and before >= entry.version:
            return before == entry.version
        if entry.unique is not None:
            self._reserve(entry.id, entry.unique, now)
            held = self._queue.keys.get(entry.unique.key)
            if held is not None and held.id == entry.id:
                held.is_sure = entry.unique.until == "period"
        due_at = self._due_at(entry, now)
        if before is not None and due_at is not None and due_at != self._data.limits.allowed.get(entry.id):
            # A moved or edited job keeps the time that its rates allow; any other job is charged anew.
            self._data.limits.forget(entry.id)
        record = JobRecord(
            id=entry.id,
            path="",
            params={},
            queue=entry.queue,
            priority=entry.priority,
            queued_at=now,
            updated_at=now,
            due_at=due_at,
            claims=entry.claims,
            limit_keys=entry.limit_keys,
        )
        if entry.token is not None and lease is not None:
            record = _held(record, entry.token, after(now, lease))
        self._data.put(record, now)
        self._queue.versions[entry.id] = entry.version
        self._queue.uniques.pop(entry.id, None)
        if entry.unique is not None:
            self._queue.uniques[entry.id] = entry.unique
        return True

    def _due_at(self, entry: Entry, now: datetime) -> datetime | None:
        """The due time of a pushed entry. None: the entry stays parked."""
        if entry.due_at is not None:
            return entry.due_at
        before = self._data.get(entry.id)
        if before is None or entry.token is not None or before.status is Status.STARTED:
            return now
        return before.due_at

    def claim(self, request: ClaimRequest, *, leave_suspects: bool = False) -> ClaimedEntries:
        with self._broker.locked() as now:
            self._data.limits.known = dict(rules_of(request))
            suspects = [
                record
                for record in lost_claims.lost(self._data, request, now)
                if limits.has_room(self._data, record, now)
            ]
            if suspects and not leave_suspects:
                return ClaimedEntries(suspects=tuple(map(self._entry, suspects)), now=now)
            taken: list[JobRecord] = []
            claiming.let_go_wanted(self._data, request, now)
            claiming.take_waiting(self._data, request, now, taken)
            may_take = request.lost_limit > 0
            return ClaimedEntries(
                entries=tuple(map(self._entry, taken)),
                next_due=claiming.next_due(self._data, request, now, may_take_suspects=may_take),
                now=now,
            )

    def _entry(self, record: JobRecord) -> Entry:
        is_claimed = record.status is Status.STARTED
        return Entry(
            id=record.id,
            queue=record.queue,
            version=self._queue.versions[record.id],
            priority=record.priority,
            due_at=record.lease_until if is_claimed else record.due_at,
            claims=record.claims - is_claimed,
            token=record.token if is_claimed else None,
            limit_keys=record.limit_keys,
            unique=self._queue.uniques.get(record.id),
        )

    def reclaim(self, suspects: Sequence[tuple[Entry, str]], request: ClaimRequest) -> list[bool]:
        with self._broker.locked() as now:
            self._data.limits.known = dict(rules_of(request))
            answers = []
            for entry, token in suspects:
                record = self._data.get(entry.id)
                is_over = record is not None and record.lease_until is not None and record.lease_until <= now
                is_as_seen = is_over and record is not None and record.token == entry.token
                answers.append(is_as_seen and record is not None and limits.has_room(self._data, record, now))
                if record is not None and answers[-1]:
                    self._data.put(_held(record, token, after(now, request.lease)), now)
            return answers

    def release(self, claims: Sequence[ClaimRef]) -> list[bool]:
        with self._broker.locked() as now:
            answers = []
            for ref in claims:
                record = self._data.get(ref.id)
                answers.append(record is not None and is_held(record, ref.token))
                if record is not None and answers[-1]:
                    freed = replace(
                        record,
                        status=Status.QUEUED,
                        due_at=now,
                        lease_until=None,
                        token=None,
                        claims=record.claims - 1,
                    )
                    self._data.put(freed, now)
            return answers

    def park(self, parkings: Sequence[pair.Parking]) -> list[bool]:
        with self._broker.locked() as now:
            return [self._park(one, now) for one in parkings]

    def _park(self, one: pair.Parking, now: datetime) -> bool:
        record = self._data.get(one.claim.id)
        if record is None or not is_held(record, one.claim.token):
            parking = self._data.limits.parked.get(one.claim.id)
            return parking is not None and parking.key == one.key
        waiting = replace(
            record,
            status=Status.QUEUED,
            due_at=None,
            lease_until=None,
            token=None,
            claims=record.claims - 1,
        )
        self._data.put(waiting, now)
        self._data.limits.parked[record.id] = Parking(one.key, now, one.due_at)
        return True

    def renew(self, claims: Sequence[ClaimRef], lease: float) -> list[bool | None]:
        with self._broker.locked() as now:
            answers: list[bool | None] = []
            for ref in claims:
                record = self._data.get(ref.id)
                answers.append(None if record is None else is_held(record, ref.token))
                if record is not None and answers[-1]:
                    until = after(now, lease)
                    self._data.put(replace(record, lease_until=until, due_at=until), now)
            return answers

    def put_off(self, claims: Sequence[ClaimRef], seconds: float) -> None:
        with self._broker.locked() as now:
            for ref in claims:
                record = self._data.get(ref.id)
                is_over = record is not None and record.lease_until is not None and record.lease_until <= now
                if record is not None and is_over and is_held(record, ref.token):
                    self._data.put(replace(record, due_at=after(now, seconds)), now)

    def remove(self, removals: Sequence[Removal]) -> list[bool]:
        with self._broker.locked():
            return [self._remove(removal) for removal in removals]

    def _remove(self, removal: Removal) -> bool:
        record = self._data.get(removal.id)
        if record is None:
            if removal.key is not None:
                self._free(removal.key, removal.id)
            return False
        is_meant = (removal.version is not None and self._queue.versions[removal.id] <= removal.version) or (
            removal.token is not None and is_held(record, removal.token)
        )
        if is_meant:
            if removal.key is not None:
                self._free(removal.key, removal.id)
            unique = self._queue.uniques.pop(removal.id, None)
            if unique is not None and unique.until != "period":
                self._free(unique.key, removal.id)
            self._data.delete(removal.id)
            del self._queue.versions[removal.id]
        return is_meant

    def entries(self, ids: Sequence[str]) -> list[Entry | None]:
        with self._broker.locked():
            found = [self._data.get(job_id) for job_id in ids]
            return [None if record is None else self._entry(record) for record in found]

    # --- queries -----------------------------------------------------------------------------

    def counts(self, queues: Sequence[str]) -> list[QueueCounts]:
        return self._broker.counts(queues)

    def position(self, job_id: str) -> QueuePosition | None:
        return self._broker.queue_position(job_id)

    def queue_names(self, prefix: str = "", after: str = "", limit: int = 1000) -> list[str]:
        return self._broker.queue_names(prefix, after, limit)

    def wait(self, wanted: Sequence[Wanted], timeout: float) -> bool:
        return self._broker.wait(wanted, timeout)

    # --- raw queues --------------------------------------------------------------------------

    def raw(self, name: str) -> MemoryRawQueue:
        return MemoryRawQueue(name, self._data, self._broker.locked)

    def admit(self, name: str, claims: Sequence[tuple[RawClaim, Entry]], lease: float) -> list[bool]:
        with self._broker.locked() as now:
            raw = self._data.raw.get(name)
            return [raw is not None and self._admit(raw, *one, lease, now) for one in claims]

    def _admit(self, raw: RawClaims, claim: RawClaim, entry: Entry, lease: float, now: datetime) -> bool:
        if claim in raw.admitted:
            return True
        if not raw.holds(claim):
            return False
        self._push(entry, lease, now)
        raw.admit(claim)
        return True

    def is_leased(self, name: str, ids: Sequence[str]) -> list[bool]:
        with self._broker.locked():
            raw = self._data.raw.get(name)
            return [raw is not None and job_id in raw.leases for job_id in ids]

    # --- maintenance -------------------------------------------------------------------------

    def prune(self, limit: int) -> None:
        with self._broker.locked() as now:
            keys = self._queue.keys
            for key in [key for key, held in keys.items() if held.until is not None and held.until <= now]:
                del keys[key]
            self._data.forget_queues()

    def check(self) -> list[Finding]:
        return self._broker.check()

    def prepare(self) -> None:
        """A dict needs no preparation."""

    def close(self) -> None:
        self._broker.close()


def _held(record: JobRecord, token: str, until: datetime) -> JobRecord:
    return replace(record, status=Status.STARTED, token=token, due_at=until, lease_until=until)
