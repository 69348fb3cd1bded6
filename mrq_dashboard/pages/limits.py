"""The page of limits: rules, keys at their limit, who holds them and who waits."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from mrq_core.drivers.limits import rule_of
from mrq_core.operations.limits import LimitUse, limit_uses, list_limits
from mrq_dashboard.visit import Page, Visit

_MOST_ROWS = 200


class LimitsInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """The inputs of the page."""

    name: Annotated[str, Meta(max_length=1000, description="A key or a rule: shows only its keys.")] = ""


def limits(visit: Visit, inputs: LimitsInputs) -> Page:
    """The limit rules and the use of their keys."""
    rules = list_limits(visit.broker)
    uses, is_complete = limit_uses(visit.broker, {rule.name: rule for rule in rules})
    if inputs.name:
        uses = [one for one in uses if inputs.name in (one.use.key, rule_of(one.use.key))]
    by_rule: dict[str, list[LimitUse]] = {}
    for one in uses:
        by_rule.setdefault(rule_of(one.use.key), []).append(one)
    context = {
        "rules": [(rule, by_rule.get(rule.name, [])) for rule in rules[:_MOST_ROWS]],
        "rules_left_out": max(0, len(rules) - _MOST_ROWS),
        "uses": uses[:_MOST_ROWS],
        "uses_left_out": max(0, len(uses) - _MOST_ROWS),
        "is_complete": is_complete,
        "full": sum(one.is_full for one in uses),
        "parked": sum(one.use.parked for one in uses),
        "name": inputs.name,
    }
    return Page(template="limits/list.html", title="Limits", context=context)
