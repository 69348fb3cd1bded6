"""The use of limit keys, on each broker."""

from __future__ import annotations

import pytest

from mrq_core.clock import after
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import Limit
from mrq_core.contract.rules import OVERLAP_RULE
from mrq_core.errors import InvalidValue
from mrq_core.operations.explaining import reached_limits as reached_limits_module
from mrq_core.operations.explaining.explaining import explain
from mrq_core.operations.explaining.reached_limits import ReachedLimits, reached_limits
from mrq_core.operations.limits import (
    LimitUse,
    limit_uses,
    list_limits,
    publish_overlap_rule,
    remove_limits,
    set_limit,
)
from mrq_core.operations.queues import all_counts
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


def test_a_limit_that_holds_jobs_back_is_reached(
    each_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reached_limits_module, "_SECONDS", 60.0)
    old = after(each_broker.now(), -90.0)
    limits = {"api": Limit(concurrency=1), "mail": Limit(rate=1, per=600.0), "none": Limit(concurrency=0)}
    for name, limit in limits.items():
        set_limit(each_broker, name, concurrency=limit.concurrency, rate=limit.rate, per=limit.per)

    def reached() -> dict[str, tuple[bool, int, str]]:
        found = reached_limits(each_broker, all_counts(each_broker))
        return {one.key: (one.is_full, one.parked, one.sentence.partition(", ")[0]) for one in found}

    for name, at in (("api:a", old), ("mail", old), ("none", old), ("api:new", each_broker.now())):
        for _ in range(3):
            put(each_broker, f"q {name}", limit_keys=(name,), queued_at=at)
        put(each_broker, f"q {name}", delay=900.0, queued_at=old)
        take(each_broker, f"q {name}", 3, limits=limits)
    found = reached()
    assert found.keys() == {"api:a", "mail", "none"}
    assert found["api:a"] == (True, 2, "is reached: 1 of 1 jobs run. 2 jobs wait for it")
    assert found["mail"] == (False, 2, "lets 1 job per 10 min start. 2 jobs wait for it")
    assert found["none"] == (True, 3, "lets no job run. 3 jobs wait for it")
    remove_limits(each_broker, ["mail", "none"])
    set_limit(each_broker, "api", concurrency=5)
    assert reached() == {}


def test_the_search_for_reached_limits_ends_in_time(
    each_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"api": Limit(concurrency=0), "mail": Limit(concurrency=0)}
    old = after(each_broker.now(), -90.0)
    for queue, key in (("q", "api"), ("r", "mail"), ("r", "mail")):
        set_limit(each_broker, key, concurrency=0)
        put(each_broker, queue, limit_keys=(key,), queued_at=old)
        take(each_broker, queue, limits=limits)

    def keys() -> list[str]:
        return [one.key for one in ReachedLimits().of(each_broker, all_counts(each_broker))]

    monkeypatch.setattr(reached_limits_module, "_SECONDS", 60.0)
    assert keys() == ["mail", "api"]
    monkeypatch.setattr(reached_limits_module, "_SECONDS", -1.0)
    assert keys() == ["mail"]


def test_the_rule_of_schedules_is_left_alone(each_broker: Broker) -> None:
    publish_overlap_rule(each_broker)
    before = list_limits(each_broker)
    with pytest.raises(InvalidValue, match="lets one job of a schedule run at a time"):
        set_limit(each_broker, OVERLAP_RULE, concurrency=5)
    with pytest.raises(InvalidValue, match="overlap policy"):
        remove_limits(each_broker, ["api", OVERLAP_RULE])
    assert list_limits(each_broker) == before != []


def test_a_key_of_schedules_has_its_rule_also_where_none_is_stored(each_broker: Broker) -> None:
    for _ in range(2):
        parked = put(each_broker, "q", limit_keys=(f"{OVERLAP_RULE}:daily",))
    take(each_broker, "q", 5)
    [one] = uses_of(each_broker)
    assert (one.use.parked, one.rule and one.rule.limit, one.is_full) == (1, Limit(concurrency=1), True)
    reasons = explain(each_broker, parked)
    assert any("has no room beside 1 job that runs" in reason.sentence for reason in reasons)


def test_jobs_that_a_pause_of_their_task_has_parked_use_no_key(each_broker: Broker) -> None:
    put(each_broker, "q", "a.B")
    put(each_broker, "q", "a.B", limit_keys=("api",))
    take(each_broker, "q", 5, limits=LIMITS, paused_tasks=frozenset({"a.B"}))
    assert [one.use.key for one in uses_of(each_broker)] in ([], ["api"])
    assert all(one.use.parked == 0 for one in uses_of(each_broker))


def test_without_limits_no_key_is_used(each_broker: Broker) -> None:
    put(each_broker, "q")
    assert uses_of(each_broker) == []
