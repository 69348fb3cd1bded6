"""Claims of a pair: leases in the queue, attempts in the store.

The queue is asked first. What it gives is started in the store if it is of the version that is stored there;
the rest is put right. A process that dies between the two leaves entries under a lease, whose jobs are not
started: the claims that come after it give them back, and no attempt is used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from msgspec.structs import replace

from mrq_core import failpoints
from mrq_core.composed import tickets
from mrq_core.contract import lifecycle
from mrq_core.contract.messages import Claimed, ClaimRef, ClaimRequest
from mrq_core.contract.pair import (
    ClaimedEntries,
    Entry,
    JobQueue,
    JobStore,
    KeyHolder,
    Parking,
    Replacement,
    StoredJob,
    WriteResult,
)
from mrq_core.contract.record import JobRecord, Status
from mrq_core.drivers.limits import task_key
from mrq_core.errors import BrokerError, NotSupported
from mrq_core.ids import new_nonce

PARKED_ROUNDS = 10
"""The number of times that a claim claims again because jobs of paused tasks took its room."""

SUSPECT_PAUSE = 1.0
"""Seconds for which a lost claim of a paused task is left out of claims."""

_Suspect = tuple[Entry, StoredJob, JobRecord]
"""The entry, the record as it was read, and the record with the lease that the queue knows."""


@dataclass(frozen=True, slots=True)
class _Change:
    """A change of a suspect: its entry under a new token, and then its record."""

    entry: Entry
    stored: StoredJob
    after: JobRecord
    token: str


@dataclass(slots=True)
class _Seen:
    """The handled suspects: jobs that were claimed again, jobs that ended, and jobs that may be claimed."""

    taken: list[JobRecord] = field(default_factory=list)
    ended: list[JobRecord] = field(default_factory=list)
    left: list[_Suspect] = field(default_factory=list)


class Claimer:
    """The claims of one process."""

    def __init__(self, queue: JobQueue, store: JobStore) -> None:
        self._queue = queue
        self._store = store
        self._is_store_in_doubt = False

    def claim(self, request: ClaimRequest) -> Claimed:
        """See `Broker.claim`."""
        if self._is_store_in_doubt:
            self._store.paused()  # fails before entries are claimed in vain
            self._is_store_in_doubt = False
        if request.chooses_tasks:
            raise NotSupported(
                "the queue of a pair does not know the tasks of its entries, so it cannot leave out tasks: "
                "clear ALLOW_TASKS and DENY_TASKS, and give the tasks a queue that only some workers serve"
            )
        answer = self._queue.claim(request)
        seen = _Seen()
        if answer.suspects:
            seen = self._see_to(answer, request)
            self._take(min(request.lost_limit, request.limit), answer, request, seen)
            answer = self._claim_further(request, answer, seen)
        try:
            seen.taken += self._start(answer, request)
            for _ in range(PARKED_ROUNDS if request.paused_tasks else 0):
                room = request.limit - len(seen.taken)
                if not answer.entries or room <= 0:
                    break
                answer = self._queue.claim(replace(request, limit=room), leave_suspects=True)
                seen.taken += self._start(answer, request)
        except BrokerError:  # the claimed suspects must not be lost with the answer
            if not seen.taken:
                raise
        return Claimed(
            records=tuple(seen.taken),
            next_due=answer.next_due,
            ended=tuple(seen.ended),
            now=answer.now,
        )

    def _claim_further(self, request: ClaimRequest, answer: ClaimedEntries, seen: _Seen) -> ClaimedEntries:
        """Claims waiting jobs after the suspects. A failure now does not lose the handled suspects."""
        number = len(seen.taken)
        left = replace(request, limit=request.limit - number, lost_limit=request.lost_limit - number)
        try:
            return self._queue.claim(left, leave_suspects=True)
        except BrokerError:
            if not seen.taken:
                raise
            return ClaimedEntries(next_due=answer.now, now=answer.now)

    # --- waiting jobs ------------------------------------------------------------------------

    def _start(self, answer: ClaimedEntries, request: ClaimRequest) -> list[JobRecord]:
        """The records of the jobs that could be started."""
        entries = answer.entries
        if not entries:
            return []
        failpoints.reach("composed.claimed")
        if request.paused_tasks:
            entries = self._without_paused(entries, request, answer.now)
        try:
            records = self._store.start(entries, worker=request.worker, lease=request.lease, now=answer.now)
        except BrokerError:
            self._is_store_in_doubt = True
            with contextlib.suppress(BrokerError):
                self._queue.release([ClaimRef(id=one.id, token=one.token or "") for one in entries])
            raise
        failpoints.reach("composed.started")
        with contextlib.suppress(BrokerError):  # the jobs are started: later claims and calls mend the rest
            refused = [entry for entry, record in zip(entries, records, strict=True) if record is None]
            if refused:
                tickets.put_right(self._queue, self._store, refused, answer.now)
            kept = [entry for entry, record in zip(entries, records, strict=True) if record is not None]
            self._free_keys(kept)
        return [record for record in records if record is not None]

    def _without_paused(
        self, entries: Sequence[Entry], request: ClaimRequest, now: datetime
    ) -> tuple[Entry, ...]:
        """Parks the entries of paused tasks; returns the others. The paths are in the store."""
        kept: list[Entry] = []
        paused: list[Parking] = []
        for entry, stored in zip(entries, self._store.read([one.id for one in entries]), strict=True):
            if stored is None or stored.record.path not in request.paused_tasks:
                kept.append(entry)
            else:
                paused.append(
                    Parking(
                        claim=ClaimRef(id=entry.id, token=entry.token or ""),
                        key=task_key(stored.record.path),
                        due_at=stored.record.due_at or now,
                    )
                )
        if paused:
            self._queue.park(paused)
            failpoints.reach("composed.parked")
        return tuple(kept)

    def _free_keys(self, started: Sequence[Entry]) -> None:
        """Releases keys that are held while a job is queued."""
        held = [
            (one.unique.key, KeyHolder(id=one.id))
            for one in started
            if one.unique is not None and one.unique.until == "queued"
        ]
        if held:
            self._queue.free(held)

    # --- suspects ----------------------------------------------------------------------------

    def _see_to(self, answer: ClaimedEntries, request: ClaimRequest) -> _Seen:
        """Ends the jobs that must not run again, and repairs entries without a lost claim. The others may be
        claimed.

        Each job is claimed in the queue before it is written, and written only if it is unchanged since it
        was read, because another worker may have claimed, renewed or settled it meanwhile.
        """
        seen = _Seen()
        found = self._store.read([entry.id for entry in answer.suspects])
        wrong: list[Entry] = []
        over: list[_Change] = []
        paused: list[ClaimRef] = []
        for entry, stored in zip(answer.suspects, found, strict=True):
            if stored is None or stored.record.status is not Status.STARTED or _is_behind(entry, stored):
                wrong.append(entry)
                continue
            # The store knows the lease as it was when the claim was made, the queue as it was renewed.
            record = replace(stored.record, lease_until=entry.due_at, due_at=entry.due_at)
            ended = lifecycle.after_lost_claim(record, request, answer.now)
            if ended is None:
                if record.path in request.paused_tasks:
                    paused.append(ClaimRef(id=entry.id, token=entry.token or ""))
                else:
                    seen.left.append((entry, stored, record))
            else:
                token = lifecycle.make_token(stored.record.claims + 1, new_nonce())
                over.append(_Change(entry, stored, ended, token))
        if wrong:
            tickets.put_right(self._queue, self._store, wrong, answer.now)
        if paused:
            self._queue.put_off(paused, SUSPECT_PAUSE)
        done = self._write_held(over, request, answer)
        if done:
            self._queue.remove([tickets.removal_of(one.stored) for one in done])
        seen.ended = [one.after for one in done]
        return seen

    def _take(self, most: int, answer: ClaimedEntries, request: ClaimRequest, seen: _Seen) -> None:
        """Claims suspects until the call has `most` jobs."""
        while seen.left and len(seen.taken) < most:
            room = most - len(seen.taken)
            chosen, seen.left = seen.left[:room], seen.left[room:]
            done = self._write_held([_claim_of(one, request, answer) for one in chosen], request, answer)
            seen.taken += [one.after for one in done]

    def _write_held(
        self, changes: list[_Change], request: ClaimRequest, answer: ClaimedEntries
    ) -> list[_Change]:
        """Writes the records of suspects while their entries are held under new claims, so that no other
        worker can claim or renew them meanwhile.

        Returns the changes that were made. Of the others, another worker was quicker, the late worker has
        settled the job, or its limits leave no room.
        """
        if not changes:
            return []
        answers = self._queue.reclaim([(one.entry, one.token) for one in changes], request)
        held = [one for one, is_held in zip(changes, answers, strict=True) if is_held]
        if not held:
            return []
        failpoints.reach("composed.taken")
        results = self._store.write([Replacement(one.stored, one.after) for one in held], answer.now)
        done = [one for one, result in zip(held, results, strict=True) if result is WriteResult.DONE]
        refused = [one for one, result in zip(held, results, strict=True) if result is not WriteResult.DONE]
        if refused:
            entries = [replace(one.entry, token=one.token) for one in refused]
            tickets.put_right(self._queue, self._store, entries, answer.now)
        return done


def _claim_of(suspect: _Suspect, request: ClaimRequest, answer: ClaimedEntries) -> _Change:
    entry, stored, record = suspect
    nonce = new_nonce()
    after = lifecycle.claimed(record, now=answer.now, worker=request.worker, nonce=nonce, lease=request.lease)
    return _Change(entry, stored, after, lifecycle.make_token(after.claims, nonce))


def _is_behind(entry: Entry, stored: StoredJob) -> bool:
    """Whether the entry is held by a claim that is not the record's, and not a later one: by one under which
    nothing was started, or by an earlier one, where the queue has lost its latest changes."""
    ours, known = entry.token or "", stored.record.token or ""
    is_other = ours != known and lifecycle.claim_number(ours) <= lifecycle.claim_number(known)
    return is_other and entry.version < stored.version
