"""Limit rules as JSON."""

from __future__ import annotations

from mrq_core.contract.codec import JsonObject, JsonValue
from mrq_core.operations.limits import list_limits
from mrq_dashboard.visit import Visit


def list_all(visit: Visit) -> JsonObject:
    """Lists the limit rules, by name, and who has set them: a task or a person."""
    rules: list[JsonValue] = [
        {
            "name": rule.name,
            "concurrency": rule.limit.concurrency,
            "rate": rule.limit.rate,
            "per": rule.limit.per,
            "source": rule.source,
        }
        for rule in list_limits(visit.broker)
    ]
    return {"limits": rules}
