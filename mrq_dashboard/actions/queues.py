"""Pauses, resumes and purges queues, and moves their jobs. A name may mean a tree: ``main/``."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from mrq_core.contract.messages import ChangeResult, Move, Remove
from mrq_core.contract.naming import check_served_name, is_tree, shown_names
from mrq_core.operations.bulk.bulk_actions import begin_bulk, bulk_view
from mrq_core.operations.bulk.bulk_changes import bounded, change_if_few
from mrq_core.operations.queries.query import parse_query
from mrq_core.operations.queries.query_parts import exact_value
from mrq_core.operations.queue_contents import Emptied, checked_move, is_raw, purge_queue, what_waits
from mrq_core.operations.queues import pause_queues, resume_queues, waiting_in
from mrq_core.operations.views import iso
from mrq_dashboard.acting import Field, Form, ask
from mrq_dashboard.actions import pauses
from mrq_dashboard.visit import Done, Page, Visit

_TURNS = 2.5
"""One request purges a raw queue for this multiple of DASHBOARD_TIMEOUT; a further request goes on."""
Name = Annotated[
    str,
    Meta(max_length=1000, description="The queue, or a tree: `main/`. The path may name it instead."),
]


class QueueName(Struct, frozen=True, forbid_unknown_fields=True):
    """A queue or tree."""

    name: Name = ""


class PauseInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """A queue or tree, and the end of its pause. Without an end, the pause lasts until it is resumed."""

    name: Name = ""
    until: pauses.Until = ""
    duration: pauses.Length = ""


class MoveInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """A queue or tree, and the queue that its waiting jobs move to."""

    to: Annotated[str, Meta(max_length=1000, description="The queue that the jobs move to.")]
    name: Name = ""


def pause(visit: Visit, inputs: PauseInputs) -> Done:
    """Pauses a queue or tree: workers claim nothing more from it, and running jobs go on.

    A further pause changes the end of the first."""
    name = check_served_name(visit.named(inputs.name))
    end = pause_queues(visit.broker, [name], until=pauses.end_of(visit, inputs.until, inputs.duration))
    text = f"{_called(name)} is paused{pauses.until_words(end)}"
    return Done(action="pause queue", target=name, text=text, value={"name": name, "until": iso(end)})


def resume(visit: Visit, inputs: QueueName) -> Done:
    """Resumes a paused queue or tree."""
    name = check_served_name(visit.named(inputs.name))
    result = resume_queues(visit.broker, [name])
    text, tone = f"{_called(name)} is resumed", ""
    if not result.resumed:
        tree = result.not_paused[name]
        around = f" itself, but is part of the paused tree {shown_names([tree])}: resume that" if tree else ""
        text, tone = f"{_called(name)} was not paused{around}", "warn"
    counts = {"resumed": len(result.resumed)}
    return Done(
        action="resume queue", target=name, text=text, tone=tone, counts=counts,
        value={"name": name, "resumed": bool(result.resumed)},
    )  # fmt: skip


def purge(visit: Visit, inputs: QueueName) -> Done:
    """Removes what waits in a queue or tree: jobs with their logs, or the parameters of a raw queue.

    Running jobs go on. Over 1,000 jobs are removed by and by: the answer has the status 202 and `bulk`. Of a
    raw queue, `complete` false means that a further request goes on. `waiting`: what waits afterwards."""
    name = check_served_name(visit.named(inputs.name))
    if not is_raw(name):
        return _change_all(visit, name, Remove(), action="purge queue", target=name, word="removed from")
    done = purge_queue(visit.broker, name, seconds=_TURNS * visit.config.dashboard_timeout)
    return _changed(visit, name, done, action="purge queue", target=name, word="removed from")


def move(visit: Visit, inputs: MoveInputs) -> Done:
    """Moves the waiting jobs of a queue or tree to another queue; their due times and priorities stay.

    Over 1,000 jobs are moved by and by: the answer has the status 202 and `bulk`."""
    name = check_served_name(visit.named(inputs.name))
    change = checked_move(name, inputs.to)
    word = f"moved to {_called(change.queue, '')} from"
    return _change_all(
        visit, name, change, action="move queue", target=f"{name} to {change.queue}", word=word
    )


def _change_all(
    visit: Visit, name: str, change: Remove | Move, *, action: str, target: str, word: str
) -> Done:
    """Changes the waiting jobs, or begins a bulk action where there may be more than 1,000."""
    query = bounded(visit.broker, parse_query(visit.broker, f"is:waiting queue:{exact_value(name)}"))
    counts = change_if_few(visit.broker, query, change)
    if counts is None:
        number = what_waits(visit.broker, name).number
        bulk = begin_bulk(
            visit.broker, query, change, visit.visitor.name, expected=number, is_counted=True,
            bulk_id=visit.made_id,
        )  # fmt: skip
        visit.runner.wake()
        return Done(
            action=action, target=target, counts={"matching": number}, status=202,
            text=f"The bulk action on {number:,} jobs has begun: this page shows how far it is",
            value={"name": name, "complete": False, "bulk": bulk_view(bulk)},
            url=visit.url("/jobs/bulk"),
        )  # fmt: skip
    number = counts[ChangeResult.DONE]
    done = Emptied(jobs=number, left=counts.total() - number)
    return _changed(visit, name, done, action=action, target=target, word=word)


def _changed(visit: Visit, name: str, done: Emptied, *, action: str, target: str, word: str) -> Done:
    waiting = what_waits(visit.broker, name).number
    text = f"{_number(done)} {word} {_called(name, '')}"
    if done.left:
        text += f"; {done.left:,} started or changed meanwhile"
    if not done.is_complete:
        text += f"; {waiting:,} still wait: do it again to go on"
    elif waiting:
        text += f"; {waiting:,} wait since"
    return Done(
        action=action,
        target=target,
        text=text,
        tone="" if done.is_complete and not done.left else "warn",
        counts={"changed": done.number, **({"left": done.left} if done.left else {})},
        value={
            "name": name,
            "changed": done.number,
            "left": done.left,
            "waiting": waiting,
            "complete": done.is_complete,
        },
    )


# --- asking ---------------------------------------------------------------------------------


def ask_pause(visit: Visit, inputs: QueueName) -> Page:
    """Asks for the end of a pause."""
    name = check_served_name(visit.named(inputs.name))
    number = waiting_in(visit.broker, name)
    pause = visit.broker.rules().queues.get(name)
    called = _called(name, "the ")
    form = Form(
        title=f"Pause {called}?" if pause is None else f"Change the pause of {called}",
        path="/queue/pause",
        button="Pause" if pause is None else "Change the pause",
        text=[
            "Workers claim nothing more from it. "
            f"Running jobs go on, and {number:,} waiting job{_s(number)} stay{_s(number, 's', '')}.",
            *([] if pause is None else [f"Now: paused{pauses.until_words(pause.until)}."]),
        ],
        fields=pauses.FIELDS,
        hidden={"name": name},
    )
    return ask(visit, form, back="/queues")


def ask_purge(visit: Visit, inputs: QueueName) -> Page:
    """Asks whether what waits shall be removed, with the numbers by status."""
    name = check_served_name(visit.named(inputs.name))
    found = what_waits(visit.broker, name)
    what = "parameter" if found.params else "job"
    texts = ["This cannot be undone: the jobs and their logs are gone. Running jobs go on."]
    if found.params:
        texts = ["This cannot be undone: the parameters are gone. Running jobs go on."]
    elif not found.number:
        texts = ["Nothing waits here."]
    form = Form(
        title=f"Purge {_called(name, 'the ')}?",
        path="/queue/purge",
        button=f"Remove {found.number:,} {what}{_s(found.number)}",
        text=texts,
        hidden={"name": name},
        counts=found.jobs,
        is_dangerous=True,
        is_possible=found.number > 0,
    )
    return ask(visit, form, back="/queues")


def ask_move(visit: Visit, inputs: QueueName) -> Page:
    """Asks where the waiting jobs shall go, with their numbers by status."""
    name = check_served_name(visit.named(inputs.name))
    found = what_waits(visit.broker, name)
    text = "Their priorities and due times stay. Running jobs go on."
    if is_raw(name):
        text = "This raw queue holds parameters and no jobs: nothing can be moved."
    elif not found.number:
        text = "No job waits here."
    form = Form(
        title=f"Move the jobs of {_called(name, 'the ')}",
        path="/queue/move",
        button=f"Move {found.number:,} job{_s(found.number)}",
        text=[text],
        fields=[Field(name="to", label="To the queue", is_wide=True, required=True, most=200)],
        hidden={"name": name},
        counts=found.jobs,
        is_possible=found.number > 0 and not is_raw(name),
    )
    return ask(visit, form, back="/queues")


# --- words ----------------------------------------------------------------------------------


def _called(name: str, the: str = "The ") -> str:
    return f"{the}{'tree' if is_tree(name) else 'queue'} {shown_names([name])}"


def _s(number: int, one: str = "", many: str = "s") -> str:
    return one if number == 1 else many


def _number(done: Emptied) -> str:
    jobs = f"{done.jobs:,} job{_s(done.jobs)}"
    params = f"{done.params:,} parameter{_s(done.params)}"
    if done.params:
        return f"{jobs} and {params}" if done.jobs else params
    return jobs
