"""Workers as JSON."""

from __future__ import annotations

from mrq_core.contract.codec import JsonObject
from mrq_core.operations.requests import read_answer
from mrq_core.operations.views import worker_view
from mrq_core.operations.workers import list_workers
from mrq_dashboard.actions.workers import AnswerInputs, WorkerName, asked, checked_request, the_worker
from mrq_dashboard.visit import Visit


def list_all(visit: Visit) -> JsonObject:
    """Lists the workers of the last hour, also stopped and dead ones."""
    return {"workers": [worker_view(report) for report in list_workers(visit.broker)]}


def show(visit: Visit) -> JsonObject:
    """Shows the latest report of a worker, by its full name, or by a NAME or host that one worker has."""
    return worker_view(the_worker(visit, visit.names["name"]))


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
