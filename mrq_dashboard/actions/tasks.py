"""Pauses and resumes tasks, and queues their jobs by the arguments that workers have published."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from mrq_core.contract.codec import JsonObject
from mrq_core.contract.values import check_path
from mrq_core.errors import InvalidValue
from mrq_core.operations.hidden_params import params_with_secrets
from mrq_core.operations.queries.filters import object_from, seconds_from, time_from
from mrq_core.operations.queues import pause_tasks, resume_tasks
from mrq_core.operations.task_descriptions import published_task
from mrq_core.operations.task_forms import (
    ArgumentField,
    FieldKind,
    check_params,
    fields_of,
    params_from_texts,
)
from mrq_core.operations.views import iso
from mrq_core.tasks.describing import TaskDescription
from mrq_dashboard.acting import Field, Form, ask
from mrq_dashboard.actions import pauses
from mrq_dashboard.inputs import Duration
from mrq_dashboard.visit import Done, Page, Visit

Path = Annotated[str, Meta(max_length=1000, description="The path of the task, unless the address has it.")]
_MOST_TEXT = 1_000_000
_MOST_DEFAULT = 100
"""Characters of a default that a form shows."""


class TaskPath(Struct, frozen=True, forbid_unknown_fields=True):
    """A task."""

    path: Path = ""


class PauseInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """A task, and the end of its pause. Without an end, the pause lasts until it is resumed."""

    path: Path = ""
    until: pauses.Until = ""
    duration: pauses.Length = ""


class QueueInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """A job to queue. `params` is an object, or its JSON text; `argument` has texts as a form sends them."""

    path: Path = ""
    params: Annotated[dict | str, Meta(description="The params, by argument.")] = ""  # type: ignore[type-arg]
    argument: Annotated[
        dict[str, str], Meta(description="Arguments as the texts of form fields, which win over `params`.")
    ] = {}
    queue: Annotated[str, Meta(max_length=1000, description="Its queue. Default: that of the task.")] = ""
    priority: (
        Annotated[int, Meta(ge=-4, le=4, description="Its priority; larger first. Default: of the task.")]
        | None
    ) = None
    delay: Annotated[Duration, Meta(description="It becomes due in 30s, 15m, 2h or 3d.")] = ""
    at: Annotated[str, Meta(max_length=100, description="It becomes due at this time, in ISO 8601.")] = ""


def pause(visit: Visit, inputs: PauseInputs) -> Done:
    """Pauses a task in all queues: workers start none of its jobs, and running jobs go on.

    A further pause changes the end of the first."""
    path = check_path(visit.named(inputs.path, "path"))
    end = pause_tasks(visit.broker, [path], until=pauses.end_of(visit, inputs.until, inputs.duration))
    text = f"The task {path} is paused{pauses.until_words(end)}"
    return Done(action="pause task", target=path, text=text, value={"path": path, "until": iso(end)})


def resume(visit: Visit, inputs: TaskPath) -> Done:
    """Resumes a paused task. Its jobs go on in bounded steps."""
    path = check_path(visit.named(inputs.path, "path"))
    resumed = bool(resume_tasks(visit.broker, [path]).resumed)
    text = f"The task {path} is resumed" if resumed else f"The task {path} was not paused"
    return Done(
        action="resume task", target=path, text=text, tone="" if resumed else "warn",
        counts={"resumed": int(resumed)}, value={"path": path, "resumed": resumed},
    )  # fmt: skip


def queue(visit: Visit, inputs: QueueInputs) -> Done:
    """Queues a job of a task. The params are checked by the arguments that workers have published.

    Tasks need not be installed here: options come from the code if this process finds it, and else from what
    workers have published."""
    path = check_path(visit.named(inputs.path, "path"))
    described = published_task(visit.broker, path)
    params = inputs.params
    is_form = isinstance(params, str)
    if isinstance(params, str):
        params = object_from(params, name="params") if params.strip() else {}
    given = params_with_secrets({**params, **params_from_texts(described, inputs.argument)}, {})
    check_params(described, given, where="argument" if is_form else "params")
    if inputs.delay != "" and inputs.at:
        raise InvalidValue("delay and at are both given: expected one of them", path="at")
    learn(visit, path, described)
    job_id = visit.client.queue_job(
        path,
        given,
        queue=inputs.queue or None,
        priority=inputs.priority,
        delay=seconds_from(inputs.delay, name="delay") if inputs.delay != "" else None,
        at=time_from(inputs.at, name="at") if inputs.at else None,
        job_id=visit.made_id,
    )
    text = f"A job of {path} is queued: {job_id}"
    url = visit.url(f"/jobs/{job_id}")
    return Done(
        action="queue job", target=f"{path} {job_id}", text=text, counts={"queued": 1}, value={"id": job_id},
        url=url,
    )  # fmt: skip


def learn(visit: Visit, path: str, described: TaskDescription | None) -> None:
    """Makes jobs of the task as its workers would, where its code is not installed here."""
    if described is not None:
        visit.client.learn_options(path, described.options)


# --- asking ---------------------------------------------------------------------------------


def ask_pause(visit: Visit, inputs: TaskPath) -> Page:
    """Asks for the end of a pause."""
    path = check_path(visit.named(inputs.path, "path"))
    form = Form(
        title=f"Pause the task {path}?",
        path="/task/pause",
        button="Pause",
        text=["Workers start none of its jobs, in any queue. Running jobs go on."],
        fields=pauses.FIELDS,
        hidden={"path": path},
    )
    return ask(visit, form, back=f"/tasks/{path}")


def ask_queue(visit: Visit, inputs: TaskPath) -> Page:
    """Asks for the arguments of a job, as far as workers have published them."""
    path = check_path(visit.named(inputs.path, "path"))
    described = published_task(visit.broker, path)
    options: JsonObject = described.options if described is not None else {}
    fields = [_field(one) for one in fields_of(described)] if described is not None else []
    takes_all = described is None or described.arguments is None
    if takes_all or (described is not None and described.takes_more):
        label = "Params" if takes_all else "Further arguments"
        hint = 'A JSON object, such as {"user": 17}. Empty: none.'
        fields.append(Field(name="params", label=label, kind="area", hint=hint, most=_MOST_TEXT))
    fields += [
        Field(
            name="queue", label="Queue", is_wide=True, most=200,
            hint=f"Empty: {options.get('queue') or 'default'}.",
        ),
        Field(
            name="priority", label="Priority", kind="number", low=-4, high=4,
            hint=f"-4 to 4, larger first. Empty: {options.get('priority') or 0}.",
        ),
        Field(name="delay", label="Due in", most=20, hint="30s, 15m, 2h or 3d. Empty: at once."),
    ]  # fmt: skip
    text = [] if described is not None else ["No worker has published this task: its arguments are unknown."]
    if described is not None and described.arguments == () and not described.takes_more:
        text = ["The task takes no arguments."]
    form = Form(
        title=f"Queue a job of {path}", path="/task/queue", button="Queue the job", text=text, fields=fields,
        hidden={"path": path},
    )  # fmt: skip
    return ask(visit, form, back=f"/tasks/{path}")


def _field(one: ArgumentField) -> Field:
    default = "" if one.default is None else f", {_bounded(one.default)} if empty"
    choices = ("true", "false") if one.kind is FieldKind.SWITCH else one.choices
    form = {FieldKind.JSON: ", as JSON", FieldKind.ANY: ", as JSON or text"}.get(one.kind, "")
    return Field(
        name=f"argument.{one.name}",
        label=one.name,
        kind="select" if choices else "text",
        hint=f"{one.type}{form}{default}",
        options=[("", "choose" if one.required else "default"), *((choice, choice) for choice in choices)]
        if choices
        else (),
        required=one.required and not choices,
        most=_MOST_TEXT,
    )


def _bounded(text: str) -> str:
    return text if len(text) <= _MOST_DEFAULT else f"{text[: _MOST_DEFAULT - 3]}..."
