"""Limits as JSON: the rules, and the keys that jobs use."""

from __future__ import annotations

from mrq_core.contract.codec import JsonObject, JsonValue
from mrq_core.operations.limits import limit_uses, limit_view, list_limits
from mrq_dashboard.visit import Visit


def list_all(visit: Visit) -> JsonObject:
    """Lists the limit rules, by name, and who has set them: a task or a person."""
    rules: list[JsonValue] = [limit_view(rule) for rule in list_limits(visit.broker)]
    return {"limits": rules}


def keys(visit: Visit) -> JsonObject:
    """Lists the keys under which jobs run or wait: their numbers, their holders, and the next jobs to start.

    `complete` false: the keys are those of the oldest 1,000 running and 1,000 waiting jobs."""
    rules = {rule.name: rule for rule in list_limits(visit.broker)}
    uses, is_complete = limit_uses(visit.broker, rules)
    found: list[JsonValue] = [
        {
            "key": one.use.key,
            "rule": None if one.rule is None else limit_view(one.rule),
            "full": one.is_full,
            "running": one.use.running,
            "holders": list(one.use.holders),
            "parked": one.use.parked,
            "waiters": list(one.use.waiters),
        }
        for one in uses
    ]
    return {"keys": found, "complete": is_complete}
