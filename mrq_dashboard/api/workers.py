"""Workers as JSON."""

from __future__ import annotations

from mrq_core.contract.codec import JsonObject
from mrq_core.operations.requests import read_answer
from mrq_core.operations.views import worker_view
from mrq_core.operations.workers import find_worker, list_workers
from mrq_dashboard.actions.workers import AnswerInputs, WorkerName, asked, checked_request, the_worker
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


def log(visit: Visit, inputs: WorkerName) -> JsonObject:
    """Asks a worker for the latest lines of its log, up to 500.

    `text` null: it has not answered so far; ask again."""
    name = the_worker(visit, inputs.name).name
    return {"worker": name, "text": asked(visit, name, "log")}


def stack(visit: Visit, inputs: WorkerName) -> JsonObject:
    """Asks a worker for the stacks of its running jobs and its other greenlets.

    `text` null: it has not answered so far; ask again."""
    name = the_worker(visit, inputs.name).name
    return {"worker": name, "text": asked(visit, name, "stack")}


def answer(visit: Visit, inputs: AnswerInputs) -> JsonObject:
    """Shows the answer of a worker to a request, for a minute.

    `state` is `accepted`, `done`, `refused`, or empty without an answer."""
    state, text = read_answer(visit.broker, checked_request(inputs.request))
    return {"request": inputs.request, "state": state, "text": text}
