"""A state machine: a driver and the in-memory model are put through the same history of jobs.

Needs hypothesis, so it is imported by `against_model` only. Where the contract leaves a choice to the driver,
the comparison does not look: the nonces of tokens, the ids of jobs from raw queues, which subqueue of
a tree comes first, whether a job with room under its limit has been let go already, and whether a
suspect that a limit blocks counts as waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
)
from msgspec.structs import replace

from mrq_core.contract.broker import Broker
from mrq_core.contract.codec import JsonObject
from mrq_core.contract.messages import (
    Action,
    AddedKeys,
    Cancel,
    ClaimRequest,
    Edit,
    Limit,
    Move,
    NewJob,
    Note,
    Outcome,
    Remove,
    Requeue,
    Settlement,
    Unique,
    Wanted,
)
from mrq_core.contract.queries import JobFilter, Order
from mrq_core.contract.record import WAITING, JobRecord, Status
from mrq_core.contract.shared_state import Versions
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import BrokerFactory, Contract
from mrq_core.testing.conformance.machine_kit import (
    ENDS,
    ERRORS,
    GOES_ON,
    LEASE,
    LIMITS,
    PAUSABLE,
    QUEUES,
    RATES,
    TERMS,
    WORKERS,
    Pair,
    apply_all,
    ids_of,
    plain_record,
    present_totals,
    ref_of,
)
from mrq_core.testing.memory import MemoryBroker

T = TypeVar("T")


class JobMachine(RuleBasedStateMachine):
    """Two brokers that are asked the same. Each rule is one call, made to both."""

    jobs: Bundle[str] = Bundle("jobs")
    claims: Bundle[Pair] = Bundle("claims")

    def __init__(self, empty_broker: BrokerFactory, contract: Contract) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.model = MemoryBroker(clock=self.clock)
        self.driver = empty_broker(self.clock)
        self.driver.prepare()
        self.contract = contract
        self.number = 0
        self.steps = 0
        self.held: dict[str, list[Pair]] = {worker: [] for worker in WORKERS}
        self.aliases: dict[str, str] = {}
        """By the id that the driver gave to a job from a raw queue: the one that the model gave it."""
        self.versions = {worker: [Versions(), Versions()] for worker in WORKERS}
        self.pauses = {worker: [frozenset[str]()] * 2 for worker in WORKERS}
        self.last: list[Settlement] = []

    # --- asking both ----------------------------------------------------------------------------------

    def same(self, ask: Callable[[Broker], T]) -> T:
        """Asks both the same, and compares the answers."""
        ours, models = ask(self.driver), ask(self.model)
        assert ours == models
        return ours

    def plain(self, record: JobRecord) -> JobRecord:
        """The record without what the contract leaves open."""
        return plain_record(record, self.clock.now(), self.aliases)

    def records(self, broker: Broker) -> list[JobRecord]:
        found = broker.find(JobFilter(), order=Order.OLDEST_FIRST, limit=1000).records
        return sorted(map(self.plain, found), key=lambda record: record.id)

    @invariant()
    def all_is_the_same_from_time_to_time(self) -> None:
        self.steps += 1
        if self.steps % 8 == 0:
            self.compare()

    def compare(self) -> None:
        """Every record, and every number that is kept of them."""
        self.same(self.records)
        self.same(present_totals)
        self.same(lambda broker: broker.counts(QUEUES[:-2]))
        self.same(lambda broker: [held.waiting + held.claimed for held in broker.counts(QUEUES)])
        self.same(lambda broker: broker.paused())
        self.same(lambda broker: [ids_of(broker, wanted, self.aliases) for wanted in TERMS])
        self.same(lambda broker: broker.count(JobFilter(statuses=(Status.STARTED,)), "queue").numbers)
        waiting = self.model.find(JobFilter(queues=("b", "t/"), statuses=tuple(WAITING)), limit=3).records
        # Jobs of raw queues have other ids in the driver, and are not ordered by id in the same way.
        known = [record.id for record in waiting if not self.aliases and not record.limit_keys]
        self.same(lambda broker: [broker.queue_position(job_id) for job_id in known])

    def note(self, models_id: str, drivers_id: str) -> None:
        """The two brokers gave these ids to the same job."""
        self.aliases[drivers_id] = models_id

    def teardown(self) -> None:
        try:
            self.compare()
        finally:
            self.driver.close()

    # --- enqueueing -----------------------------------------------------------------------------------

    def new_record(self, queue: str, **fields: Any) -> JobRecord:
        self.number += 1
        now = self.clock.now()
        values = {"params": {"n": self.number}, "queued_at": now, "updated_at": now, **fields}
        values["search_keys"] = {"n": self.number % 2} if self.number % 3 else {}
        return JobRecord(id=f"{self.number:024x}", path=f"p{self.number % 2}", queue=queue, **values)

    def enqueue_new(self, queue: str, number: int = 1, **more: Any) -> Any:
        """Enqueues new jobs in one call; they may be named by later rules."""
        delay, unique, fields = more.pop("delay", None), more.pop("unique", None), more
        jobs = [
            NewJob(record=self.new_record(queue, **fields), delay=delay, unique=unique) for _ in range(number)
        ]
        self.same(lambda broker: broker.enqueue(jobs))
        return multiple(*[job.record.id for job in jobs])

    @initialize(target=jobs)
    def begin(self) -> Any:
        return self.enqueue_new("a", 3)

    @rule(
        target=jobs,
        queue=st.sampled_from(QUEUES[:-2]),
        number=st.integers(1, 3),
        delay=st.sampled_from([None, None, 0.0, 15.0]),
        priority=st.sampled_from([0, 0, 4, -4]),
        at_most_once=st.sampled_from([False, False, False, True]),
    )
    def enqueue(self, queue: str, number: int, delay: float | None, priority: int, at_most_once: bool) -> Any:
        more = {"delay": delay, "priority": priority, "at_most_once": at_most_once}
        return self.enqueue_new(queue, number, **more)

    @rule(target=jobs, number=st.integers(1, 3))
    def enqueue_limited(self, number: int) -> Any:
        if not self.contract.supports_limits:
            return multiple()
        return self.enqueue_new("limited", number, limit_keys=("rule",))

    @rule(target=jobs, number=st.integers(1, 3))
    def enqueue_rated(self, number: int) -> Any:
        if not self.contract.supports_limits:
            return multiple()
        return self.enqueue_new("rated", number, limit_keys=("rate",))

    @rule(
        target=jobs,
        queue=st.sampled_from(["a", "b"]),
        key=st.sampled_from(["k1", "k2"]),
        until=st.sampled_from(["queued", "done", "period", "record"]),
    )
    def enqueue_unique(self, queue: str, key: str, until: str) -> Any:
        if not self.contract.supports_unique:
            return multiple()
        if until == "record":  # a driver may delete an expired holder here, and prune one job less later
            self.prune_all()
        unique = Unique(key=key, until=until, period=40.0 if until == "period" else None)
        return self.enqueue_new(queue, unique_key=key, unique=unique)

    # --- claiming -------------------------------------------------------------------------------------

    def claim(self, in_order: bool, worker: str, **parts: Any) -> list[Pair]:
        request = ClaimRequest(worker=worker, lease=LEASE, cancel_ttl=25.0, **parts)
        ours, models = self.driver.claim(request), self.model.claim(request)
        mine, expected = list(ours.records), list(models.records)
        if not in_order:
            mine.sort(key=lambda record: record.id)
            expected.sort(key=lambda record: record.id)
        assert list(map(self.plain, mine)) == list(map(self.plain, expected))
        assert {self.plain(record).id for record in ours.ended} == {record.id for record in models.ended}
        assert ours.now == models.now
        pairs = [Pair(*pair) for pair in zip(mine, expected, strict=True)]
        self.held[worker] += pairs
        return pairs

    def claim_one(self, queue: str, limit: int, lost_limit: int, worker: str, reverse: bool) -> Any:
        wanted = (Wanted(name=queue, reverse=reverse),)
        return multiple(*self.claim(True, worker, wanted=wanted, limit=limit, lost_limit=lost_limit))

    @rule(target=claims, queue=st.sampled_from(["a", "b"]), worker=st.sampled_from(WORKERS))
    def claim_many(self, queue: str, worker: str) -> Any:
        return self.claim_one(queue, 4, 1, worker, False)

    @rule(target=claims, queue=st.sampled_from(["a", "b", "jobs"]), worker=st.sampled_from(WORKERS))
    def claim_few(self, queue: str, worker: str) -> Any:
        return self.claim_one(queue, 2, 2, worker, False)

    @rule(target=claims, queue=st.sampled_from(["a", "b"]), limit=st.integers(1, 3), lost=st.integers(0, 2))
    def claim_in_reverse(self, queue: str, limit: int, lost: int) -> Any:
        return self.claim_one(queue, limit, lost, "w1", True)

    @rule(target=claims, quota=st.sampled_from([None, 1, 3]), worker=st.sampled_from(WORKERS))
    def claim_from_several(self, quota: int | None, worker: str) -> Any:
        if quota is None:
            tree = (Wanted(name="t/", exclude=self.model.paused()),)
            return multiple(*self.claim(False, worker, wanted=tree, limit=100, lost_limit=100))
        wanted = (Wanted(name="b", quota=quota), Wanted(name="a"), Wanted(name="t/y", quota=quota))
        return multiple(*self.claim(True, worker, wanted=wanted, limit=5, lost_limit=2))

    @rule(target=claims, worker=st.sampled_from(WORKERS))
    def claim_limited(self, worker: str) -> Any:
        # A suspect that a limit blocks may be looked at again only after a while.
        self.clock.advance(2.0)
        wanted = (Wanted(name="limited"),)
        pairs = []
        # Which of several suspects comes first, if one of them lost its place under the limit, is open.
        started = JobFilter(queues=("limited",), statuses=(Status.STARTED,))
        leases = {record.lease_until for record in self.model.find(started).records}
        if sum(until is not None and until <= self.clock.now() for until in leases) > 1:
            return multiple()
        for _ in range(3):
            pairs += self.claim(True, worker, wanted=wanted, limit=50, lost_limit=50, limits=LIMITS)
        return multiple(*pairs)

    @rule(target=claims, worker=st.sampled_from(WORKERS), limits=st.sampled_from(RATES))
    def claim_rated(self, worker: str, limits: dict[str, Limit]) -> Any:
        self.clock.advance(2.0)  # a full claim lets parked jobs go once a second
        wanted = (Wanted(name="rated"),)
        # Whether a suspect precedes jobs that its rate releases at the same moment is open.
        started = self.model.find(JobFilter(queues=("rated",), statuses=(Status.STARTED,))).records
        if any(one.lease_until is not None and one.lease_until <= self.clock.now() for one in started):
            return multiple()
        pairs = []
        for _ in range(3):
            pairs += self.claim(True, worker, wanted=wanted, limit=50, lost_limit=50, limits=limits)
        return multiple(*pairs)

    @rule(target=claims, worker=st.sampled_from(WORKERS), limit=st.integers(1, 5))
    def claim_while_a_task_is_paused(self, worker: str, limit: int) -> Any:
        started = self.model.find(JobFilter(queues=("b",), statuses=(Status.STARTED,))).records
        now = self.clock.now()
        if not self.contract.supports_limits or any(
            record.lease_until is not None and record.lease_until <= now for record in started
        ):
            return multiple()  # the driver may leave a lost job of a paused task out for a while
        paused = frozenset({PAUSABLE})
        wanted = (Wanted(name="b"),)
        pairs = self.claim(True, worker, wanted=wanted, limit=limit, lost_limit=2, paused_tasks=paused)
        assert PAUSABLE not in {pair.ours.path for pair in pairs}
        self.same(lambda broker: [one.waiting + one.claimed for one in broker.counts(["b"])])
        for _ in range(2):  # the task is resumed, and a claim lets its jobs go
            self.claim(True, worker, wanted=(Wanted(name="none"),), limit=50, lost_limit=2)
        return multiple(*pairs)

    # --- what workers say -----------------------------------------------------------------------------

    @rule(worker=st.sampled_from(WORKERS), progress=st.sampled_from([0.25, 0.75]))
    def renew_and_annotate(self, worker: str, progress: float) -> None:
        refs = [[ref_of(pair[side]) for pair in self.held[worker]] for side in (0, 1)]
        assert self.driver.renew(refs[0], LEASE) == self.model.renew(refs[1], LEASE)
        notes = [[Note(id=ref.id, token=ref.token, progress=progress) for ref in side] for side in refs]
        assert self.driver.annotate(notes[0]) == self.model.annotate(notes[1])

    @rule(worker=st.sampled_from(WORKERS))
    def crash(self, worker: str) -> None:
        """The worker forgets its claims, and their leases run out; those of the other one do not."""
        self.held[worker].clear()
        for other in WORKERS:
            self.clock.advance(LEASE / 2)
            self.renew_and_annotate(other, 0.5)

    @rule(
        target=jobs,
        pair=claims,
        status=st.sampled_from([*ENDS, *GOES_ON, Status.SUCCESS, Status.RETRY]),
        delay=st.sampled_from([0.0, 10.0]),
        ttl=st.sampled_from([None, 50.0]),
        queue=st.sampled_from([None, "a", "t/x"]),
        follow=st.integers(0, 2),
        error=st.integers(0, 2),
    )
    def settle(
        self,
        pair: Pair,
        status: Status,
        delay: float,
        ttl: float | None,
        queue: str | None,
        follow: int,
        error: int,
    ) -> Any:
        if pair.ours.limit_keys and status in GOES_ON:
            status = (
                Status.FAILED
            )  # its place in the line behind those let go meanwhile is the driver's choice
        goes_on = status in GOES_ON
        followups = (
            (NewJob(record=self.new_record("b"), delay=3.0 if follow == 2 else None),) if follow else ()
        )
        outcome = Outcome(
            status=status,
            delay=delay if goes_on else None,
            lost=status in (Status.QUEUED, Status.FAILED) and not delay and not follow,
            is_retry=status is Status.RETRY,
            queue=queue,
            ttl=None if goes_on else ttl,
            cancel_ttl=20.0,
            result=[status.value],
            **({} if status is Status.SUCCESS or not error else ERRORS[error]),
            followups=followups,
        )
        self.last = [Settlement(id=record.id, token=record.token or "", outcome=outcome) for record in pair]
        self.settle_again()
        return multiple(*[job.record.id for job in followups])

    @rule(target=jobs, worker=st.sampled_from(WORKERS), status=st.sampled_from([*ENDS, *GOES_ON]))
    def settle_the_oldest(self, worker: str, status: Status) -> Any:
        if not self.held[worker]:
            return multiple()
        return self.settle(self.held[worker].pop(0), status, 0.0, 50.0, None, 0, 1)

    @rule()
    def settle_again(self) -> None:
        if self.last:
            assert self.driver.settle(self.last[:1]) == self.model.settle(self.last[1:])

    # --- changes --------------------------------------------------------------------------------------

    @rule(ids=st.lists(jobs, min_size=1, max_size=3), queue=st.sampled_from([None, "a", "b"]))
    def requeue_or_move(self, ids: list[str], queue: str | None) -> None:
        ended = self.model.find(JobFilter(statuses=tuple(ENDS)), limit=2).records
        known = [record for record in (*self.model.get(ids), *ended) if record is not None]
        free = [record.id for record in known if not record.limit_keys and record.raw_queue is None]
        self.same(lambda broker: broker.requeue(free, Requeue(queue=queue)))
        self.same(lambda broker: broker.move(free[:1], Move(queue=queue or "t/x")))

    @rule(ids=st.lists(jobs, min_size=1, max_size=2), how=st.sampled_from(["ask", "interrupt", "remove"]))
    def cancel_or_remove(self, ids: list[str], how: str) -> None:
        if how == "remove":
            self.same(lambda broker: broker.remove(ids))
        else:
            self.same(lambda broker: broker.cancel(ids, Cancel(interrupt=how == "interrupt", ttl=25.0)))

    @rule(ids=st.lists(jobs, min_size=1, max_size=3), keys=st.sampled_from([{"n": 1}, {"m": 0}, {"m": 1}]))
    def add_search_keys(self, ids: list[str], keys: JsonObject) -> None:
        known = [record for record in self.model.get(ids) if record is not None]
        # A pair writes the due time of a job that was let go, which then counts as due, and not as let go.
        free = [record.id for record in known if not record.limit_keys]
        added = [AddedKeys(id=job_id, search_keys=keys) for job_id in (*free, "f" * 24)]
        self.same(lambda broker: broker.add_search_keys(added))

    @rule(
        ids=st.lists(jobs, min_size=1, max_size=3),
        keys=st.sampled_from([None, {}, {"n": 1}, {"m": 0}, {"m": 1}]),
        priority=st.sampled_from([None, 4, 0, -4]),
        delay=st.sampled_from([None, 0.0, 15.0]),
        late=st.sampled_from([0, 0, 0, 1]),
    )
    def edit(
        self, ids: list[str], keys: JsonObject | None, priority: int | None, delay: float | None, late: int
    ) -> None:
        """`late`: the edits since the job was read."""
        known = [record for record in self.model.get(ids) if record is not None]
        # Whether a parked job has been let go before its priority changes is the driver's choice.
        edits = [
            Edit(
                id=record.id,
                claims=record.claims,
                edits=record.edits - late,
                params=None if keys is None else {"n": record.edits, **keys},
                search_keys=keys or {},
                priority=priority,
                delay=delay,
            )
            for record in known
            if not record.limit_keys and record.raw_queue is None
        ]
        edits.append(Edit(id="f" * 24, claims=0, edits=0, priority=priority))
        self.same(lambda broker: broker.edit(edits))

    @rule(job_id=jobs)
    def enqueue_again(self, job_id: str) -> None:
        again = NewJob(record=replace(self.new_record("b"), id=job_id))
        self.same(lambda broker: broker.enqueue([again, again]))

    @rule(
        action=st.sampled_from([Requeue(queue="b"), Cancel(ttl=25.0), Move(queue="a"), Remove()]),
        status=st.sampled_from([Status.FAILED, Status.CANCEL, Status.RETRY]),
    )
    def apply(self, action: Action, status: Status) -> None:
        wanted = JobFilter(statuses=(status,), queues=("a", "t/"))
        self.same(lambda broker: apply_all(broker, wanted, action))

    # --- time, pauses ---------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.001, 5.0, LEASE - 0.001, LEASE, LEASE * 2]))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.prune_all()

    def prune_all(self) -> None:
        while self.same(lambda broker: broker.prune(limit=3)):  # the order of deletion is the driver's choice
            pass

    @rule(worker=st.sampled_from(WORKERS), queue=st.sampled_from(["a", "t/x"]), resume=st.booleans())
    def pause_and_poll(self, worker: str, queue: str, resume: bool) -> None:
        self.same(lambda broker: broker.resume([queue]) if resume else broker.pause([queue]))
        changes = [
            broker.poll(worker, versions)
            for broker, versions in zip((self.driver, self.model), self.versions[worker], strict=True)
        ]
        self.versions[worker] = [change.versions for change in changes]
        # To tell again what is known already does no harm.
        self.pauses[worker] = [
            known if change.paused is None else change.paused
            for known, change in zip(self.pauses[worker], changes, strict=True)
        ]
        assert self.pauses[worker] == [self.model.paused()] * 2
        assert sorted(changes[0].interrupts) == sorted(changes[1].interrupts)
