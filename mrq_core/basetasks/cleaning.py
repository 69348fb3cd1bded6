"""Tasks that queue jobs again after interrupts and crashes, and delete expired data.

Workers need none of them: leases recover, interrupted and retried jobs start, and expired records go by
themselves. They are safe beside running workers, and return numbers of jobs. The param ``dry_run`` counts and
changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from mrq_core.basetasks.changing import begins_after, change_matching
from mrq_core.basetasks.params import is_dry, refuse_others, seconds_in
from mrq_core.client.ambient import current_client
from mrq_core.clock import after
from mrq_core.contract.broker import Broker
from mrq_core.contract.codec import JsonObject
from mrq_core.contract.messages import CHUNK, Requeue
from mrq_core.contract.queries import JobFilter, Order, RepairResult
from mrq_core.contract.record import UNFINISHED, WAITING, JobRecord, Status
from mrq_core.operations.actions import repair_all
from mrq_core.operations.checking.consistency import count_records
from mrq_core.running.context import get_current_job, log, set_current_job_progress
from mrq_core.tasks.task import Task

_SHOWN = 20
_KEEP_RETRIES = Requeue(reset_retries=False)


class RequeueInterruptedJobs(Task):
    """Queues interrupted jobs again, at once, and keeps their retry_count.

    An interrupted job waits in its queue already; this clears a delay, and the status. Jobs that are
    `at_most_once` stay ended.
    """

    timeout = 0.0

    def run(self, params: JsonObject) -> JsonObject:
        """Returns the number of ``requeued``."""
        refuse_others(params, "dry_run")
        wanted = JobFilter(statuses=(Status.INTERRUPT,), until=begins_after())
        return {
            "requeued": change_matching(wanted, _KEEP_RETRIES, is_meant=_may_repeat, dry_run=is_dry(params))
        }


class RequeueRetryJobs(Task):
    """Queues jobs again whose retry is due, and keeps their retry_count. Later retries keep their time."""

    timeout = 0.0

    def run(self, params: JsonObject) -> JsonObject:
        """Returns the number of ``requeued``."""
        refuse_others(params, "dry_run")
        now = current_client().broker.now()

        def is_due(record: JobRecord) -> bool:
            return record.due_at is not None and record.due_at <= now and _may_repeat(record)

        wanted = JobFilter(statuses=(Status.RETRY,), until=begins_after())
        return {"requeued": change_matching(wanted, _KEEP_RETRIES, is_meant=is_due, dry_run=is_dry(params))}


class RequeueStartedJobs(Task):
    """Reports started jobs whose worker is gone, and restores the queue entries that they have lost.

    A job whose lease has ended is claimed again by the next worker of its queue; no job is queued again by
    its age, because it may run. The param ``timeout`` (300 seconds) is the time since the end of the lease
    from which a job counts as ``overdue``: no worker serves its queue.
    """

    timeout = 0.0

    def run(self, params: JsonObject) -> JsonObject:
        """Returns the numbers of ``requeued``, ``started`` and ``overdue``."""
        refuse_others(params, "timeout", "dry_run")
        patience, dry_run = seconds_in(params, "timeout", 300), is_dry(params)
        broker = current_client().broker
        limit = after(broker.now(), -float(patience))
        started = overdue = 0
        for record in _all(broker, JobFilter(statuses=(Status.STARTED,))):
            started += 1
            if record.lease_until is not None and record.lease_until < limit:
                overdue += 1
                if overdue <= _SHOWN:
                    log.warning("no worker claims %s of the queue %s", record.id, record.queue)
        requeued = _lost(broker) if dry_run else sum(len(s.repaired) for s in repair_all(broker))
        return {"requeued": requeued, "started": started, "overdue": overdue}


class RequeueLostJobs(Task):
    """Puts unfinished jobs back into their queues that have lost their entry.

    Jobs lose their entry if queue and records are on two servers, and a process died between its writes to
    the two; or if a Redis server has lost keys. Safe at any time, beside running workers; no running job is
    started twice. With SQLite and MongoDB the task changes nothing.
    """

    timeout = 0.0

    def run(self, params: JsonObject) -> JsonObject:
        """Examines all unfinished jobs, 1,000 at a time. Returns the numbers of ``examined`` and
        ``requeued``: 0 where jobs lose no entry."""
        refuse_others(params, "dry_run")
        broker = current_client().broker
        totals = broker.totals().by_status()
        expected = sum(totals.get(status, 0) for status in UNFINISHED)
        if is_dry(params):
            return {"examined": expected if _repairs(broker) else 0, "requeued": _lost(broker)}
        examined = requeued = 0
        for step in repair_all(broker):
            examined += step.examined
            requeued += len(step.repaired)
            _tell(step)
            if get_current_job() is not None:
                set_current_job_progress(min(1.0, examined / expected) if expected else 1.0)
        return {"examined": examined, "requeued": requeued}


class Prune(Task):
    """Deletes expired jobs with their logs, expired shared state and old metrics, as workers do."""

    timeout = 0.0

    def run(self, params: JsonObject) -> JsonObject:
        """Returns the number of ``removed`` jobs."""
        refuse_others(params, "dry_run")
        broker = current_client().broker
        if is_dry(params):  # totals count expired jobs until they are pruned, and counts do not
            stored = sum(broker.totals().by_status().values())
            return {"removed": max(0, stored - sum(count_records(broker, JobFilter()).values()))}
        removed = 0
        while pruned := broker.prune(CHUNK):
            removed += pruned
        return {"removed": removed}


def _may_repeat(record: JobRecord) -> bool:
    return not record.at_most_once


def _all(broker: Broker, wanted: JobFilter) -> Iterator[JobRecord]:
    cursor = None
    while True:
        page = broker.find(wanted, order=Order.OLDEST_FIRST, cursor=cursor, limit=CHUNK)
        yield from page.records
        cursor = page.cursor
        if cursor is None:
            return


def _repairs(broker: Broker) -> bool:
    """Whether entries can get lost. Brokers that keep them in the records examine no job."""
    return type(broker).repair is not Broker.repair


def _lost(broker: Broker) -> int:
    """The number of waiting jobs without an entry. Costs a read of the queue for each waiting job; nothing
    where a broker keeps record and entry together."""
    if not _repairs(broker):
        return 0
    wanted = JobFilter(statuses=tuple(sorted(WAITING)))
    return sum(
        record.due_at is not None and not record.is_ended and broker.queue_position(record.id) is None
        for record in _all(broker, wanted)
    )


def _tell(step: RepairResult) -> None:
    if step.repaired:
        more = " ..." if len(step.repaired) > _SHOWN else ""
        log.info("%d back in their queues: %s%s", len(step.repaired), " ".join(step.repaired[:_SHOWN]), more)
