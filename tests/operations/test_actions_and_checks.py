"""Bulk actions and checks, on the in-memory broker."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import pytest

from mrq_core.config.settings import Config
from mrq_core.contract.codec import JsonObject
from mrq_core.contract.messages import Cancel, ChangeResult, Move, NewJob, Remove, Requeue, Unique
from mrq_core.contract.queries import Finding, JobFilter
from mrq_core.contract.record import JobRecord, Status
from mrq_core.errors import BrokerUnavailable, ConfigError
from mrq_core.ids import new_id
from mrq_core.operations.actions import (
    Change,
    SetPriority,
    apply_to_ids,
    apply_to_matching,
    refusals,
    summary,
)
from mrq_core.operations.checking.checks import broker_findings, check_task_options, config_findings
from mrq_core.operations.task_descriptions import publish_task
from mrq_core.plugins.manager import Plugins
from mrq_core.tasks.describing import TaskDescription
from mrq_core.testing import MemoryBroker
from tests.dashboard.scenes import put

NUMBER = 2500


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


def enqueue(broker: MemoryBroker, number: int) -> list[str]:
    now = datetime.now(UTC)
    records = [
        JobRecord(id=new_id(), path="tasks.Add", params={}, queue="default", queued_at=now, updated_at=now)
        for _ in range(number)
    ]
    ids: list[str] = []
    for start in range(0, number, 1000):
        chunk = [NewJob(record=record) for record in records[start : start + 1000]]
        ids += [answer.id for answer in broker.enqueue(chunk)]
    return ids


def test_all_that_match_are_acted_on_in_steps(broker: MemoryBroker) -> None:
    enqueue(broker, NUMBER)
    seen: list[int] = []
    done = apply_to_matching(
        broker, JobFilter(queues=("default",)), Cancel(), on_step=lambda so_far: seen.append(so_far.total())
    )
    assert done == Counter({ChangeResult.DONE: NUMBER})
    assert len(seen) >= 3
    assert seen == sorted(seen)
    assert broker.count(JobFilter(statuses=(Status.CANCEL,))).numbers == {"": NUMBER}


def test_ids_are_acted_on_once_each_and_answered_one_by_one(broker: MemoryBroker) -> None:
    ids = enqueue(broker, 1500)
    answers = apply_to_ids(broker, [*ids, ids[0], "0" * 24], Move(queue="slow"))
    assert [job_id for job_id, _ in answers] == [*ids, "0" * 24]
    assert Counter(change for _, change in answers) == {ChangeResult.DONE: 1500, ChangeResult.UNKNOWN: 1}


def test_each_action_reaches_its_method(broker: MemoryBroker) -> None:
    [job_id] = enqueue(broker, 1)
    actions = (Requeue(), Cancel(), Requeue(queue="high"), Move(queue="low"), Remove())
    changes = [apply_to_ids(broker, [job_id], action)[0][1] for action in actions]
    assert changes == [
        ChangeResult.REFUSED,
        ChangeResult.DONE,
        ChangeResult.DONE,
        ChangeResult.DONE,
        ChangeResult.DONE,
    ]
    assert broker.get([job_id]) == [None]


def test_jobs_that_were_not_changed_are_told_with_their_reason(broker: MemoryBroker) -> None:
    now = datetime.now(UTC)
    first, second = (
        JobRecord(id=new_id(), path="a.B", params={}, queue="q", queued_at=now, updated_at=now) for _ in "ab"
    )
    key = Unique(key="user 1")
    broker.enqueue([NewJob(record=first, unique=key)])
    broker.cancel([first.id], Cancel())
    broker.enqueue([NewJob(record=second, unique=key)])
    [free] = enqueue(broker, 1)
    answers = apply_to_ids(broker, [free, "0" * 24, first.id, second.id], Requeue())
    assert refusals(broker, answers) == [
        (free, "its status is queued"),
        (second.id, "its status is queued"),
        (first.id, "another job holds its unique key"),
        ("0" * 24, "there is no such job; it was removed, or has expired"),
    ]
    assert refusals(broker, apply_to_ids(broker, [free], Cancel())) == []


@pytest.mark.parametrize(
    ("done", "action", "text"),
    [
        ({}, Requeue(), "0 jobs requeued"),
        ({ChangeResult.DONE: 1}, Move(queue="q"), "1 job moved"),
        (
            {ChangeResult.DONE: 1, ChangeResult.UNCHANGED: 2},
            Move(queue="q"),
            "1 job moved; 2 unchanged: already in that queue",
        ),
        (
            {ChangeResult.UNCHANGED: 2},
            SetPriority(priority=3),
            "0 jobs given the priority 3; 2 unchanged: they have this priority already",
        ),
        ({ChangeResult.DONE: 1200, ChangeResult.UNKNOWN: 2}, Remove(), "1,200 jobs removed; 2 unknown"),
        (
            {ChangeResult.REQUESTED: 1, ChangeResult.REFUSED: 3},
            Cancel(),
            "0 jobs cancelled; 1 started: they may finish, but do not run again; "
            "3 refused: their status does not allow it",
        ),
        (
            {ChangeResult.REQUESTED: 2},
            Cancel(interrupt=True),
            "0 jobs cancelled; 2 started: their workers are asked to stop them, if they live",
        ),
        ({ChangeResult.TOO_LARGE: 2}, Requeue(), "0 jobs requeued; 2 refused: too large to run again"),
        ({ChangeResult.HELD: 1}, Requeue(), "0 jobs requeued; 1 refused: another job holds their unique key"),
    ],
)
def test_the_summary_counts_each_answer(done: dict[ChangeResult, int], action: Change, text: str) -> None:
    assert summary(Counter(done), action) == text


def test_options_of_tasks_are_checked_by_name_and_value() -> None:
    check_task_options(Config(tasks={"tasks.Add": {"queue": "mail", "timeout": 3}}))
    with pytest.raises(ConfigError, match=r"TASKS\['tasks.Add'\]: 'timout' is not an option"):
        check_task_options(Config(tasks={"tasks.Add": {"timout": 3}}))
    with pytest.raises(ConfigError, match="priority"):
        check_task_options(Config(tasks={"tasks.Add": {"priority": 30}}))


def test_findings_about_the_configuration_name_what_is_wrong() -> None:
    bad = Config(tasks={"tasks.Add": {"priority": 30}})
    assert [f.level for f in config_findings(bad, Plugins(bad))] == ["ok", "ok", "error"]
    missing = Config(tasks={"no_such_module_at_all.Add": {"priority": 3}})
    assert config_findings(missing, Plugins(missing))[-1].level == "warning"


def test_a_broker_that_is_away_is_a_finding(broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(finding.level == "ok" for finding in broker_findings(broker))

    def away() -> list[Finding]:
        raise BrokerUnavailable("no answer")

    monkeypatch.setattr(broker, "check", away)
    assert [(f.level, f.message) for f in broker_findings(broker)] == [("error", "no answer")]


@pytest.mark.parametrize("way", ["filter", "ids"])
def test_a_cancel_keeps_each_job_as_long_as_its_task_says(broker: MemoryBroker, way: str) -> None:
    published: dict[str, JsonObject] = {"a.Short": {"cancel_ttl": 5.0}, "a.Odd": {"cancel_ttl": True}}
    for path, options in published.items():
        publish_task(broker, TaskDescription(path=path, file="x", options=options, version="1"))
    paths = ("a.Short", "a.Odd", "a.Plain", "a.Unknown")
    ids = [put(broker, "q", path) for path in paths for _ in range(2)]
    if way == "ids":
        answers = apply_to_ids(broker, [*ids, "0" * 24], Cancel(ttl=60.0))
        assert answers == [*((one, ChangeResult.DONE) for one in ids), ("0" * 24, ChangeResult.UNKNOWN)]
    else:
        assert apply_to_matching(broker, JobFilter(queues=("q",)), Cancel(ttl=60.0))[ChangeResult.DONE] == 8
    kept = {}
    for record in broker.get(ids):
        assert record is not None
        assert record.ended_at is not None
        assert record.expires_at is not None
        kept[record.path] = (record.expires_at - record.ended_at).total_seconds()
    assert kept == {"a.Short": 5.0, "a.Odd": 60.0, "a.Plain": 60.0, "a.Unknown": 60.0}
