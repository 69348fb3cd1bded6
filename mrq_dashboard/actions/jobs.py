"""What is done to one job."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace

from mrq_core.client.handles import Job
from mrq_core.contract.codec import JsonObject
from mrq_core.contract.messages import Action, Cancel, ChangeResult, Move, Remove, Requeue
from mrq_core.contract.naming import check_job_queue_name, raw_kind
from mrq_core.contract.record import JobRecord
from mrq_core.errors import InvalidValue
from mrq_core.operations.changing import change_job
from mrq_core.operations.hidden_params import params_with_secrets
from mrq_core.operations.queries.filters import object_from, seconds_from
from mrq_core.operations.task_descriptions import published_task
from mrq_dashboard.actions.tasks import learn
from mrq_dashboard.inputs import Duration
from mrq_dashboard.visit import Done, Visit

QueueName = Annotated[str, Meta(max_length=1000, description="The name of a queue.")]
Priority = Annotated[int, Meta(ge=-4, le=4, description="Larger first.")]
Delay = Annotated[Duration, Meta(description="Due in this time: 30s, 15m, 2h, 3d; 0 means now.")]
ParamsText = Annotated[str, Meta(max_length=1_048_576, description="The params as text in JSON.")]


NewId = Annotated[str, Meta(pattern="^[0-9a-f]{24}$", description="The id of the new job.")]


class RequeueInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """How to queue the job again."""

    queue: QueueName | None = None


class CancelInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """How to cancel the job."""

    interrupt: Annotated[bool, Meta(description="Also stop it if it is running.")] = False


class MoveInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """Where to move the job."""

    queue: QueueName


class PriorityInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """The new priority."""

    priority: Priority


class EditInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """New values of a waiting job; what is left out stays. `claims` and `edits` are those of the job as it
    was read: the edit is refused if it has changed since."""

    params: JsonObject | ParamsText | None = None
    priority: Priority | None = None
    delay: Delay | None = None
    claims: Annotated[int, Meta(ge=0)] | None = None
    edits: Annotated[int, Meta(ge=0)] | None = None


class RerunInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """The new job; what is left out is as in the job."""

    path: Annotated[str, Meta(min_length=1, max_length=1000, description="The task.")] | None = None
    params: JsonObject | ParamsText | None = None
    queue: QueueName | None = None
    priority: Priority | None = None
    delay: Delay | None = None
    job_id: NewId | None = None


def requeue(visit: Visit, inputs: RequeueInputs) -> Done:
    """Queues a job again that has ended or waits for a retry."""
    queue = None if inputs.queue is None else check_job_queue_name(inputs.queue)
    return _changed(visit, "requeue", Requeue(queue=queue))


def cancel(visit: Visit, inputs: CancelInputs) -> Done:
    """Cancels a job. A running job finishes, but does not run again; with `interrupt` its worker stops it."""
    action = Cancel(interrupt=inputs.interrupt, ttl=visit.config.default_job_cancel_ttl)
    return _changed(visit, "cancel and interrupt" if inputs.interrupt else "cancel", action)


def move(visit: Visit, inputs: MoveInputs) -> Done:
    """Moves a waiting job to another queue; priority and due time stay."""
    return _changed(visit, "move", Move(queue=check_job_queue_name(inputs.queue)))


def remove(visit: Visit) -> Done:
    """Deletes a job with its logs. A running job is refused. This cannot be undone."""
    back = visit.own.get("_back", "")
    done = _changed(visit, "remove", Remove())
    is_own = f"/jobs/{visit.names['id']}" in back  # the page of the job is gone
    return dataclasses.replace(done, url=visit.url("/jobs")) if is_own or not back else done


def priority(visit: Visit, inputs: PriorityInputs) -> Done:
    """Gives a waiting job another priority."""
    job = Job(visit.names["id"], client=visit.client)
    change = job.edit(priority=inputs.priority)
    text = f"Job {job.id} has the priority {inputs.priority}"
    return _done("change priority", job.id, change, text)


def edit(visit: Visit, inputs: EditInputs) -> Done:
    """Changes params, priority or due time of a waiting job."""
    job = Job(visit.names["id"], client=visit.client)
    record = visit.decoded(visit.client.stored(job.id))
    params = _params(inputs.params, record)
    learn(visit, record.path, published_task(visit.broker, record.path))
    delay = None if inputs.delay is None else seconds_from(inputs.delay, name="delay")
    level = inputs.priority
    if inputs.edits is not None:  # a form has all values, also those that stay
        params = None if params == record.params else params
        level = None if level == record.priority else level
        is_given = inputs.params is not None or inputs.priority is not None
        if is_given and params is None and level is None and delay is None:
            raise InvalidValue("the edit changes nothing: the job has these values already", path="params")
    seen = replace(
        record,
        claims=record.claims if inputs.claims is None else inputs.claims,
        edits=record.edits if inputs.edits is None else inputs.edits,
    )
    change = job.edit(params=params, priority=level, delay=delay, seen=seen)
    given = (("params", params), ("priority", level), ("due time", delay))
    names = [name for name, value in given if value is not None]
    return _done("edit", job.id, change, f"Job {job.id} is edited: {', '.join(names)}")


def rerun(visit: Visit, inputs: RerunInputs) -> Done:
    """Queues a new job like this one, with other values where they are given."""
    record = visit.client.fetch(visit.names["id"])
    params = record.params if inputs.params is None else _params(inputs.params, record)
    queue = inputs.queue
    if queue is None and not raw_kind(record.queue):
        queue = record.queue
    path = inputs.path or record.path
    learn(visit, path, published_task(visit.broker, path))
    is_known = inputs.job_id is not None and visit.broker.get([inputs.job_id]) != [None]
    new = visit.client.queue_job(
        path,
        params,
        queue=queue,
        priority=record.priority if inputs.priority is None else inputs.priority,
        delay=None if inputs.delay is None else seconds_from(inputs.delay, name="delay"),
        job_id=inputs.job_id or visit.made_id,
    )
    return Done(
        action="run again",
        target=f"job {record.id} of {record.path}" + (f" as {path}" if path != record.path else ""),
        text=f"Job {new} was there already: no job is queued" if is_known else _queued(new),
        counts={"queued": 0 if is_known else 1},
        value={"id": new, "of": record.id, "created": not is_known},
        tone="warn" if is_known else "",
        url=visit.url(f"/jobs/{new}"),
    )


def _queued(job_id: str) -> str:
    return f"Job {job_id} is queued: this page shows it"


def _params(given: JsonObject | str | None, record: JobRecord) -> JsonObject | None:
    if given is None:
        return None
    value = object_from(given, name="params") if isinstance(given, str) else given
    return params_with_secrets(value, record.params)


def _changed(visit: Visit, verb: str, action: Action) -> Done:
    job_id = visit.names["id"]
    change, text = change_job(visit.broker, job_id, action)
    return _done(verb, job_id, change, text)


def _done(verb: str, job_id: str, change: ChangeResult, text: str) -> Done:
    value: JsonObject = {"id": job_id, "change": str(change)}
    tone = "warn" if change is ChangeResult.UNCHANGED else ""
    return Done(
        action=verb, target=f"job {job_id}", text=text, counts={str(change): 1}, value=value, tone=tone
    )
