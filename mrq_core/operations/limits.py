"""Limit rules in shared state: every worker enforces all of them.

A worker publishes the rules of the tasks that it loads, and a process that enqueues jobs publishes those that
are missing. A rule that a person sets replaces the rule of the task, and stays until a person removes it;
then the workers that have loaded the task publish its rule again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from mrq_core.contract import rules
from mrq_core.contract.broker import Broker
from mrq_core.contract.codec import JsonObject, JsonValue
from mrq_core.contract.messages import CHUNK, MOST_NAMED, Limit
from mrq_core.contract.queries import JobFilter, KeyUse, Order
from mrq_core.contract.record import WAITING, JobRecord, Status
from mrq_core.contract.shared_state import StateItem
from mrq_core.drivers.limits import ONE_AT_A_TIME, rule_of
from mrq_core.errors import InvalidValue

PERSON, TASK = "person", "task"
"""Who has set a rule."""
_MOST_KEYS = 50
"""The most sets of keys whose use is read."""


class LimitRule(msgspec.Struct, frozen=True, kw_only=True):
    """A limit rule. `source`: ``person`` or ``task``."""

    name: str
    limit: Limit
    source: str


_OF_SCHEDULES = LimitRule(name=rules.OVERLAP_RULE, limit=ONE_AT_A_TIME, source=TASK)
"""The rule that lets one job of a schedule run at a time, where its overlap policy wants that."""


def list_limits(broker: Broker) -> list[LimitRule]:
    """All limit rules, by name, without those that this version cannot read."""
    found = ((item.name, rules.stored_limit(item.value)) for item in broker.state.list(rules.LIMITS))
    return [
        LimitRule(name=name, limit=stored.limit, source=stored.source)
        for name, stored in found
        if stored is not None
    ]


def limit_view(rule: LimitRule) -> JsonObject:
    """The rule as a JSON value. `per` is seconds."""
    limit = rule.limit
    return {
        "name": rule.name,
        "concurrency": limit.concurrency,
        "rate": limit.rate,
        "per": limit.per,
        "source": rule.source,
    }


def find_limit(broker: Broker, name: str) -> LimitRule | None:
    """The rule with this name, or None if there is none that this version can read."""
    item = broker.state.get(rules.LIMITS, name)
    stored = None if item is None else rules.stored_limit(item.value)
    return None if stored is None else LimitRule(name=name, limit=stored.limit, source=stored.source)


class LimitUse(msgspec.Struct, frozen=True, kw_only=True):
    """The use of a limit key, and its rule. None: the key has no rule, and limits nothing."""

    use: KeyUse
    rule: LimitRule | None

    @property
    def is_full(self) -> bool:
        """Whether as many jobs run as the rule lets run at once."""
        most = None if self.rule is None else self.rule.limit.concurrency
        return most is not None and self.use.running >= most


def limit_uses(broker: Broker, rules_by_name: Mapping[str, LimitRule]) -> tuple[list[LimitUse], bool]:
    """The keys under which jobs run or are parked: those with most parked jobs first. False: there may be
    more keys or jobs.

    Reads up to 1,000 running and 1,000 waiting jobs, and the use of up to 50 keys with parked jobs. Of other
    keys, the numbers are those of the jobs that were read.
    """
    running = broker.find(JobFilter(statuses=(Status.STARTED,)), order=Order.OLDEST_FIRST, limit=CHUNK)
    waiting = broker.find(JobFilter(statuses=tuple(WAITING)), order=Order.OLDEST_FIRST, limit=CHUNK)
    holders: dict[str, list[str]] = {}
    for record in running.records:
        for key in record.limit_keys:
            holders.setdefault(key, []).append(record.id)
    uses = _parked_uses(broker, [record for record in waiting.records if record.limit_keys])
    for key, ids in holders.items():
        first = tuple(sorted(ids)[:MOST_NAMED])
        uses.setdefault(key, KeyUse(key=key, running=len(ids), holders=first, parked=0, waiters=()))
    rules_by_name = {**rules_by_name, rules.OVERLAP_RULE: _OF_SCHEDULES}
    found = [LimitUse(use=use, rule=rules_by_name.get(rule_of(key))) for key, use in uses.items()]
    found.sort(key=lambda one: (-one.use.parked, not one.is_full, -one.use.running, one.use.key))
    return found, running.cursor is None and waiting.cursor is None


def _parked_uses(broker: Broker, records: Sequence[JobRecord]) -> dict[str, KeyUse]:
    """The use of the keys under which these jobs are parked, as their first job tells."""
    uses: dict[str, KeyUse] = {}
    asked: set[tuple[str, ...]] = set()
    for record in records:
        if record.due_at is not None or all(key in uses for key in record.limit_keys):
            continue
        if record.limit_keys in asked or len(asked) == _MOST_KEYS:
            continue
        asked.add(record.limit_keys)
        position = broker.queue_position(record.id)
        for use in () if position is None else position.keys:
            if rule_of(use.key) != rules.TASK_RULE:
                uses[use.key] = use
    return uses


def set_limit(
    broker: Broker, name: str, *, concurrency: int | None = None, rate: float | None = None, per: float = 1.0
) -> LimitRule:
    """Sets a rule for all workers, which obey it within a second. Of several people who set one rule, the
    last wins.

    Running jobs go on. Parked jobs start as the new rule allows. Raises InvalidValue, also for the rule of
    schedules.
    """
    _refuse_overlap_rule([name])
    limit = rules.checked_limit(name, Limit(concurrency=concurrency, rate=rate, per=per))
    broker.state.put(rules.LIMITS, name, _value(limit, PERSON))
    return LimitRule(name=name, limit=limit, source=PERSON)


def remove_limits(broker: Broker, names: Sequence[str]) -> list[bool]:
    """Removes rules; later claims let their parked jobs go. The rule of a task comes back within seconds,
    from a worker that has loaded the task. False: there was no such rule. Raises InvalidValue for an empty
    name and for the rule of schedules; then none is removed."""
    if "" in names:
        raise InvalidValue("the name of a limit is empty: expected the name of a rule", path="name")
    _refuse_overlap_rule(names)
    return broker.state.delete(rules.LIMITS, names)


def _refuse_overlap_rule(names: Sequence[str]) -> None:
    if rules.OVERLAP_RULE in names:
        raise InvalidValue(
            f"the limit {rules.OVERLAP_RULE} lets one job of a schedule run at a time: expected another "
            "name; the overlap policy of a schedule decides whether its jobs have this limit",
            path="name",
        )


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


def publish_missing_limits(broker: Broker, limits: Mapping[str, Limit]) -> None:
    """Publishes the rules of a task that are not stored, for a process that enqueues jobs of the task. Stored
    rules stay: the code of the workers decides. Atomic for each rule."""
    for name, limit in limits.items():
        if broker.state.get(rules.LIMITS, name) is None:
            broker.state.compare_and_set(rules.LIMITS, name, _value(limit, TASK), version=0)


def publish_overlap_rule(broker: Broker) -> None:
    """Publishes the rule of the overlap policies: for the list of limits, and for workers of earlier
    versions. Claims know the rule without it."""
    publish_limits(broker, {_OF_SCHEDULES.name: _OF_SCHEDULES.limit})


def _value(limit: Limit, source: str) -> JsonValue:
    return {"concurrency": limit.concurrency, "rate": limit.rate, "per": limit.per, "source": source}


def _source(item: StateItem) -> str:
    if item.value is None:  # damaged
        return TASK
    return str(item.value.get("source")) if isinstance(item.value, dict) else PERSON
