"""The pages that ask before something is done to one job."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mrq_core.contract.messages import Cancel, Move, Remove, Requeue
from mrq_core.contract.naming import raw_kind
from mrq_core.contract.record import ENDED, JobRecord
from mrq_core.ids import new_id
from mrq_core.operations.actions import Change, SetPriority, allows
from mrq_core.operations.views import redacted
from mrq_dashboard.acting import Field, Form, ask
from mrq_dashboard.auth import Role
from mrq_dashboard.formats import json_source
from mrq_dashboard.visit import Page, Visit

_LEVELS = tuple((str(level), f"{level:+d}" if level else "0") for level in range(4, -5, -1))
_DUE = "Such as 30s, 15m, 2h or 3d; 0: now. Empty: unchanged."


class JobAction(NamedTuple):
    """An action on the page of a job. `is_possible`: the status of the job allows it."""

    verb: str
    words: str
    icon: str
    is_possible: bool
    is_dangerous: bool = False


_CHANGES: dict[str, Change] = {
    "requeue": Requeue(),
    "cancel": Cancel(),
    "move": Move(queue=""),
    "priority": SetPriority(priority=0),
    "edit": SetPriority(priority=0),
    "remove": Remove(),
}
_WORDS = {"requeue": "Requeue", "cancel": "Cancel", "move": "Move", "priority": "Priority", "edit": "Edit",
          "rerun": "Run again", "remove": "Delete"}  # fmt: skip
_ICONS = {"requeue": "retry", "cancel": "ban", "rerun": "play"}
_NEED_WRITE = frozenset({"edit", "rerun", "remove"})


def actions_of(visit: Visit, record: JobRecord) -> list[JobAction]:
    """The actions that the visitor's role allows, always in the same order, so that nothing moves."""
    if visit.visitor.role < Role.OPERATE:
        return []
    return [
        JobAction(verb, words, _ICONS.get(verb, ""), _is_possible(visit, record, verb), verb == "remove")
        for verb, words in _WORDS.items()
        if verb not in _NEED_WRITE or visit.visitor.role >= Role.WRITE
    ]


def _is_possible(visit: Visit, record: JobRecord, verb: str) -> bool:
    return verb == "rerun" or allows(_CHANGES[verb], record.status, visit.now)


def _asks(verb: str, doc: str) -> Callable[[Visit], Page]:
    def ask_it(visit: Visit) -> Page:
        stored = visit.client.stored(visit.names["id"])
        # Of params that cannot be decoded no other job is made.
        record = visit.client.decoded(stored) if verb == "rerun" else visit.decoded(stored)
        page = f"/jobs/{record.id}"
        if _is_possible(visit, record, verb):
            return ask(visit, _FORMS[verb](record, f"{page}/{verb}"), back=page)
        ended = "it has ended as" if record.status in ENDED else "its status is"
        text = (f"The job does not allow this now: {ended} {record.status}.",)
        form = Form(title=_WORDS[verb], path=f"{page}/{verb}", button="", text=text, is_possible=False)
        return ask(visit, form, back=page)

    ask_it.__doc__ = doc
    return ask_it


ask_requeue = _asks("requeue", "Asks before a job is queued again.")
ask_cancel = _asks("cancel", "Asks before a job is cancelled.")
ask_move = _asks("move", "Asks where to move a job.")
ask_priority = _asks("priority", "Asks for the new priority of a job.")
ask_edit = _asks("edit", "Asks for new params, priority and due time of a waiting job.")
ask_rerun = _asks("rerun", "Asks for the values of a new job like this one.")
ask_remove = _asks("remove", "Asks before a job is deleted.")


def _requeue(record: JobRecord, path: str) -> Form:
    text = (f"{record.path} runs again. Its attempts so far stay in its history.",)
    hint = f"Empty: {record.queue}."
    fields = (Field(name="queue", label="On the queue", is_wide=True, most=1000, hint=hint),)
    return Form(title="Requeue this job", path=path, button="Requeue", text=text, fields=fields)


def _cancel(record: JobRecord, path: str) -> Form:
    if record.status != "started":
        text = (f"{record.path} does not run. A requeue undoes this.",)
        return Form(title="Cancel this job", path=path, button="Cancel the job", text=text, is_dangerous=True)
    text = (f"{record.path} is running. It finishes, but does not run again, unless it is stopped.",)
    hint = "Its worker interrupts it within a second or two."
    fields = (Field(name="interrupt", label="Stop it now", kind="check", hint=hint, is_checked=True),)
    return Form(
        title="Cancel this running job", path=path, button="Cancel the job", text=text, fields=fields,
        is_dangerous=True,
    )  # fmt: skip


def _move(record: JobRecord, path: str) -> Form:
    text = ("Priority and due time stay.",)
    fields = (
        Field(name="queue", label="To the queue", value=record.queue, is_wide=True, required=True, most=1000),
    )
    return Form(title="Move this job", path=path, button="Move", text=text, fields=fields)


def _priority(record: JobRecord, path: str) -> Form:
    fields = (_priority_field(record),)
    return Form(title="Change the priority", path=path, button="Change the priority", fields=fields)


def _edit(record: JobRecord, path: str) -> Form:
    fields = (
        _params_field(record),
        _priority_field(record),
        Field(name="delay", label="Due in", most=50, hint=_DUE),
    )
    hidden = {"claims": str(record.claims), "edits": str(record.edits)}
    text = ("Unique key and limits stay, also where they were made from the params.",)
    title = "Edit this waiting job"
    return Form(title=title, path=path, button="Save", text=text, fields=fields, hidden=hidden)


def _rerun(record: JobRecord, path: str) -> Form:
    queue = "" if raw_kind(record.queue) else record.queue
    fields = (
        Field(name="path", label="Task", value=record.path, is_wide=True, required=True, most=1000),
        _params_field(record),
        Field(
            name="queue",
            label="Queue",
            value=queue,
            is_wide=True,
            most=1000,
            hint="Empty: the queue of the task.",
        ),
        _priority_field(record),
        Field(name="delay", label="Due in", most=50, hint="Such as 30s, 15m, 2h or 3d. Empty: now."),
    )
    text = ("A new job is queued; this one stays unchanged.",)
    hidden = {"job_id": new_id()}  # one job, however often the form is sent
    return Form(title="Run again", path=path, button="Queue the job", text=text, fields=fields, hidden=hidden)


def _remove(record: JobRecord, path: str) -> Form:
    text = (f"{record.path} is deleted with its params, result and log. This cannot be undone.",)
    return Form(title="Delete this job", path=path, button="Delete", text=text, is_dangerous=True)


def _params_field(record: JobRecord) -> Field:
    shown = redacted(record.params)
    hint = "JSON. *** stands for a secret, which stays." if shown != record.params else "A JSON object."
    return Field(
        name="params", label="Params", kind="area", value=json_source(shown), hint=hint, required=True
    )


def _priority_field(record: JobRecord) -> Field:
    value = str(record.priority)
    return Field(
        name="priority", label="Priority", kind="select", value=value, options=_LEVELS,
        hint="Larger first, within a queue.",
    )  # fmt: skip


_FORMS: dict[str, Callable[[JobRecord, str], Form]] = {
    "requeue": _requeue,
    "cancel": _cancel,
    "move": _move,
    "priority": _priority,
    "edit": _edit,
    "rerun": _rerun,
    "remove": _remove,
}
