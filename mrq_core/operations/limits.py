"""Limit rules in shared state: every worker enforces all of them.

A worker publishes the rules of the tasks that it loads. A rule that a person sets replaces the rule of the
task, and stays until a person removes it; then the workers that have loaded the task publish its rule again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from mrq_core.contract import rules
from mrq_core.contract.broker import Broker
from mrq_core.contract.codec import JsonValue
from mrq_core.contract.messages import Limit, StateItem

PERSON, TASK = "person", "task"
"""Who has set a rule."""


class LimitRule(msgspec.Struct, frozen=True, kw_only=True):
    """A limit rule. `source`: ``person`` or ``task``."""

    name: str
    limit: Limit
    source: str


def list_limits(broker: Broker) -> list[LimitRule]:
    """All limit rules, by name, without those that this version cannot read."""
    found = ((item.name, rules.stored_limit(item.value)) for item in broker.state.list(rules.LIMITS))
    return [
        LimitRule(name=name, limit=stored.limit, source=stored.source)
        for name, stored in found
        if stored is not None
    ]


def set_limit(
    broker: Broker, name: str, *, concurrency: int | None = None, rate: float | None = None, per: float = 1.0
) -> LimitRule:
    """Sets a rule for all workers, which obey it within a second. Of several people who set one rule, the
    last wins.

    Running jobs go on. Parked jobs start as the new rule allows. Raises InvalidValue.
    """
    limit = rules.checked_limit(name, Limit(concurrency=concurrency, rate=rate, per=per))
    broker.state.put(rules.LIMITS, name, _value(limit, PERSON))
    return LimitRule(name=name, limit=limit, source=PERSON)


def remove_limits(broker: Broker, names: Sequence[str]) -> list[bool]:
    """Removes rules; later claims let their parked jobs go. The rule of a task comes back within seconds,
    from a worker that has loaded the task. False: there was no such rule."""
    return broker.state.delete(rules.LIMITS, names)


def publish_limits(broker: Broker, limits: Mapping[str, Limit]) -> None:
    """Publishes the rules of tasks. A rule that a person has set stays; of several workers whose code
    differs, the last wins. Atomic for each rule."""
    for name, limit in limits.items():
        item = broker.state.get(rules.LIMITS, name)
        value = _value(limit, TASK)
        if item is None or (_source(item) == TASK and item.value != value):
            broker.state.compare_and_set(
                rules.LIMITS, name, value, version=0 if item is None else item.version
            )


def _value(limit: Limit, source: str) -> JsonValue:
    return {"concurrency": limit.concurrency, "rate": limit.rate, "per": limit.per, "source": source}


def _source(item: StateItem) -> str:
    return str(item.value.get("source")) if isinstance(item.value, dict) else PERSON
