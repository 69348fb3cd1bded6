"""The log, the stacks and the profile of a worker, as it answers requests for them."""

from __future__ import annotations

from mrq_core.operations.requests import read_answer
from mrq_dashboard.actions.workers import AnswerInputs, WorkerName, asked, checked_request, the_worker
from mrq_dashboard.visit import Page, Visit

_AGAIN = 2
"""Seconds after which a page without an answer is loaded again."""


def log(visit: Visit, inputs: WorkerName) -> Page:
    """The latest log lines of a worker."""
    return _answered(visit, inputs, "log", "Log")


def stack(visit: Visit, inputs: WorkerName) -> Page:
    """The stacks of the running jobs of a worker."""
    return _answered(visit, inputs, "stack", "Stacks")


def answer(visit: Visit, inputs: AnswerInputs) -> Page:
    """The answer to a request for a profile, as soon as there is one."""
    state, text = read_answer(visit.broker, checked_request(inputs.request))
    waits = state in ("", "accepted")
    context = {
        "name": inputs.name,
        "what": "Profile",
        "path": "",
        "text": text,
        "is_waiting": waits,
        "state": {
            "": "The worker has not accepted the request so far, or the answer is over a minute old.",
            "accepted": "The worker waits for the next run of the task, or for its end.",
            "refused": "The worker refuses the request.",
        }.get(state, ""),
    }
    return Page(
        template="workers/answer.html", title=f"Profile of {inputs.name}", context=context,
        refresh=_AGAIN if waits else 0,
    )  # fmt: skip


def _answered(visit: Visit, inputs: WorkerName, kind: str, what: str) -> Page:
    name = the_worker(visit, visit.named(inputs.name)).name
    text = asked(visit, name, kind)
    context = {
        "name": name,
        "what": what,
        "path": f"/worker/{kind}",
        "text": text or "",
        "is_waiting": text is None,
        "state": "The worker has not answered so far: this page asks again." if text is None else "",
    }
    return Page(
        template="workers/answer.html", title=f"{what} of {name}", context=context,
        refresh=_AGAIN if text is None else 0,
    )  # fmt: skip
