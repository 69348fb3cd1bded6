"""The finding of `mrq check` about jobs whose stored data cannot be read; see `mrq_core.drivers.damage`."""

from __future__ import annotations

from mrq_core.contract.broker import Broker
from mrq_core.contract.lifecycle import DAMAGED
from mrq_core.contract.queries import Finding, JobFilter
from mrq_core.contract.record import UNFINISHED

_PAGE = 500
_SHOWN = 5


def damaged_findings(broker: Broker, *, reads_all: bool = False) -> list[Finding]:
    """Names the jobs that were set aside because they cannot be read.

    Reads all unfinished jobs first, or all jobs, because a job is set aside by the first call that reads it.
    """
    _read(broker, JobFilter() if reads_all else JobFilter(statuses=UNFINISHED))
    wanted = JobFilter(exception_types=(DAMAGED,))
    page = broker.find(wanted, limit=_SHOWN)
    ids = [record.id for record in page.records]
    if not ids:
        return []
    more = " and others" if page.cursor is not None else ""
    return [
        Finding(
            level="warning",
            subject="damaged jobs",
            message=f"the stored data of these jobs cannot be read: {', '.join(ids)}{more}",
            advice="`mrq jobs show ID` shows the error and the damaged data. `mrq jobs remove ID` deletes "
            "the job, and `mrq jobs requeue ID` runs it with its stored params.",
        )
    ]


def _read(broker: Broker, wanted: JobFilter) -> None:
    cursor = None
    while True:
        cursor = broker.find(wanted, cursor=cursor, limit=_PAGE).cursor
        if cursor is None:
            return
