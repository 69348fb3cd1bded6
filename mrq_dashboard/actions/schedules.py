"""Runs, pauses, resumes, adds, changes and deletes schedules, and makes up for their earlier fires."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from mrq_core.client.schedules import BACKFILL_MOST, backfill_schedule, run_schedule
from mrq_core.clock import from_ms
from mrq_core.errors import InvalidValue
from mrq_core.operations import schedules as stored_schedules
from mrq_core.operations.queries.filters import moment_from
from mrq_core.operations.schedules import StoredSchedule, digest_of, find_schedule
from mrq_core.operations.task_descriptions import published_task
from mrq_core.operations.views import iso, schedule_view
from mrq_core.scheduler.definitions import trigger_words
from mrq_dashboard.acting import Field, Form, ask
from mrq_dashboard.actions.schedule_forms import EditInputs, ScheduleInputs, definition_in, fields_for
from mrq_dashboard.actions.tasks import learn
from mrq_dashboard.visit import Done, NotFound, Page, Visit

Name = Annotated[str, Meta(max_length=1000, description="The schedule, unless the path names it.")]


class ScheduleName(Struct, frozen=True, forbid_unknown_fields=True):
    """A schedule."""

    name: Name = ""


class PauseInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """A schedule, and why it is paused."""

    name: Name = ""
    why: Annotated[str, Meta(max_length=200, description="The reason, for others.")] = ""


class AddInputs(ScheduleInputs, frozen=True, forbid_unknown_fields=True):
    """A schedule to add."""

    replaces: Annotated[bool, Meta(description="Replace a schedule of this name.")] = False


class BackfillInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """A schedule, and the time for whose fires jobs are queued."""

    start: Annotated[
        str, Meta(min_length=1, max_length=100, description="A time in ISO 8601, or how long ago: 2h, 3d.")
    ]
    end: Annotated[str, Meta(max_length=100, description="The end, as `start`, or `now`.")] = "now"
    name: Name = ""


def run(visit: Visit, inputs: ScheduleName) -> Done:
    """Queues a job of a schedule now, also if it is paused. Its next fire stays.

    `created` false: its overlap policy keeps the job `id`, and no job was queued."""
    stored = _found(visit, inputs.name)
    name, path = stored.name, stored.definition.path
    learn(visit, path, published_task(visit.broker, path))
    answer = run_schedule(visit.client, name, job_id=visit.made_id)
    text = f"The schedule {name} has queued the job {answer.id}"
    if not answer.created:
        text = f"No job was queued: the overlap policy of {name} keeps the job {answer.id}"
    return Done(
        action="run schedule", target=name, text=text, tone="" if answer.created else "warn",
        counts={"queued": int(answer.created)}, value={"id": answer.id, "created": answer.created},
    )  # fmt: skip


def pause(visit: Visit, inputs: PauseInputs) -> Done:
    """Pauses a schedule until it is resumed. Its jobs go on."""
    name = _found(visit, inputs.name).name
    changed = stored_schedules.pause_schedules(visit.broker, [name], why=inputs.why.strip())
    text = f"The schedule {name} is paused" if changed else f"The schedule {name} was paused already"
    return _changed("pause schedule", name, text, bool(changed))


def resume(visit: Visit, inputs: ScheduleName) -> Done:
    """Resumes a schedule, or restores a deleted schedule of a config. Fires of the pause are left out."""
    name = visit.named(inputs.name)
    try:
        changed = stored_schedules.resume_schedules(visit.broker, [name])
    except InvalidValue as error:
        raise NotFound(str(error)) from error
    text = f"The schedule {name} is resumed" if changed else f"The schedule {name} was not paused"
    return _changed("resume schedule", name, text, bool(changed))


def add(visit: Visit, inputs: AddInputs) -> Done:
    """Adds a schedule. It stays until it is deleted, unless a config has a schedule of its name."""
    definition = definition_in(inputs)
    stored = stored_schedules.add_schedule(visit.broker, definition, replaces=inputs.replaces)
    return _defined(visit, "add schedule", stored)


def edit(visit: Visit, inputs: EditInputs) -> Done:
    """Changes a schedule: the keys replace all earlier ones. Its counts stay, and its next fire if its times
    stay.

    The next start of a scheduler restores a schedule of a config."""
    before = _found(visit, inputs.name)
    definition = definition_in(inputs, before.definition)
    seen = inputs.seen or digest_of(before.definition)
    stored = stored_schedules.add_schedule(visit.broker, definition, replaces=True, seen=seen)
    return _defined(visit, "edit schedule", stored)


def delete(visit: Visit, inputs: ScheduleName) -> Done:
    """Deletes a schedule. Its jobs stay. A schedule of a config stays deleted until it is resumed."""
    name = _found(visit, inputs.name).name
    changed = stored_schedules.delete_schedules(visit.broker, [name])
    text = f"The schedule {name} is deleted" if changed else f"The schedule {name} was deleted meanwhile"
    if any(stored.source == "config" for stored in changed):
        text += "; the config still has it: delete it there, too"
    done = _changed("delete schedule", name, text, bool(changed))
    return Done(
        action=done.action, target=name, text=text, counts=done.counts, value=done.value,
        url=visit.url("/schedules"),
    )  # fmt: skip


def backfill(visit: Visit, inputs: BackfillInputs) -> Done:
    """Queues a job for each fire of a schedule in a past time, at most 10,000, also if it is paused.

    A fire whose job is stored makes no second job. Where the overlap policy is not allow, they run one by
    one."""
    stored = _found(visit, inputs.name)
    name, path = stored.name, stored.definition.path
    now = visit.now
    start = moment_from(inputs.start, now=now, name="start")
    is_now = inputs.end.strip() in ("", "now")
    end = now if is_now else moment_from(inputs.end, now=now, name="end")
    learn(visit, path, published_task(visit.broker, path))
    try:
        answers = backfill_schedule(visit.client, name, start, end)
    except InvalidValue as error:
        path = {"to": "end", "from": "start"}.get(error.path, error.path)
        raise InvalidValue(str(error), path=path) from error
    made = sum(answer.created for answer in answers)
    known = len(answers) - made
    text = f"The schedule {name} has queued {made:,} job{'' if made == 1 else 's'} for earlier fires"
    if known:
        text += f"; {known:,} fire{'' if known == 1 else 's'} had a job"
    return Done(
        action="backfill schedule", target=f"{name} from {iso(start)} to {iso(end)}", text=text,
        counts={"queued": made, "known": known}, value={"queued": made, "known": known},
    )  # fmt: skip


def _found(visit: Visit, given: str) -> StoredSchedule:
    """The schedule that the path or the inputs name. Raises NotFound."""
    name = visit.named(given)
    try:
        return find_schedule(visit.broker, name)
    except InvalidValue as error:
        raise NotFound(str(error)) from error


def _changed(action: str, name: str, text: str, is_changed: bool) -> Done:
    return Done(
        action=action, target=name, text=text, tone="" if is_changed else "warn",
        counts={"changed": int(is_changed)}, value={"name": name, "changed": is_changed},
    )  # fmt: skip


def _defined(visit: Visit, action: str, stored: StoredSchedule) -> Done:
    next_fire = from_ms(stored.next_fire) if stored.fires and stored.next_fire is not None else None
    what = "added" if action.startswith("add") else "changed"
    fires = f"it fires next at {next_fire:%Y-%m-%d %H:%M:%S} UTC" if next_fire else "it does not fire"
    return Done(
        action=action, target=f"{stored.name}: {stored.definition.path}, {trigger_words(stored.definition)}",
        text=f"The schedule {stored.name} is {what}: {fires}", value=schedule_view(stored),
        url=visit.url("/schedules", name=stored.name),
    )  # fmt: skip


# --- asking ---------------------------------------------------------------------------------


def ask_pause(visit: Visit, inputs: ScheduleName) -> Page:
    """Asks why a schedule is paused."""
    stored = _found(visit, inputs.name)
    form = Form(
        title=f"Pause the schedule {stored.name}?",
        path="/schedule/pause",
        button="Pause",
        text=["It does not fire until it is resumed; fires of the pause are left out. Its jobs go on."],
        fields=[Field(name="why", label="Why", is_wide=True, hint="Shown on this page.", most=200)],
        hidden={"name": stored.name},
    )
    return ask(visit, form, back="/schedules")


def ask_add(visit: Visit) -> Page:
    """Asks for the keys of a new schedule."""
    form = Form(
        title="Add a schedule", path="/schedule/add", button="Add the schedule", fields=fields_for(None)
    )
    return ask(visit, form, back="/schedules")


def ask_edit(visit: Visit, inputs: ScheduleName) -> Page:
    """Shows the keys of a schedule, to be changed."""
    stored = _found(visit, inputs.name)
    is_of_config = stored.source == "config"
    text = "The config defines this schedule: the next start of a scheduler restores it."
    form = Form(
        title=f"Change the schedule {stored.name}",
        path="/schedule/edit",
        button="Change the schedule",
        text=[text] if is_of_config else [],
        fields=fields_for(stored.definition),
        hidden={"name": stored.name, "seen": digest_of(stored.definition)},
    )
    return ask(visit, form, back="/schedules")


def ask_delete(visit: Visit, inputs: ScheduleName) -> Page:
    """Asks whether a schedule shall be deleted."""
    stored = _found(visit, inputs.name)
    texts = [f"It fires {trigger_words(stored.definition)}. Its jobs stay."]
    if stored.source == "config":
        texts.append("The config still has it: here it stays deleted until it is resumed.")
    form = Form(
        title=f"Delete the schedule {stored.name}?",
        path="/schedule/delete",
        button="Delete the schedule",
        text=texts,
        hidden={"name": stored.name},
        is_dangerous=True,
    )
    return ask(visit, form, back="/schedules")


def ask_backfill(visit: Visit, inputs: ScheduleName) -> Page:
    """Asks for the time of the fires."""
    stored = _found(visit, inputs.name)
    form = Form(
        title=f"Backfill {stored.name}",
        path="/schedule/backfill",
        button="Queue the jobs",
        text=[
            f"Queues a job for each of its fires in a past time, at most {BACKFILL_MOST:,}.",
            "A fire whose job is stored makes no second job.",
        ],
        fields=[
            Field(name="start", label="From", hint="A time in UTC, or how long ago: 3d.", required=True,
                  most=40),
            Field(name="end", label="To", value="now", hint="A time (UTC), how long ago, or now.", most=40),
        ],
        hidden={"name": stored.name},
    )  # fmt: skip
    return ask(visit, form, back="/schedules")
