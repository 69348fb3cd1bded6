"""The use of limit keys, on each broker."""

from __future__ import annotations

import pytest

from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import Limit
from mrq_core.errors import InvalidValue
from mrq_core.operations.limits import (
    OVERLAP_RULE,
    LimitUse,
    limit_uses,
    list_limits,
    publish_limits,
    remove_limits,
    set_limit,
)
from tests.dashboard.scenes import put, take

LIMITS = {"api": Limit(concurrency=2)}


def uses_of(broker: Broker) -> list[LimitUse]:
    uses, is_complete = limit_uses(broker, {rule.name: rule for rule in list_limits(broker)})
    assert is_complete
    return uses


def test_keys_at_their_limit_come_first_with_holders_and_waiters(each_broker: Broker) -> None:
    set_limit(each_broker, "api", concurrency=2)
    ids = [put(each_broker, "q", limit_keys=("api:full",)) for _ in range(5)]
    assert [record.id for record in take(each_broker, "q", 5, limits=LIMITS)] == ids[:2]
    other = put(each_broker, "r", limit_keys=("api:free", "none"))
    take(each_broker, "r", limits=LIMITS)
    full, free, none = uses_of(each_broker)
    assert (full.use.key, full.use.running, full.use.parked, full.is_full) == ("api:full", 2, 3, True)
    assert (full.use.holders, full.use.waiters) == (tuple(sorted(ids[:2])), tuple(ids[2:]))
    assert (free.use.key, free.use.running, free.use.holders, free.is_full) == (
        "api:free",
        1,
        (other,),
        False,
    )
    assert (none.use.key, none.rule, none.is_full) == ("none", None, False)


def test_the_rule_of_schedules_is_left_alone(each_broker: Broker) -> None:
    publish_limits(each_broker, {OVERLAP_RULE: Limit(concurrency=1)})
    before = list_limits(each_broker)
    with pytest.raises(InvalidValue, match="lets one job of a schedule run at a time"):
        set_limit(each_broker, OVERLAP_RULE, concurrency=5)
    with pytest.raises(InvalidValue, match="overlap policy"):
        remove_limits(each_broker, ["api", OVERLAP_RULE])
    assert list_limits(each_broker) == before != []


def test_jobs_that_a_pause_of_their_task_has_parked_use_no_key(each_broker: Broker) -> None:
    put(each_broker, "q", "a.B")
    put(each_broker, "q", "a.B", limit_keys=("api",))
    take(each_broker, "q", 5, limits=LIMITS, paused_tasks=frozenset({"a.B"}))
    assert [one.use.key for one in uses_of(each_broker)] in ([], ["api"])
    assert all(one.use.parked == 0 for one in uses_of(each_broker))


def test_without_limits_no_key_is_used(each_broker: Broker) -> None:
    put(each_broker, "q")
    assert uses_of(each_broker) == []
