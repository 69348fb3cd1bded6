"""Limits that hold jobs back: the keys under which jobs have been parked for a minute."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from datetime import datetime

import msgspec

from mrq_core.clock import monotonic
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import Limit
from mrq_core.contract.queries import JobFilter, KeyUse, Order, QueueCounts
from mrq_core.contract.record import WAITING, JobRecord
from mrq_core.contract.rules import OVERLAP_RULE, TASK_RULE
from mrq_core.drivers.limits import rule_of
from mrq_core.operations.explaining.reasons import ago, jobs_text, rate_text

REACHED_AFTER = 60.0
"""Seconds for which the oldest parked job of a key has been queued."""
MOST_REACHED = 5
"""The most keys."""
_MOST_QUEUES = 10
"""The most queues whose jobs are read."""
_MOST_EXAMINED = 100
"""The oldest waiting jobs of a queue among which parked ones are sought."""
_SECONDS = 0.05
"""The time after which no further queue is read."""
_KEPT = 2.0
"""Seconds after which a process that asks often reads again."""


class ReachedLimit(msgspec.Struct, frozen=True, kw_only=True):
    """A limit key that holds jobs back. `rule` is the name of its rule, `job` the oldest parked job that was
    found. `is_full`: as many jobs run as may run at once; False: the rate holds them back."""

    key: str
    rule: str
    is_full: bool
    parked: int
    job: str
    sentence: str


class ReachedLimits:
    """Reads the limits that hold jobs back, at most once in 2 s."""

    def __init__(self) -> None:
        self._read_at = -math.inf
        self._found: tuple[ReachedLimit, ...] = ()

    def of(self, broker: Broker, counts: Iterable[QueueCounts]) -> tuple[ReachedLimit, ...]:
        """As `reached_limits`, of up to 2 s ago."""
        if monotonic() - self._read_at > _KEPT:
            self._found = reached_limits(broker, counts)
            self._read_at = monotonic()
        return self._found


def reached_limits(broker: Broker, counts: Iterable[QueueCounts]) -> tuple[ReachedLimit, ...]:
    """The limit keys whose oldest parked job was queued more than a minute ago, most parked jobs first, up to
    5.

    Reads the rules. Where there are limits, also reads the oldest 100 waiting jobs of each of up to 10 queues
    that have jobs which are not due, and a position for each key, within about 50 ms, and at least one
    queue and key. A key may be missed whose parked jobs are not among them.
    """
    limits = broker.rules().limits
    if not limits:
        return ()
    deadline, now = monotonic() + _SECONDS, broker.now()
    found: dict[str, ReachedLimit] = {}
    asked: set[tuple[str, ...]] = set()
    queues = sorted((one for one in counts if one.waiting > one.due), key=lambda one: one.due - one.waiting)
    for queue in queues[:_MOST_QUEUES]:
        if queue is not queues[0] and monotonic() > deadline:
            break
        for record in _parked(broker, queue.queue, now):
            if asked and monotonic() > deadline:
                break
            if record.limit_keys not in asked:
                asked.add(record.limit_keys)
                use = _holding(broker, record)
                limit = None if use is None else limits.get(rule_of(use.key))
                if use is not None and limit is not None:
                    found |= _reached(record, use, limit, now)
    return tuple(sorted(found.values(), key=lambda one: (-one.parked, one.key))[:MOST_REACHED])


def _parked(broker: Broker, queue: str, now: datetime) -> Iterator[JobRecord]:
    wanted = JobFilter(queues=(queue,), statuses=tuple(WAITING))
    for record in broker.find(wanted, order=Order.OLDEST_FIRST, limit=_MOST_EXAMINED).records:
        is_old = (now - record.queued_at).total_seconds() > REACHED_AFTER
        if record.due_at is None and record.limit_keys and is_old:
            yield record


def _holding(broker: Broker, record: JobRecord) -> KeyUse | None:
    """The use of the key under which the job is parked. None: it is not parked by now, or by no limit."""
    position = broker.queue_position(record.id)
    key = None if position is None else position.parked_under
    if position is None or key is None or rule_of(key) in (TASK_RULE, OVERLAP_RULE):
        return None
    return next((use for use in position.keys if use.key == key), None)


def _reached(record: JobRecord, use: KeyUse, limit: Limit, now: datetime) -> dict[str, ReachedLimit]:
    """The key with its words. Empty: it has room by now."""
    is_full = limit.concurrency is not None and use.running >= limit.concurrency
    if not is_full and limit.rate is None:
        return {}
    why = "lets no job run"
    if not is_full:
        why = f"lets {rate_text(limit)} start"
    elif limit.concurrency:
        why = f"is reached: {use.running:,} of {limit.concurrency:,} jobs run"
    waits = f"{jobs_text(use.parked)} wait{'s' if use.parked == 1 else ''} for it"
    oldest = f"{'' if use.parked == 1 else 'the oldest '}queued {ago(record.queued_at, now)}"
    made = ReachedLimit(
        key=use.key, rule=rule_of(use.key), is_full=is_full, parked=use.parked, job=record.id,
        sentence=f"{why}. {waits}, {oldest}.",
    )  # fmt: skip
    return {use.key: made}
