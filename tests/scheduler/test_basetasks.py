"""Maintenance tasks do what they say, count, and change nothing in a dry run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from mrq_broker_redis.broker import RedisBroker
from mrq_core.basetasks.cleaning import (
    Prune,
    RequeueInterruptedJobs,
    RequeueLostJobs,
    RequeueRetryJobs,
    RequeueStartedJobs,
)
from mrq_core.basetasks.indexes import EnsureIndexes
from mrq_core.basetasks.utils import JobAction
from mrq_core.client import ambient as clients
from mrq_core.composed import ComposedBroker
from mrq_core.contract.messages import ClaimRequest, Outcome, Settlement, Wanted
from mrq_core.contract.pair import Removal
from mrq_core.contract.record import Status
from mrq_core.errors import InvalidParams
from mrq_core.ids import new_id
from mrq_core.operations.checking import consistency
from mrq_core.operations.checking.consistency import consistency_findings
from mrq_core.operations.jobs import count_all
from mrq_core.tasks.loading import find_task
from mrq_core.tasks.task import Task
from tests import brokers
from tests.scheduler.conftest import Scene
from tests.support import until

DRY = {"dry_run": True}


@pytest.fixture
def ambient(scene: Scene) -> Iterator[Scene]:
    """The scene, whose client the tasks use."""
    token = clients.ambient_client.set(scene.client)
    yield scene
    clients.ambient_client.reset(token)


def run(task: type[Task], **params: Any) -> Any:
    return task().run(params)


def queued(scene: Scene, number: int = 1, queue: str = "default", **params: object) -> list[str]:
    return [scene.client.queue_job("tasks.report", params, queue) for _ in range(number)]


def statuses(scene: Scene, ids: list[str]) -> list[Status]:
    return [scene.client.fetch(job_id).status for job_id in ids]


def end(scene: Scene, outcome: Outcome, number: int = 10) -> list[str]:
    claimed = scene.claim(number)
    answers = scene.broker.settle(
        [Settlement(id=record.id, token=record.token or "", outcome=outcome) for record in claimed]
    )
    assert all(answers)
    return [record.id for record in claimed]


S = Status


def test_interrupted_jobs_are_queued_again(ambient: Scene) -> None:
    ids = queued(ambient, 3)
    end(ambient, Outcome(status=S.INTERRUPT, delay=60, is_retry=True))
    others = queued(ambient, 2)
    assert run(RequeueInterruptedJobs, **DRY) == {"requeued": 3}
    assert statuses(ambient, ids) == [S.INTERRUPT] * 3
    assert run(RequeueInterruptedJobs) == {"requeued": 3}
    assert statuses(ambient, ids) == [S.QUEUED] * 3
    assert {ambient.client.fetch(job_id).retry_count for job_id in ids} == {1}
    assert statuses(ambient, others) == [S.QUEUED] * 2
    assert run(RequeueInterruptedJobs) == {"requeued": 0}


@pytest.mark.parametrize(
    "name",
    [
        "cleaning.RequeueInterruptedJobs", "cleaning.RequeueLostJobs", "cleaning.RequeueRetryJobs",
        "cleaning.RequeueStartedJobs", "indexes.EnsureIndexes", "utils.JobAction",
    ],
)  # fmt: skip
def test_paths_of_mrq_0_9_lead_to_the_same_tasks(name: str) -> None:
    assert find_task(f"mrq.basetasks.{name}") is find_task(f"mrq_core.basetasks.{name}")


def test_an_at_most_once_job_is_not_repeated(ambient: Scene) -> None:
    made = ambient.client.scheduled_job("tasks.report", {}, job_id=new_id(), schedule="s")
    job_id = made.record.id
    ambient.broker.enqueue([replace(made, record=replace(made.record, at_most_once=True))])
    end(ambient, Outcome(status=S.INTERRUPT, ttl=3600))
    assert run(RequeueInterruptedJobs) == {"requeued": 0}
    assert statuses(ambient, [job_id]) == [S.INTERRUPT]


def test_retries_that_are_due_are_queued_again(ambient: Scene) -> None:
    ids = queued(ambient, 2)
    end(ambient, Outcome(status=S.RETRY, delay=0, is_retry=True))
    others = queued(ambient, 2)
    assert run(RequeueRetryJobs, **DRY) == {"requeued": 2}
    assert run(RequeueRetryJobs) == {"requeued": 2}
    assert statuses(ambient, ids) == [S.QUEUED] * 2
    assert statuses(ambient, others) == [S.QUEUED] * 2


def test_retries_that_are_due_later_keep_their_time(ambient: Scene) -> None:
    ids = queued(ambient, 2)
    end(ambient, Outcome(status=S.RETRY, delay=3600, is_retry=True))
    assert run(RequeueRetryJobs) == {"requeued": 0}
    assert statuses(ambient, ids) == [S.RETRY] * 2


def test_started_jobs_are_counted_and_none_is_repeated_by_its_age(ambient: Scene) -> None:
    ids = queued(ambient, 3)
    ambient.claim(2)
    wanted = (Wanted(name="default"),)
    ambient.broker.claim(ClaimRequest(worker="w", wanted=wanted, limit=1, lease=0.001))
    until(lambda: run(RequeueStartedJobs, timeout=0)["overdue"])
    assert run(RequeueStartedJobs, timeout=0) == {"requeued": 0, "started": 3, "overdue": 1}
    assert run(RequeueStartedJobs, **DRY) == {"requeued": 0, "started": 3, "overdue": 0}
    assert statuses(ambient, ids) == [S.STARTED] * 3


def test_expired_jobs_are_pruned(ambient: Scene) -> None:
    queued(ambient, 3)
    end(ambient, Outcome(status=S.SUCCESS, ttl=0))
    kept = queued(ambient, 1)
    assert run(Prune, **DRY) == {"removed": 3}
    assert run(Prune, **DRY) == {"removed": 3}
    assert run(Prune) == {"removed": 3}
    assert run(Prune) == {"removed": 0}
    assert statuses(ambient, kept) == [S.QUEUED]


def test_lost_jobs_and_indexes(ambient: Scene) -> None:
    queued(ambient, 3)
    has_entries = isinstance(ambient.broker, ComposedBroker | RedisBroker)
    assert run(RequeueLostJobs, **DRY) == {"examined": 3 if has_entries else 0, "requeued": 0}
    assert run(RequeueLostJobs) == run(RequeueLostJobs, **DRY)
    assert run(EnsureIndexes, **DRY) == run(EnsureIndexes)
    assert [finding.level for finding in consistency_findings(ambient.broker)] == ["ok"]


@pytest.mark.campaign
def test_lost_entries_are_found_and_put_back(tmp_path: Path) -> None:
    scene = Scene("redis+mongo", tmp_path)
    token = clients.ambient_client.set(scene.client)
    try:
        ids = queued(scene, 5)
        assert isinstance(scene.broker, ComposedBroker)
        scene.broker._queue.remove([Removal(id=job_id, version=1 << 30) for job_id in ids[:2]])
        assert run(RequeueLostJobs, **DRY) == {"examined": 5, "requeued": 2}
        (finding,) = consistency_findings(scene.broker)
        assert (finding.level, finding.message) == ("error", "2 unfinished jobs have no entry in default")
        assert run(RequeueStartedJobs, **DRY) == {"requeued": 2, "started": 0, "overdue": 0}
        assert run(RequeueLostJobs) == {"examined": 5, "requeued": 2}
        assert [finding.level for finding in consistency_findings(scene.broker)] == ["ok"]
        assert sorted(record.id for record in scene.claim()) == sorted(ids)
    finally:
        clients.ambient_client.reset(token)
        scene.close()


def test_the_comparison_finds_what_differs(ambient: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    queued(ambient, 3)
    count = count_all
    name = "count_all"
    monkeypatch.setattr(consistency, name, lambda *a: {name: n + 2 for name, n in count(*a).items()})
    has_entries = ambient.broker.has_separate_entries  # MongoDB has the job itself
    *entries, totals = consistency_findings(ambient.broker)
    lost = [("error", "2 unfinished jobs have no entry in default")] if has_entries else []
    assert [(one.level, one.message) for one in entries] == lost
    assert totals.message == "the totals differ from the jobs: 2 too few queued"
    monkeypatch.setattr(consistency, name, lambda *a: {name: n - 1 for name, n in count(*a).items()})
    (left,) = consistency_findings(ambient.broker)
    agrees = "queues, records, totals and indexes agree"
    assert left.message == ("1 entry has no unfinished job in default" if has_entries else agrees)
    calls: list[int] = []

    def once(*arguments: Any) -> Any:
        calls.append(1)
        found = count(*arguments)
        return {name: n + 2 for name, n in found.items()} if len(calls) == 1 else found

    monkeypatch.setattr(consistency, name, once)
    assert [finding.level for finding in consistency_findings(ambient.broker)] == ["ok"], "it was a race"


def test_a_consistent_broker_has_no_findings_in_any_state(ambient: Scene) -> None:
    queued(ambient, 5)
    queued(ambient, 2, queue="other/a")
    ambient.claim(2)
    end(ambient, Outcome(status=S.RETRY, delay=50), number=1)
    end(ambient, Outcome(status=S.FAILED, ttl=50), number=1)
    brokers.repair(ambient.broker)
    assert [finding.level for finding in consistency_findings(ambient.broker)] == ["ok"]


# --- JobAction ------------------------------------------------------------------------------


def test_job_action_changes_what_matches(ambient: Scene) -> None:
    first, second = queued(ambient, 2, a=1)
    (third,) = queued(ambient, queue="mail/x", a=2)
    keys: dict[str, Any] = {"status": "queued", "params": json.dumps({"a": 1})}
    assert run(JobAction, **keys, action="cancel", dry_run=True) == {"requeued": 0, "cancelled": 2}
    assert statuses(ambient, [first, second, third]) == [S.QUEUED] * 3
    assert run(JobAction, **keys, action="cancel") == {"requeued": 0, "cancelled": 2}
    assert statuses(ambient, [first, second, third]) == [S.CANCEL, S.CANCEL, S.QUEUED]
    answer = run(JobAction, id=first, action="requeue", destination_queue="other")
    assert answer == {"requeued": 1, "cancelled": 0}
    assert ambient.client.fetch(first).queue == "other"
    assert run(JobAction, queue="mail/", action="cancel") == {"requeued": 0, "cancelled": 1}
    assert statuses(ambient, [third]) == [S.CANCEL]
    assert run(
        JobAction, queue=["mail/x", "default"], status=["cancel", "failed"], action="requeue_retry"
    ) == {
        "requeued": 2,
        "cancelled": 0,
    }


def test_job_action_changes_jobs_of_the_millisecond_in_which_it_begins(
    ambient: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = queued(ambient, 2)
    queued_at = ambient.client.fetch(second).queued_at
    monkeypatch.setattr(type(ambient.broker), "now", lambda broker: queued_at)
    found = run(JobAction, path="tasks.report", action="cancel", dry_run=True)
    assert found == {"requeued": 0, "cancelled": 2}
    assert run(JobAction, path="tasks.report", action="cancel") == {"requeued": 0, "cancelled": 2}
    assert statuses(ambient, [first, second]) == [S.CANCEL, S.CANCEL]


def test_job_action_leaves_running_and_succeeded_jobs_alone(ambient: Scene) -> None:
    (done,) = queued(ambient)
    end(ambient, Outcome(status=S.SUCCESS, ttl=3600))
    assert run(JobAction, path="tasks.report", action="cancel") == {"requeued": 0, "cancelled": 0}
    assert statuses(ambient, [done]) == [S.SUCCESS]
    (running,) = queued(ambient)
    ambient.claim()
    assert run(JobAction, id=running, action="requeue") == {"requeued": 0, "cancelled": 0}
    assert run(JobAction, id=running, action="cancel") == {"requeued": 0, "cancelled": 1}
    record = ambient.client.fetch(running)
    assert (record.status, record.cancel_requested) == (S.STARTED, True)


def test_job_action_by_the_time_of_a_retry(ambient: Scene) -> None:
    queued(ambient, 2)
    end(ambient, Outcome(status=S.RETRY, delay=3600))
    keys: dict[str, Any] = {"status": "retry", "action": "requeue_retry"}
    assert run(JobAction, **keys, dateretry=0)["requeued"] == 0
    assert run(JobAction, **keys, dateretry="4000000000", dry_run="1")["requeued"] == 2
    assert run(JobAction, **keys, dateretry="1000")["requeued"] == 0
    assert run(JobAction, **keys, dateretry="2000-01-01T00:00:00+00:00")["requeued"] == 0
    assert run(JobAction, **keys, dateretry="2100-01-01T00:00:00+00:00")["requeued"] == 2


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"action": "cancel"}, "no filter is given"),
        ({"queue": "x"}, "no action is given: expected one of cancel, requeue, requeue_retry"),
        ({"action": "nope"}, "action is 'nope': expected one of cancel, requeue, requeue_retry"),
        ({"queue": "x", "action": "delete"}, "action is 'delete'"),
        ({"queue": [], "action": "cancel"}, "queue is"),
        ({"queue": "", "action": "cancel"}, "queue is"),
        ({"status": "done", "action": "cancel"}, "no status"),
        ({"id": "5", "action": "cancel"}, "^id is '5': expected 24 hex digits"),
        ({"id": "a" * 24 + ",", "action": "cancel"}, "id is"),
        ({"queue": "a,,b", "action": "cancel"}, "queue has an empty value"),
        ({"queue": "'a", "action": "cancel"}, "does not end with it"),
        ({"path": ["a.B", None], "action": "cancel"}, "path is"),
        ({"worker": 5, "action": "cancel"}, "worker is 5"),
        ({"params": "[]", "action": "cancel"}, "expected a JSON object"),
        ({"params": {}, "action": "cancel"}, "matches all jobs"),
        ({"params": "{}", "action": "cancel"}, "matches all jobs"),
        ({"params": "x", "action": "cancel"}, "not valid JSON"),
        ({"params": '{"a": 1, "a": 2}', "action": "cancel"}, "twice"),
        ({"queu": "x", "action": "cancel"}, "'queu' is no param"),
        ({"queue": "x", "action": "cancel", "dry_run": "yes"}, "dry_run is"),
        (
            {"queue": "x", "action": "requeue", "destination_queue": "x_raw"},
            "^destination_queue is .* raw queue",
        ),
        ({"queue": "x", "action": "requeue", "dateretry": "soon"}, "dateretry is"),
        ({"queue": "x", "action": "requeue", "dateretry": "nan"}, "dateretry is"),
        ({"queue": "x", "action": "requeue", "dateretry": 1e18}, "dateretry is"),
    ],
    ids=str,
)
def test_job_action_refuses_what_makes_no_sense(
    tmp_path: Path, params: dict[str, object], reason: str
) -> None:
    scene = Scene("sqlite", tmp_path)
    token = clients.ambient_client.set(scene.client)
    try:
        (job_id,) = queued(scene)
        with pytest.raises(InvalidParams, match=reason):
            run(JobAction, **params)
        assert statuses(scene, [job_id]) == [S.QUEUED]
    finally:
        clients.ambient_client.reset(token)
        scene.close()


def test_texts_of_job_action_hold_several_values_between_commas(ambient: Scene) -> None:
    (first,) = queued(ambient)
    (second,) = queued(ambient, queue="a,b")
    (third,) = queued(ambient, queue="mail/x")
    found = {"requeued": 0, "cancelled": 2}
    chosen: list[dict[str, Any]] = [
        {"id": f"{first}, {second}"},
        {"queue": "default,mail/"},
        {"queue": 'default, "a,b"'},
        {"queue": ["default", "a,b"]},
        {"queue": "default,mail/x", "status": "queued,failed", "path": "tasks.other,tasks.report"},
    ]
    for keys in chosen:
        assert run(JobAction, **keys, action="cancel", dry_run="True") == found, keys
    assert run(JobAction, queue="a,b", action="cancel", dry_run="1") == {"requeued": 0, "cancelled": 0}
    assert run(JobAction, queue='"a,b"', action="cancel", dry_run="false") == {"requeued": 0, "cancelled": 1}
    assert statuses(ambient, [first, second, third]) == [S.QUEUED, S.CANCEL, S.QUEUED]


CHANGING = (RequeueInterruptedJobs, RequeueRetryJobs, JobAction)
MAINTENANCE = (*CHANGING, RequeueStartedJobs, RequeueLostJobs, Prune, EnsureIndexes)


@pytest.mark.parametrize("task", MAINTENANCE, ids=lambda task: task.__name__)
def test_dry_run_takes_what_a_typed_task_takes(ambient: Scene, task: type[Task]) -> None:
    keys = {"path": "tasks.report", "action": "cancel"} if task is JobAction else {}
    queued(ambient, 2)
    end(ambient, Outcome(status=S.INTERRUPT, delay=60, is_retry=True), number=1)
    end(ambient, Outcome(status=S.RETRY, delay=0, is_retry=True), number=1)
    before = run(task, **keys, dry_run=True)
    for value in ("true", "TRUE", "1", 1):
        assert run(task, **keys, dry_run=value) == before, value
    refused: list[Any] = ["yes", "", " ", "2", 2, 1.0, -1, None, [], ["true"], {}, "nan"]
    for bad in refused:
        with pytest.raises(InvalidParams, match=r"^dry_run is .*: expected true or false$"):
            run(task, **keys, dry_run=bad)
    with pytest.raises(InvalidParams, match=r"'nope' is no param: expected some of .*dry_run"):
        run(task, **keys, nope=1)
    assert run(task, **keys, dry_run="0") == before
    assert task not in CHANGING or run(task, **keys, **DRY) != before


def test_the_timeout_of_started_jobs_is_a_number_or_its_text(ambient: Scene) -> None:
    for value in ("5", "0", "1e3", 0, 2.5):
        assert run(RequeueStartedJobs, timeout=value) == {"requeued": 0, "started": 0, "overdue": 0}
    refused: list[Any] = ["", "five", "-1", -1, "nan", "inf", "2e9", True, None, [], ["5"], {}]
    for bad in refused:
        with pytest.raises(InvalidParams, match=r"^timeout is .*: expected seconds"):
            run(RequeueStartedJobs, timeout=bad)


def test_maintenance_tasks_are_scheduled_like_others(ambient: Scene) -> None:
    for path in (
        "cleaning.RequeueInterruptedJobs",
        "cleaning.RequeueStartedJobs",
        "cleaning.RequeueLostJobs",
    ):
        ambient.schedule(path=f"mrq_core.basetasks.{path}", interval=300)
    ambient.tick(ambient.scheduler())
    assert len(ambient.claim()) == 3
