"""The meaning of job filters, for drivers that test records themselves."""

from __future__ import annotations

from mrq_core.contract.codec import has_values
from mrq_core.contract.naming import is_covered
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import JobRecord
from mrq_core.contract.terms import has_terms, wanted_terms
from mrq_core.errors import InvalidValue

GROUPS = ("status", "path", "queue", "worker", "exception_type", "error_group")
"""The fields by which `count` can group jobs."""


def matches(record: JobRecord, wanted: JobFilter) -> bool:
    """Whether the record satisfies every given part of the filter."""
    return (
        (not wanted.ids or record.id in wanted.ids)
        and (not wanted.statuses or record.status in wanted.statuses)
        and (not wanted.paths or record.path in wanted.paths)
        and (not wanted.queues or is_covered(record.queue, wanted.queues))
        and (not wanted.workers or record.worker in wanted.workers)
        and (not wanted.schedules or record.schedule in wanted.schedules)
        and (wanted.since is None or record.queued_at >= wanted.since)
        and (wanted.until is None or record.queued_at < wanted.until)
        and has_values(record.params, wanted.params)
        and has_terms(record, wanted_terms(wanted))
    )


def check_group(group_by: str | None) -> None:
    """Raises InvalidValue for a field by which jobs cannot be grouped."""
    if group_by is not None and group_by not in GROUPS:
        raise InvalidValue(
            f"jobs cannot be counted by {group_by!r}: expected one of {', '.join(GROUPS)}", path="group_by"
        )
