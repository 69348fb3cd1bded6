"""Small counters of an installation, and which of them changed: what pages that stay open ask each second."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from mrq_core.contract.broker import Broker
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import JobRecord
from mrq_core.contract.shared_state import Versions
from mrq_core.errors import JobNotFound
from mrq_core.operations.bulk.bulk_actions import BULK_NAMESPACE
from mrq_core.operations.jobs import read_log_tail
from mrq_core.operations.schedules import SCHEDULERS, SCHEDULES
from mrq_core.operations.workers import list_workers

MOST_QUEUES = 200
"""The queues, first by name, whose counts are compared. Jobs of other queues change the topic `jobs` only."""
_READER = "dashboard"
"""The name under which rules are polled. No worker has it: each worker's name contains its host."""
_MOST_LINES = 1000


class Counters(NamedTuple):
    """One reading. The names of the fields are the topics."""

    jobs: Any
    tasks: Any
    exceptions: Any
    queues: Any
    workers: Any
    schedules: Any
    rules: Versions
    bulk: Any

    def differences(self, before: Counters) -> frozenset[str]:
        """The topics that changed since the reading before."""
        pairs = zip(self._fields, self, before, strict=True)
        return frozenset(name for name, new, old in pairs if new != old)


class JobState(NamedTuple):
    """A job as a watcher knows it. `record` None: the job does not exist. `cursor` continues its log."""

    record: JobRecord | None
    cursor: str | None

    def differences(self, before: JobState) -> frozenset[str]:
        """The topics that changed since the state before: `job`, `log`."""
        pairs = zip(("job", "log"), self, before, strict=True)
        return frozenset(name for name, new, old in pairs if new != old)


def read_counters(broker: Broker, before: Counters | None) -> Counters:
    """A reading, which costs what totals, the counts of MOST_QUEUES queues, and the lists of workers and
    schedules cost. The reading before makes the rules cheap."""
    totals = broker.totals()
    newest = broker.find(JobFilter(), limit=1).records
    names = broker.queue_names(limit=MOST_QUEUES)
    polled = broker.poll(_READER, before.rules if before else Versions())
    items = [(item.name, item.version) for item in broker.state.list(SCHEDULES)]
    return Counters(
        jobs=(totals.by_status(), totals.by_queue, newest[0].id if newest else None),
        tasks=totals.by_path,
        exceptions=totals.by_error_group,
        queues=broker.counts(names) if names else [],
        workers=[(one.name, one.reported_at, one.status) for one in list_workers(broker)],
        schedules=(items, [item.name for item in broker.state.list(SCHEDULERS)]),
        rules=polled.versions,
        bulk=[(item.name, item.version) for item in broker.state.list(BULK_NAMESPACE)],
    )


def read_job_states(
    broker: Broker, ids: Iterable[str], before: Mapping[str, JobState]
) -> dict[str, JobState]:
    """The states of up to CHUNK jobs. One read for all, and one of the log of each."""
    wanted = list(ids)
    records = broker.get(wanted) if wanted else []
    return {
        job_id: JobState(record, _end_of_log(broker, record, before.get(job_id)) if record else None)
        for job_id, record in zip(wanted, records, strict=True)
    }


def _end_of_log(broker: Broker, record: JobRecord, before: JobState | None) -> str | None:
    try:
        if before is None or before.cursor is None:
            return read_log_tail(broker, record.id, record.claims, 1).cursor
        cursor = before.cursor
        while True:
            page = broker.read_logs(record.id, cursor=cursor, limit=_MOST_LINES)
            cursor = page.cursor
            if len(page.lines) < _MOST_LINES:
                return cursor
    except JobNotFound:  # removed since its record was read
        return None
