"""A place with jobs, and calls of its broker that are cut off: the process dies, or a reply is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

from mrq_core import failpoints
from mrq_core.clock import Clock, from_ms
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import (
    Claimed,
    ClaimRequest,
    Limit,
    NewJob,
    Outcome,
    Settlement,
    Unique,
    Wanted,
)
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import JobRecord, Status
from mrq_core.errors import BrokerUnavailable
from mrq_core.ids import new_id
from mrq_core.testing.clock import ManualClock

LEASE = 60.0
QUEUES = ("q", "t/a", "t/b")
_UNTIL = {"q": "done", "t/a": "done", "t/b": "record"}
"""By queue: until when its job with a unique key holds the key."""
LIMITS = {"k": Limit(concurrency=2), "r": Limit(rate=100.0), "s": Limit(rate=1, per=100.0)}


class Place(Protocol):
    """Where brokers can be opened, and emptied."""

    def open(self, clock: Clock | None = None) -> Broker: ...

    def clear(self) -> None: ...


class Scene:
    """A place with jobs, and a call that is cut off."""

    recognizes_its_own_jobs = True
    """Whether an enqueue that a driver repeats after a lost reply still says that it created the jobs."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.clock = ManualClock()
        place.clear()
        self.broker = place.open(self.clock)
        self.broker.prepare()

    # --- what differs ----------------------------------------------------------------------------

    def lose(self, point: str) -> None:
        """Raises what the driver raises where the reply of the call at this point gets lost."""
        raise NotImplementedError

    def check_numbers(self) -> None:
        """The numbers that are kept are those that are counted."""
        raise NotImplementedError

    def check_everything(self) -> None:
        """All that is kept is what the jobs say."""
        raise NotImplementedError

    def check_end(self) -> None:
        """What else holds when everything that was to run has run."""

    # --- jobs ------------------------------------------------------------------------------------

    def new_job(
        self, queue: str, keys: tuple[str, ...] = (), unique: Unique | None = None, **fields: Any
    ) -> NewJob:
        now = self.now
        record = JobRecord(
            id=new_id(),
            path="t.Task",
            params={"n": 1},
            queue=queue,
            queued_at=now,
            updated_at=now,
            limit_keys=keys,
            **fields,
        )
        return NewJob(record=record, unique=unique)

    @property
    def now(self) -> datetime:
        """The time of the scene."""
        return from_ms(self.clock.now_ms())

    def put(self) -> list[str]:
        """Nine jobs in three queues: with a search key, limited, and with a unique key."""
        jobs = []
        for queue in QUEUES:
            jobs += [
                self.new_job(queue, search_keys={"queue": queue}),
                self.new_job(queue, ("k", "r")),
                self.new_job(queue, unique=Unique(key=f"u {queue}", until=_UNTIL[queue])),
            ]
        return [answer.id for answer in self.broker.enqueue(jobs)]

    def claim(self, broker: Broker, limit: int = 10) -> Claimed:
        """Claims, and sees to it that nothing is given while another claim is valid, and that limits are
        kept."""
        before = {record.id for record in self.running()} if broker is self.broker else set()
        claimed = broker.claim(scene_request(limit))
        if broker is self.broker:
            assert not before & {record.id for record in claimed.records}
            assert sum("k" in record.limit_keys for record in self.running()) <= 2
        return claimed

    def running(self) -> list[JobRecord]:
        """The jobs whose claims are valid."""
        found = self.broker.find(JobFilter(statuses=(Status.STARTED,)), limit=1000).records
        return [one for one in found if one.lease_until is not None and one.lease_until > self.now]

    # --- being cut off ---------------------------------------------------------------------------

    def crash(self, call: Callable[[Broker], object], place: int) -> bool:
        """Makes the call in a child that is killed at the place of this number. False: it has fewer."""
        child = os.fork()
        if child == 0:
            failpoints.hook = _At(place, lambda _: os.kill(os.getpid(), signal.SIGKILL))
            try:
                call(self.place.open(self.clock))
                os._exit(0)
            finally:
                os._exit(1)
        status = os.waitpid(child, 0)[1]
        assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
        return os.WIFSIGNALED(status)

    def lose_reply(
        self, call: Callable[[Broker], object], check_answer: Callable[[Any], None], place: int
    ) -> bool:
        """Makes the call, and loses the reply of this number from the server. False: it has fewer.

        A call that raises no error has to leave everything in order at once.
        """
        broker = self.place.open(self.clock)
        hook = _At(place, self.lose, only=".after")
        failpoints.hook = hook
        try:
            check_answer(call(broker))
            self.check_numbers()
        except BrokerUnavailable:
            pass
        finally:
            failpoints.hook = None
            broker.close()
        return hook.left < 0

    # --- afterwards ------------------------------------------------------------------------------

    def repair(self) -> None:
        """A minute later, after housekeeping, everything is in order."""
        self.clock.advance(61.0)
        self.broker.prune()
        self.check_numbers()
        self.check_everything()

    def run_all(self) -> dict[str, Status]:
        """Runs what is left, and says how every job has ended."""
        idle = 0
        while idle < 3:
            records = self.claim(self.broker).records
            assert self.broker.settle(list(map(succeeded, records))) == [True] * len(records)
            if not records:
                idle += 1
                self.clock.advance(LEASE + 1)
                self.broker.prune()
            else:
                idle = 0
        self.repair()
        found = self.broker.find(JobFilter(), limit=1000).records
        for record in found:
            if record.status is Status.SUCCESS and record.raw_queue is None:
                assert len(record.history) == record.claims - 1, "each repeat is listed"
        return {record.id: record.status for record in found}


def scene_request(limit: int = 10, paused_tasks: frozenset[str] = frozenset()) -> ClaimRequest:
    """A claim from all queues of a scene."""
    return ClaimRequest(
        worker="w",
        wanted=(Wanted(name="q"), Wanted(name="t/"), Wanted(name="jobs")),
        limit=limit,
        lease=LEASE,
        lost_limit=2,
        limits=LIMITS,
        paused_tasks=paused_tasks,
    )


class _At:
    """Does something at the place with this number."""

    def __init__(self, place: int, act: Callable[[str], None], only: str = "") -> None:
        self.left = place
        self._act = act
        self._only = only

    def __call__(self, name: str) -> None:
        if name.endswith(self._only):
            self.left -= 1
            if self.left == -1:
                self._act(name)


def succeeded(record: JobRecord, followups: tuple[NewJob, ...] = ()) -> Settlement:
    outcome = Outcome(status=Status.SUCCESS, ttl=1e6, followups=followups)
    return Settlement(id=record.id, token=record.token or "", outcome=outcome)


def ended(record: JobRecord, status: Status) -> Settlement:
    runs_again = status is Status.RETRY
    outcome = Outcome(
        status=status,
        ttl=None if runs_again else 1e6,
        delay=5.0 if runs_again else None,
        is_retry=runs_again,
        exception_type="E",
        exception_message="no lamps",
        error_group="group",
    )
    return Settlement(id=record.id, token=record.token or "", outcome=outcome)
