"""Workers as JSON."""

from __future__ import annotations

from mrq_core.contract.codec import JsonObject
from mrq_core.operations.views import worker_view
from mrq_core.operations.workers import find_worker, list_workers
from mrq_dashboard.visit import NotFound, Visit


def list_all(visit: Visit) -> JsonObject:
    """Lists the workers of the last hour, also stopped and dead ones."""
    return {"workers": [worker_view(report) for report in list_workers(visit.broker)]}


def show(visit: Visit) -> JsonObject:
    """Shows the latest report of a worker."""
    name = visit.names["name"]
    report = find_worker(visit.broker, name)
    if report is None:
        raise NotFound(f"there is no worker {name}: a stopped worker is listed for an hour")
    return worker_view(report)
