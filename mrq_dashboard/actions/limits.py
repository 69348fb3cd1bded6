"""Sets and removes limit rules, which workers obey within a second."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from mrq_core.clock import period_words
from mrq_core.contract.messages import Limit
from mrq_core.operations.limits import TASK, find_limit, limit_view, remove_limits, set_limit
from mrq_core.operations.queries.filters import duration_from, duration_text
from mrq_dashboard.acting import Field, Form, ask
from mrq_dashboard.inputs import Duration
from mrq_dashboard.visit import Done, NotFound, Page, Visit

Name = Annotated[
    str, Meta(min_length=1, max_length=1000, description="The rule, as `limits` of a task names it.")
]


class LimitInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """A limit rule. It needs a concurrency, a rate, or both."""

    name: Name
    concurrency: (
        Annotated[int, Meta(ge=0, le=10**9, description="The most jobs at once; 0 lets none start.")] | None
    ) = None
    rate: (
        Annotated[float, Meta(gt=0, le=1_000_000, description="The most jobs that start in each `per`.")]
        | None
    ) = None
    per: Annotated[Duration, Meta(description="The period of the rate: 1s, 1m, 1h.")] = "1s"


class LimitName(Struct, frozen=True, forbid_unknown_fields=True):
    """A limit rule."""

    name: Name


class LimitForm(Struct, frozen=True, forbid_unknown_fields=True):
    """The rule to change. Empty: a new rule."""

    name: Annotated[str, Meta(max_length=1000, description="The rule.")] = ""


def set_rule(visit: Visit, inputs: LimitInputs) -> Done:
    """Sets a limit rule for all workers. It replaces the rule of a task until it is removed.

    Running jobs go on; parked jobs start as the new rule allows. Of two people who set a rule, the last wins.
    """
    per = duration_from(inputs.per, name="per")
    rule = set_limit(visit.broker, inputs.name, concurrency=inputs.concurrency, rate=inputs.rate, per=per)
    words = words_of(rule.limit)
    text = f"The limit {rule.name} is {words}; workers obey it within a second"
    return Done(action="set limit", target=f"{rule.name}: {words}", text=text, value=limit_view(rule))


def remove_rule(visit: Visit, inputs: LimitName) -> Done:
    """Removes a limit rule. The rule of a task comes back within seconds from a worker that has loaded it."""
    [was_there] = remove_limits(visit.broker, [inputs.name])
    if not was_there:
        raise NotFound(f"there is no limit {inputs.name}")
    text = f"The limit {inputs.name} is removed; a limit of a task comes back from its workers"
    return Done(action="remove limit", target=inputs.name, text=text, value={"removed": inputs.name})


def words_of(limit: Limit) -> str:
    """The limit in words: ``5 at once, 10 per minute``."""
    parts = [] if limit.concurrency is None else [f"{limit.concurrency:,} at once"]
    parts += [] if limit.rate is None else [f"{limit.rate:g} per {period_words(limit.per)}"]
    return ", ".join(parts)


# --- asking ---------------------------------------------------------------------------------


def ask_set(visit: Visit, inputs: LimitForm) -> Page:
    """Asks for the numbers of a rule; shows those that it has."""
    rule = find_limit(visit.broker, inputs.name) if inputs.name else None
    limit = rule.limit if rule is not None else Limit()
    is_of_task = rule is not None and rule.source == TASK
    name = Field(
        name="name", label="Limit", is_wide=True, required=True, most=100,
        hint="As @task(limits=...) names it, without the part after a colon.",
    )  # fmt: skip
    form = Form(
        title=f"Change the limit {inputs.name}" if inputs.name else "Set a limit",
        path="/limit/set",
        button="Set the limit",
        text=["All workers obey it within a second. Running jobs go on."]
        + (["It replaces the limit of the task until you remove it."] if is_of_task else []),
        fields=[
            *([] if inputs.name else [name]),
            Field(
                name="concurrency", label="Jobs at once", is_wide=True, kind="number", low=0,
                value="" if limit.concurrency is None else str(limit.concurrency),
                hint="Empty: any number. 0 lets none start.",
            ),
            Field(
                name="rate", label="Starts in each period", hint="Empty: any number.",
                value="" if limit.rate is None else f"{limit.rate:.12g}",
            ),
            Field(
                name="per", label="Period", value=duration_text(limit.per), hint="Such as 1s, 1m or 1h.",
                most=20,
            ),
        ],
        hidden={"name": inputs.name} if inputs.name else {},
    )  # fmt: skip
    return ask(visit, form, back="/limits")


def ask_remove(visit: Visit, inputs: LimitName) -> Page:
    """Asks whether a rule shall be removed."""
    rule = find_limit(visit.broker, inputs.name)
    if rule is None:
        raise NotFound(f"there is no limit {inputs.name}")
    form = Form(
        title=f"Remove the limit {inputs.name}?",
        path="/limit/remove",
        button="Remove the limit",
        text=[
            f"It is {words_of(rule.limit)} now. Jobs that wait for it start at once.",
            "Where a task has a limit of this name, its workers publish that again within seconds.",
        ],
        hidden={"name": inputs.name},
        is_dangerous=True,
    )
    return ask(visit, form, back="/limits")
