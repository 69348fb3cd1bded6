"""The pages of workers: all of the last hour, and one."""

from __future__ import annotations

import difflib

from mrq_core.contract.naming import shown_names
from mrq_core.operations.queries.query_parts import exact_value
from mrq_core.operations.running_jobs import NOT_TRACED
from mrq_core.operations.workers import WorkerReport, find_workers, list_workers
from mrq_dashboard.charts import sparkline
from mrq_dashboard.visit import NotFound, Page, Redirect, Visit

_MOST_ROWS = 500
"""Workers that the list shows."""


def workers(visit: Visit) -> Page:
    """The workers of the last hour: dead ones first, then those at work, then stopped ones."""
    reports = sorted(list_workers(visit.broker), key=_order)
    at_work = [report for report in reports if report.is_at_work]
    slots = sum(report.greenlets for report in at_work)
    context = {
        "rows": [(report, sparkline(report.memory_history)) for report in reports[:_MOST_ROWS]],
        "left_out": max(0, len(reports) - _MOST_ROWS),
        "at_work": len(at_work),
        "dead": sum(report.status == "dead" for report in reports),
        "busy": sum(report.busy for report in at_work),
        "greenlets": slots,
        "usage": sum(report.usage * report.greenlets for report in at_work) / slots if slots else None,
        "memory": sum(report.memory for report in at_work),
        "cpu": sum(report.cpu for report in at_work),
    }
    return Page(template="workers/list.html", title="Workers", context=context)


def worker(visit: Visit) -> Page | Redirect:
    """One worker, by its name; a NAME or a host that only one worker has leads to it."""
    name = visit.names["id"]
    found = find_workers(visit.broker, name)
    if len(found) == 1 and found[0].name != name:
        return Redirect(url=visit.url(f"/workers/{found[0].name}"))
    if len(found) > 1:
        listed = shown_names([report.name for report in found[:10]])
        raise NotFound(f"{len(found)} workers are named {name!r}: open one of {listed}")
    if not found:
        names = [report.name for report in list_workers(visit.broker)]
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise NotFound(f"no worker named {name!r} has reported in the last hour{hint}")
    report = found[0]
    context = {
        "report": report,
        "memory": sparkline(report.memory_history),
        "cpu": sparkline(report.cpu_history),
        "not_traced": NOT_TRACED,
        "query": f"worker:{exact_value(report.name)}",
    }
    return Page(template="workers/one.html", title=f"Worker {report.name}", context=context)


def _order(report: WorkerReport) -> tuple[int, str]:
    return {"dead": 0, "stop": 2}.get(report.status, 1), report.name
