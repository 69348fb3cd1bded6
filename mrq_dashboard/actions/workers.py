"""Asks workers to stop, to drain, and for the profile of a task."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from mrq_core.contract.codec import JsonValue
from mrq_core.contract.values import check_job_id, check_path
from mrq_core.errors import InvalidValue, RequestFailed
from mrq_core.operations.queries.filters import duration_from
from mrq_core.operations.requests import ask_worker, send_request
from mrq_core.operations.workers import STOPPED, WorkerReport, only_worker
from mrq_dashboard.acting import Field, Form, ask
from mrq_dashboard.inputs import Duration
from mrq_dashboard.visit import Done, NotFound, Page, Visit

_VALID = 60.0
"""Seconds in which a worker that is suspended, or cannot reach the broker, may still obey."""
_PATIENCE = 1.5
"""An action waits for this multiple of DASHBOARD_TIMEOUT: a worker that runs answers within 2 s."""
_READ_VALID = 5.0
"""Seconds in which a request is carried out."""
_READ_PATIENCE = 0.7
"""The share of DASHBOARD_TIMEOUT for which a page waits for the answer."""
Name = Annotated[
    str, Meta(max_length=1000, description="The worker, its NAME, or its host, unless the path names it.")
]


class WorkerName(Struct, frozen=True, forbid_unknown_fields=True):
    """A worker."""

    name: Name = ""


class StopInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """A worker, and whether its running jobs are interrupted at once."""

    name: Name = ""
    now: Annotated[bool, Meta(description="Interrupt running jobs at once, without STOP_GRACE.")] = False


class ProfileInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """A worker, and the task of which it profiles the next run."""

    task: Annotated[str, Meta(min_length=1, max_length=1000, description="The path of the task.")]
    name: Name = ""
    seconds: Annotated[Duration, Meta(description="The end of the request: in 1s to 1h.")] = "1m"


class AnswerInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """A request to a worker."""

    request: Annotated[str, Meta(max_length=100, description="The id of the request.")]
    name: Annotated[str, Meta(max_length=1000, description="The worker.")] = ""


def stop(visit: Visit, inputs: StopInputs) -> Done:
    """Stops a worker: its running jobs have STOP_GRACE seconds, and are then interrupted; with `now` at once.

    `answered` false: the worker has not answered so far, and obeys if it can within a minute."""
    report = the_worker(visit, visit.named(inputs.name))
    return _asked(visit, report, "stop", {"now": True} if inputs.now else {})


def drain(visit: Visit, inputs: WorkerName) -> Done:
    """Drains a worker: it claims nothing more, finishes its running jobs, and ends.

    `answered` false: the worker has not answered so far, and obeys if it can within a minute."""
    return _asked(visit, the_worker(visit, visit.named(inputs.name)), "drain", {})


def profile(visit: Visit, inputs: ProfileInputs) -> Done:
    """Has a worker profile the next run of a task.

    `/api/worker/answer` has the profile when the run has ended, for a minute."""
    report = the_worker(visit, visit.named(inputs.name))
    path = check_path(inputs.task)
    seconds = duration_from(inputs.seconds, name="seconds", least=1, most=3600)
    if not report.is_at_work:
        state = "has stopped" if report.status == STOPPED else "is dead: it does not report"
        raise RequestFailed(f"the worker {report.name} {state}")
    request = send_request(visit.broker, report.name, "profile", {"task": path}, seconds)
    return Done(
        action="profile worker",
        target=f"{report.name}: {path}",
        text=f"The worker {report.name} profiles the next run of {path}",
        value={"worker": report.name, "request": request.id},
        url=visit.url("/worker/answer", name=report.name, request=request.id),
    )


def the_worker(visit: Visit, name: str) -> WorkerReport:
    """The only worker with this name, NAME or host. Raises NotFound."""
    try:
        return only_worker(visit.broker, name)
    except RequestFailed as error:
        raise NotFound(str(error)) from error


def _asked(visit: Visit, report: WorkerReport, kind: str, args: dict[str, JsonValue]) -> Done:
    patience = _PATIENCE * visit.config.dashboard_timeout
    answer = ask_worker(visit.broker, report.name, kind, args, ttl=_VALID, patience=patience)
    text = f"{report.name}: {answer}"
    if answer is None:
        text = (
            f"The worker {report.name} was asked to {kind} and has not answered so far: it obeys if it "
            f"reaches the broker within {_VALID:g} s"
        )
    return Done(
        action=f"{kind} worker" + (" now" if args else ""), target=report.name, text=text,
        tone="" if answer is not None else "warn",
        value={"worker": report.name, "answered": answer is not None, "answer": answer},
    )  # fmt: skip


# --- reading --------------------------------------------------------------------------------


def checked_request(text: str) -> str:
    """The id of a request. Raises InvalidValue."""
    try:
        return check_job_id(text)
    except InvalidValue as error:
        raise InvalidValue(
            f"request is {text[:40]!r}: expected the id of a request", path="request"
        ) from error


def asked(visit: Visit, name: str, kind: str) -> str | None:
    """The answer of the worker, if it answers in time. None: it has not answered so far."""
    patience = _READ_PATIENCE * visit.config.dashboard_timeout
    return ask_worker(visit.broker, name, kind, ttl=_READ_VALID, patience=patience)


# --- asking ---------------------------------------------------------------------------------


def ask_stop(visit: Visit, inputs: WorkerName) -> Page:
    """Asks how a worker shall stop."""
    report = the_worker(visit, visit.named(inputs.name))
    now = Field(
        name="now", label="Interrupt running jobs at once", kind="check", hint="Otherwise after STOP_GRACE."
    )
    form = Form(
        title=f"Stop the worker {report.name}?",
        path="/worker/stop",
        button="Stop the worker",
        text=[_running(report), "A supervisor may start it again. Interrupted jobs run again elsewhere."],
        fields=[now],
        hidden={"name": report.name},
        is_dangerous=True,
    )
    return ask(visit, form, back="/workers")


def ask_drain(visit: Visit, inputs: WorkerName) -> Page:
    """Asks whether a worker shall finish its jobs and end."""
    report = the_worker(visit, visit.named(inputs.name))
    form = Form(
        title=f"Drain the worker {report.name}?",
        path="/worker/drain",
        button="Drain the worker",
        text=[
            _running(report),
            "It claims nothing more, finishes its running jobs, and ends. A supervisor may start it again.",
        ],
        hidden={"name": report.name},
    )
    return ask(visit, form, back="/workers")


def ask_profile(visit: Visit, inputs: WorkerName) -> Page:
    """Asks which task a worker shall profile."""
    report = the_worker(visit, visit.named(inputs.name))
    tasks = sorted({job.path for job in report.running})
    form = Form(
        title=f"Profile a task in {report.name}",
        path="/worker/profile",
        button="Profile its next run",
        text=["The next run of the task that begins in this worker is profiled."],
        fields=[
            Field(
                name="task",
                label="Task",
                is_wide=True,
                value=tasks[0] if tasks else "",
                required=True,
                most=1000,
            ),
            Field(name="seconds", label="Wait for at most", value="1m", hint="1s to 1h.", most=20),
        ],
        hidden={"name": report.name},
    )
    return ask(visit, form, back="/workers")


def _running(report: WorkerReport) -> str:
    return (
        "It runs no job."
        if not report.busy
        else f"It runs {report.busy:,} job{'' if report.busy == 1 else 's'}."
    )
