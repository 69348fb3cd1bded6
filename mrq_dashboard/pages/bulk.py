"""The page of bulk actions, and the page that asks before one begins."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

from mrq_core.contract.messages import CHUNK, Cancel, Move, Remove, Requeue
from mrq_core.operations.actions import Change, SetPriority
from mrq_core.operations.bulk.bulk_actions import Bulk, bulk_words, list_bulks
from mrq_core.operations.queries.query import SearchQuery, parse_query
from mrq_dashboard.acting import Field, Form, ask
from mrq_dashboard.actions.bulk import Foreseen, Ids, Verb, foresee, selected
from mrq_dashboard.auth import Role
from mrq_dashboard.inputs import QueryText
from mrq_dashboard.visit import Page, Visit

_TITLES = {"requeue": "Requeue", "cancel": "Cancel", "move": "Move", "priority": "Change the priority of",
           "remove": "Delete"}  # fmt: skip
_BY_VERB: dict[str, Change] = {
    "requeue": Requeue(),
    "cancel": Cancel(),
    "move": Move(queue=""),
    "priority": SetPriority(priority=0),
    "remove": Remove(),
}
_LEVELS = tuple((str(level), f"{level:+d}" if level else "0") for level in range(4, -5, -1))


class Row(NamedTuple):
    """A bulk action, and what it has done so far in words."""

    bulk: Bulk
    words: str


class AskInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked for: an action on the selected jobs, or on all that the query finds."""

    action: Verb
    q: QueryText = ""
    ids: Ids = ()
    all: Annotated[bool, Meta(description="All jobs of the query, also if ids are given.")] = False


def rows_of(visit: Visit) -> list[Row]:
    """All bulk actions, newest first."""
    return [Row(bulk, bulk_words(bulk)) for bulk in list_bulks(visit.broker)]


def bulks(visit: Visit) -> Page:
    """The bulk actions that run, and those that ended within a week."""
    visit.runner.wake()
    context = {"rows": rows_of(visit), "may_stop": visit.visitor.role >= Role.OPERATE}
    return Page(template="jobs/bulk.html", title="Bulk actions", context=context)


def ask_bulk(visit: Visit, inputs: AskInputs) -> Page:
    """Asks before a bulk action begins, with the numbers of jobs by status."""
    verb = inputs.action
    if verb == "remove":
        visit.need(Role.WRITE, "removing jobs")
    if not inputs.ids and not inputs.all:
        text = ("No job is selected. Select jobs in the list, or all that match.",)
        form = Form(title=f"{_TITLES[verb]} jobs", path="/jobs/bulk", button="", text=text, is_possible=False)
        return ask(visit, form, back="/jobs")
    query = parse_query(visit.broker, inputs.q) if inputs.all else selected(visit, inputs.ids)
    foreseen = foresee(visit, query, _BY_VERB[verb])
    return ask(visit, _form(visit, verb, query, foreseen, inputs), back="/jobs")


def _form(visit: Visit, verb: str, query: SearchQuery, foreseen: Foreseen, inputs: AskInputs) -> Form:
    least = "" if foreseen.is_complete else "at least "
    jobs = f"{least}{foreseen.number:,} job{'' if foreseen.number == 1 else 's'}"
    hidden: dict[str, str | tuple[str, ...]] = {"action": verb}
    if inputs.all:
        hidden |= {"query": query.text} if query.text else {"everything": "true"}
    else:
        hidden["ids"] = inputs.ids
    is_possible = foreseen.number > 0 or not foreseen.is_complete
    return Form(
        title=f"{_TITLES[verb]} {jobs if is_possible else 'jobs'}",
        path="/jobs/bulk",
        button=f"{_TITLES[verb]} {jobs}",
        text=_texts(verb, query, foreseen, inputs.all),
        notes=_notes(verb, foreseen, inputs.all),
        fields=_fields(verb, foreseen),
        hidden=hidden,
        counts=foreseen.changed,
        left=foreseen.left,
        is_minimum=not foreseen.is_complete,
        is_dangerous=verb in ("remove", "cancel"),
        is_possible=is_possible,
    )


def _texts(verb: str, query: SearchQuery, foreseen: Foreseen, is_all: bool) -> list[str]:
    texts = (
        [f"All jobs that match: {query.text}" if query.text else "All jobs of all queues."] if is_all else []
    )
    if not foreseen.number and foreseen.is_complete:
        texts.append("No job has a status that allows this.")
        return texts
    if verb == "remove":
        texts.append("Jobs are deleted with their results and logs. This cannot be undone.")
    return texts


def _notes(verb: str, foreseen: Foreseen, is_all: bool) -> list[str]:
    if not foreseen.number and foreseen.is_complete:
        return []
    notes = ["A job is left alone if another job holds its unique key."] if verb == "requeue" else []
    if is_all:
        notes.append("Jobs that are queued from now on are left alone.")
    if foreseen.total > CHUNK:
        notes.append("The action goes on when this page is closed. The page of bulk actions stops it.")
    return notes


def _fields(verb: str, foreseen: Foreseen) -> list[Field]:
    if verb == "move":
        return [Field(name="queue", label="To the queue", is_wide=True, required=True, most=1000)]
    if verb == "requeue":
        hint = "Empty: each on its queue."
        return [Field(name="queue", label="On the queue", is_wide=True, most=1000, hint=hint)]
    if verb == "priority":
        return [Field(name="priority", label="Priority", kind="select", value="0", options=_LEVELS)]
    if verb == "cancel" and foreseen.changed.get("started"):
        hint = "Otherwise they finish, and do not run again."
        return [Field(name="interrupt", label="Also stop the running jobs", kind="check", hint=hint)]
    return []
