"""What happens to missed fires, and to jobs that still run when the next fire is due."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrq_core.client.schedules import cancel_others
from mrq_core.contract.record import Status
from mrq_core.contract.shared_state import Versions
from mrq_core.operations import schedules
from mrq_core.scheduler.definitions import definition_from, trigger_of
from mrq_core.scheduler.policies import due_at, due_fires, fire_id
from tests.scheduler.conftest import DAY, HOUR, MINUTE, NOON, SECOND, Scene

OFF = 3 * DAY + 30 * MINUTE
"""The time in which no scheduler runs: three days, and half an hour."""


@pytest.mark.parametrize(
    ("keys", "made", "missed", "dropped"),
    [
        ({"missed": "skip"}, [], 72, 0),
        ({"missed": "skip", "grace": 1800}, [72], 71, 0),
        ({"missed": "once"}, [72], 71, 0),
        ({}, [72], 71, 0),
        ({"missed": "once", "grace": 60}, [], 72, 0),
        ({"missed": "all"}, list(range(1, 73)), 0, 0),
        ({"missed": "all", "missed_limit": 5}, [68, 69, 70, 71, 72], 0, 67),
        ({"missed": "all", "grace": 3 * 3600}, [70, 71, 72], 69, 0),
        ({"missed": "all", "grace": 3 * 3600, "missed_limit": 2}, [71, 72], 0, 70),
    ],
    ids=str,
)
@pytest.mark.parametrize("trigger", [{"interval": 3600}, {"cron": "0 * * * *"}], ids=["interval", "cron"])
def test_after_three_days_off(
    scene: Scene,
    trigger: dict[str, object],
    keys: dict[str, object],
    made: list[int],
    missed: int,
    dropped: int,
) -> None:
    schedule = scene.schedule(**trigger, **keys)
    scheduler = scene.scheduler()
    scene.tick(scheduler)
    first = [NOON] if "interval" in trigger else []
    assert scene.fire_times(schedule.name, *first)
    scene.now_ms += OFF
    again = scene.scheduler()
    scene.tick(again)
    fires = [*first, *(NOON + hour * HOUR for hour in made)]
    assert scene.fire_times(schedule.name, *fires)
    stored = scene.stored(schedule.name)
    assert (stored.missed, stored.dropped, stored.fired) == (missed, dropped, len(fires))
    assert (stored.last_fire, stored.next_fire) == (NOON + 72 * HOUR, NOON + 73 * HOUR)
    scene.now_ms = NOON + 73 * HOUR
    scene.tick(again)
    assert scene.fire_times(schedule.name, *fires, NOON + 73 * HOUR)


def test_a_daily_job_that_was_missed_in_the_morning_is_made_up_for_later_that_day(scene: Scene) -> None:
    schedule = scene.schedule(dailytime="13:00")
    scene.now_ms += 5 * HOUR
    scene.tick(scene.scheduler())
    assert scene.fire_times(schedule.name, NOON + HOUR)
    assert scene.stored(schedule.name).missed == 0


def test_a_fire_that_is_a_little_late_is_no_missed_fire(scene: Scene) -> None:
    schedule = scene.schedule(interval=60, missed="skip")
    scheduler = scene.scheduler()
    scene.now_ms += 30 * SECOND
    scene.tick(scheduler)
    assert scene.fire_times(schedule.name, NOON)
    assert scene.stored(schedule.name).missed == 0


@settings(max_examples=300, deadline=None)
@given(
    keys=st.fixed_dictionaries(
        {
            "missed": st.sampled_from(["skip", "once", "all"]),
            "missed_limit": st.integers(1, 6),
            "grace": st.sampled_from([None, 0, 30, 200]),
            "jitter": st.sampled_from([0, 20, 59]),
        }
    ),
    steps=st.lists(st.integers(0, 700), max_size=30),
)
def test_every_fire_is_made_once_or_counted_once(keys: dict[str, object], steps: list[int]) -> None:
    definition = definition_from({"path": "a.b", "name": "n", "interval": 60, **keys})
    trigger = trigger_of(definition, NOON)
    now, following, last = NOON, NOON, NOON - MINUTE
    made: list[int] = []
    others = 0
    for step in steps:
        now += step * SECOND
        due = due_fires(definition, trigger, following, now)
        if due is None:
            assert due_at(definition, following) > now
            continue
        assert due.next is not None
        assert last < due.last < due.next
        assert due_at(definition, due.last) <= now < due_at(definition, due.next)
        made += due.fires
        others += due.missed + due.dropped
        following, last = due.next, due.last
    assert made == sorted(set(made))
    assert len(made) + others == (following - NOON) // MINUTE
    if keys["missed"] == "all" and keys["grace"] is None and others == 0:
        assert made == list(range(NOON, following, MINUTE))


# --- overlap --------------------------------------------------------------------------------


def statuses(scene: Scene, name: str) -> list[Status]:
    return [job.status for job in scene.jobs(name)]


def fire_next(scene: Scene) -> None:
    """The next fire of schedules of one minute."""
    scene.now_ms += MINUTE
    scene.tick(scene.scheduler())


S = Status


def test_allow_lets_jobs_overlap(scene: Scene) -> None:
    name = scene.schedule(interval=60).name
    scene.tick(scene.scheduler())
    fire_next(scene)
    assert len(scene.claim()) == 2
    fire_next(scene)
    assert statuses(scene, name) == [S.STARTED, S.STARTED, S.QUEUED]
    assert scene.stored(name).overlapped == 0


def test_skip_makes_no_job_while_one_is_unfinished(scene: Scene) -> None:
    name = scene.schedule(interval=60, overlap="skip").name
    scene.tick(scene.scheduler())
    fire_next(scene)  # the first one waits
    (claimed,) = scene.claim()
    fire_next(scene)  # it runs
    assert scene.fire_times(name, NOON)
    scene.settle(claimed)
    fire_next(scene)
    assert scene.fire_times(name, NOON, NOON + 3 * MINUTE)
    stored = scene.stored(name)
    assert (stored.fired, stored.overlapped) == (2, 2)


def test_buffer_one_keeps_one_job_waiting_behind_the_running_one(scene: Scene) -> None:
    name = scene.schedule(interval=60, overlap="buffer_one").name
    scene.tick(scene.scheduler())
    (running,) = scene.claim()
    fire_next(scene)
    assert scene.claim() == [], "one at a time"
    fire_next(scene)
    fire_next(scene)
    assert statuses(scene, name) == [S.STARTED, S.QUEUED]
    assert scene.stored(name).overlapped == 2
    scene.settle(running)
    (buffered,) = scene.claim()
    assert scene.fire_times(name, NOON, NOON + MINUTE)
    fire_next(scene)
    assert statuses(scene, name) == [S.SUCCESS, S.STARTED, S.QUEUED]
    scene.settle(buffered)
    assert len(scene.claim()) == 1


@pytest.mark.parametrize("overlap", ["buffer_one", "cancel_other"])
def test_jobs_run_one_at_a_time_before_a_worker_has_read_any_rule(scene: Scene, overlap: str) -> None:
    name = scene.schedule(interval=60, overlap=overlap).name
    scene.tick(scene.scheduler())
    (running,) = scene.claim(limits={})
    fire_next(scene)
    assert [scene.claim(limits={}) for _ in range(3)] == [[]] * 3
    scene.settle(running)
    (following,) = scene.claim(limits={})
    assert [job.id for job in scene.jobs(name)] == [running.id, following.id]


def test_cancel_other_cancels_what_waits_and_interrupts_what_runs(scene: Scene) -> None:
    name = scene.schedule(interval=60, overlap="cancel_other").name
    other = scene.schedule(interval=60).name
    scene.tick(scene.scheduler())
    fire_next(scene)
    assert statuses(scene, name) == [S.CANCEL, S.QUEUED]
    claimed = [job for job in scene.claim() if job.schedule == name]
    fire_next(scene)
    first, running, waiting = scene.jobs(name)
    assert (first.status, running.status, running.cancel_requested) == (S.CANCEL, S.STARTED, True)
    assert waiting.status == S.QUEUED
    assert scene.broker.poll("w", Versions()).interrupts == (running.id,)
    assert all(job.schedule == other for job in scene.claim()), "one at a time"
    scene.settle(claimed[0], S.FAILED)
    assert [job.id for job in scene.claim()] == [waiting.id]
    assert not any(job.cancel_requested for job in scene.jobs(other))


def test_a_scheduler_that_is_behind_cancels_no_later_job(scene: Scene) -> None:
    stored = scene.schedule(interval=60, overlap="cancel_other")
    scene.tick(scene.scheduler())
    fire_next(scene)
    cancel_others(scene.client, stored.definition, fire_id(stored.name, NOON))
    assert statuses(scene, stored.name) == [S.CANCEL, S.QUEUED]


def test_cancel_other_cancels_all_but_the_last_job_of_a_backlog(scene: Scene) -> None:
    name = scene.schedule(interval=60, overlap="cancel_other", missed="all").name
    scene.now_ms += 5 * MINUTE
    scene.tick(scene.scheduler())
    assert statuses(scene, name) == [S.CANCEL] * 5 + [S.QUEUED]


def test_the_rule_of_the_overlap_policies_is_restored(scene: Scene) -> None:
    name = scene.schedule(interval=60, overlap="buffer_one").name
    scene.broker.state.delete("limits", ["schedules"])
    scene.tick(scene.scheduler())
    assert scene.broker.rules().limits["schedules"].concurrency == 1
    (job,) = scene.jobs(name)
    assert job.limit_keys == (f"schedules:{name}",)


# --- failures -------------------------------------------------------------------------------


def test_failures_in_a_row_pause_the_schedule(scene: Scene) -> None:
    name = scene.schedule(interval=60, pause_after=3).name
    scene.tick(scene.scheduler())
    for status in (S.FAILED, S.FAILED, S.SUCCESS, S.FAILED, S.TIMEOUT):
        scene.settle(scene.claim()[0], status)
        fire_next(scene)
    stored = scene.stored(name)
    assert (stored.fired, stored.paused_at) == (6, None)
    scene.settle(scene.claim()[0], S.MAXRETRIES)
    fire_next(scene)
    stored = scene.stored(name)
    assert stored.paused_at is not None
    assert stored.pause_reason == "3 failures in a row"
    fire_next(scene)
    assert scene.stored(name).fired == 6


def test_a_resumed_schedule_forgets_its_failures(scene: Scene) -> None:
    name = scene.schedule(interval=60, pause_after=1).name
    scene.tick(scene.scheduler())
    scene.settle(scene.claim()[0], S.FAILED)
    fire_next(scene)
    assert scene.stored(name).paused_at is not None
    schedules.resume_schedules(scene.broker, [name])
    stored = scene.stored(name)
    assert stored.next_fire is not None
    scene.now_ms = stored.next_fire
    scene.tick(scene.scheduler())
    assert (scene.stored(name).fired, scene.stored(name).paused_at) == (2, None)
