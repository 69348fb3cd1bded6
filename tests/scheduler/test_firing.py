"""Each fire makes one job, whatever happens to the schedulers, the broker and the clock."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from mrq_core import failpoints
from mrq_core.contract.messages import Enqueued, NewJob
from mrq_core.contract.record import Status
from mrq_core.errors import BrokerUnavailable
from mrq_core.ids import seconds_of
from mrq_core.operations import schedules
from mrq_core.scheduler import firing
from mrq_core.scheduler.due_times import TAKEOVER_MS
from mrq_core.scheduler.firing import Scheduler
from tests.scheduler.conftest import DAY, HOUR, MINUTE, NOON, SECOND, Scene


def test_a_fire_makes_a_job_of_the_schedule(scene: Scene) -> None:
    made = scene.schedule(interval=60, params={"a": 1}, queue="reports", priority=2)
    scheduler = scene.scheduler()
    assert scheduler.tick() <= 1
    (job,) = scene.jobs(made.name)
    assert (job.path, job.params, job.queue, job.priority) == ("tasks.report", {"a": 1}, "reports", 2)
    assert (job.schedule, job.status) == (made.name, Status.QUEUED)
    assert seconds_of(job.id) == NOON // 1000
    stored = scene.stored(made.name)
    assert (stored.last_fire, stored.next_fire, stored.fired) == (NOON, NOON + MINUTE, 1)
    assert [(fire.at, fire.job) for fire in stored.recent] == [(NOON, job.id)]
    scene.now_ms += MINUTE - 1
    scene.tick(scheduler)
    assert scene.stored(made.name).fired == 1
    scene.now_ms += 1
    scene.tick(scheduler)
    assert scene.stored(made.name).fired == 2


def test_several_schedulers_make_one_job_of_each_fire(scene: Scene) -> None:
    made = scene.schedule(interval=60)
    several = [scene.scheduler() for _ in range(5)]
    for _ in range(10):
        for scheduler in several:
            scene.tick(scheduler)
        scene.now_ms += MINUTE
    assert scene.fire_times(made.name, *range(NOON, NOON + 10 * MINUTE, MINUTE))
    assert scene.stored(made.name).fired == 10


class Crash(BaseException):
    """The death of a process."""


@pytest.mark.parametrize("point", ["scheduler.chosen", "scheduler.enqueued"])
@pytest.mark.parametrize("overlap", ["allow", "skip", "buffer_one", "cancel_other"])
def test_a_crash_neither_loses_nor_doubles_a_fire(
    scene: Scene, point: str, overlap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = scene.schedule(interval=60, overlap=overlap)

    def die(name: str) -> None:
        if name == point:
            raise Crash

    first, second = scene.scheduler(), scene.scheduler()
    monkeypatch.setattr(failpoints, "hook", die)
    with pytest.raises(Crash):
        first.tick()
    assert len(scene.jobs(made.name)) == (point == "scheduler.enqueued")
    assert scene.stored(made.name).fired == 0
    monkeypatch.setattr(failpoints, "hook", None)
    scene.now_ms += 5 * SECOND
    scene.tick(second)
    assert scene.fire_times(made.name, NOON)
    stored = scene.stored(made.name)
    assert (stored.fired, stored.overlapped, stored.next_fire) == (1, 0, NOON + MINUTE)


def test_a_job_that_has_ended_before_the_crash_is_repaired_is_not_doubled(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = scene.schedule(interval=60, overlap="skip")
    monkeypatch.setattr(firing.Scheduler, "_count", lambda *_: (_ for _ in ()).throw(Crash()))
    with pytest.raises(Crash):
        scene.scheduler().tick()
    monkeypatch.undo()
    (claimed,) = scene.claim()
    scene.settle(claimed)
    scene.now_ms += TAKEOVER_MS
    scene.tick(scene.scheduler())
    assert scene.fire_times(made.name, NOON)
    assert scene.stored(made.name).fired == 1


def test_a_scheduler_that_was_stopped_reads_again_before_it_fires(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = scene.schedule(interval=60)
    slow, other = scene.scheduler(), scene.scheduler()
    clock = itertools.count()
    plans = slow._plans

    def stopped(names: Sequence[str], now: int) -> Any:
        found = plans(names, now)
        if next(clock) == 0:  # SIGSTOP: the others fire, the job ends, and its record expires
            scene.tick(other)
            (claimed,) = scene.claim()
            scene.settle(claimed)
            scene.broker.remove([claimed.id])
            return found[0], found[1] - firing.STALE_SECONDS - 1
        return found

    monkeypatch.setattr(slow, "_plans", stopped)
    scene.tick(slow)
    assert scene.jobs(made.name) == []
    assert scene.stored(made.name).fired == 1


@pytest.mark.parametrize("stopped_for", [0, 90 * SECOND, 150 * SECOND])
@pytest.mark.parametrize("missed", ["skip", "once", "all"])
def test_schedulers_that_are_late_at_different_times_count_each_job(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, missed: str, stopped_for: int
) -> None:
    made = scene.schedule(interval=60, missed=missed)
    late, later = scene.scheduler(), scene.scheduler()
    scene.now_ms += 90 * SECOND  # two fires are due
    plans, times = late._plans, itertools.count()

    def overtaken(names: Sequence[str], now: int) -> Any:
        found = plans(names, now)
        if not next(times):
            scene.now_ms += stopped_for
            scene.tick(later)
        return found

    monkeypatch.setattr(late, "_plans", overtaken)
    scene.tick(late)
    for scheduler in (late, later, late):
        scene.now_ms += 60 * SECOND
        scene.tick(scheduler)
    stored, jobs = scene.stored(made.name), scene.jobs(made.name)
    assert sorted(fire.job for fire in stored.recent) == sorted(job.id for job in jobs)
    assert stored.fired == len(jobs)
    assert stored.pending == ()
    assert stored.last_fire is not None
    assert stored.fired + stored.missed == (stored.last_fire - NOON) // MINUTE + 1


# --- a broker that goes away ----------------------------------------------------------------


def _fails(times: int, call: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
    left = itertools.count()

    def called(*args: Any, **keys: Any) -> Any:
        if next(left) >= times:
            return call(*args, **keys)
        if after:
            call(*args, **keys)
        raise BrokerUnavailable("the server is away")

    return called


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", ["enqueue", "get", "compare_and_set", "now", "list"])
def test_a_broker_that_goes_away_in_the_middle_loses_and_doubles_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, call: str, after: bool
) -> None:
    made = [scene.schedule(interval=60) for _ in range(3)]
    waits: list[float] = []
    scheduler = scene.scheduler()

    def wait(seconds: float) -> None:
        waits.append(seconds)
        scene.now_ms += SECOND  # a lost answer of a choice leaves its fires to any scheduler, after a time
        if len(waits) == 10:
            scheduler.stop()

    monkeypatch.setattr(scheduler, "_wait", wait)
    if call == "now":
        monkeypatch.setattr(scheduler, "_now", _fails(2, scheduler._now, after=after))
    else:
        owner: Any = scene.broker if call == "enqueue" else type(scene.broker.state)
        monkeypatch.setattr(owner, call, _fails(2, getattr(owner, call), after=after))
    scheduler.run()
    for one in made:
        assert scene.fire_times(one.name, NOON)
        assert scene.stored(one.name).fired == 1


# --- the clock ------------------------------------------------------------------------------


def test_a_clock_that_is_set_back_is_told_once(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.schedule(interval=60)
    scheduler = scene.scheduler()
    for step, lines in ((0, 0), (-2 * SECOND, 0), (-HOUR, 1), (SECOND, 1), (HOUR, 1)):
        scene.now_ms += step
        scheduler.tick()
        told = [one.getMessage() for one in caplog.records if "clock_back" in one.getMessage()]
        assert len(told) == lines, step
    assert "seconds=3600" in told[0]


@pytest.mark.parametrize("trigger", [{"interval": 600}, {"cron": "*/10 * * * *"}], ids=["interval", "cron"])
@pytest.mark.parametrize("missed", ["skip", "once", "all"])
@pytest.mark.parametrize("step", [HOUR, -HOUR], ids=["forward", "back"])
def test_a_clock_that_steps_an_hour_repeats_no_fire(
    scene: Scene, trigger: dict[str, object], missed: str, step: int
) -> None:
    made = scene.schedule(**trigger, missed=missed)
    scheduler = scene.scheduler()
    clock = NOON

    def run(minutes: int) -> None:
        nonlocal clock
        for _ in range(minutes):
            scene.now_ms = clock
            scene.tick(scheduler)
            clock += MINUTE

    run(61)
    before = {job.id for job in scene.jobs(made.name)}
    assert scene.stored(made.name).fired == len(before) == (7 if "interval" in trigger else 6)
    clock += step
    run(61)
    if step < 0:
        clock = NOON + 62 * MINUTE
    run(120)
    stored, jobs = scene.stored(made.name), scene.jobs(made.name)
    fires = [fire for fire in range(NOON, clock, 10 * MINUTE) if fire > NOON or "interval" in trigger]
    assert stored.fired == len(jobs) == len({job.id for job in jobs})
    assert stored.fired + stored.missed == len(fires)
    assert before <= {job.id for job in jobs}
    if step < 0 or missed == "all":
        assert scene.fire_times(made.name, *fires)


# --- jitter, ends, and odd schedules --------------------------------------------------------


def test_jitter_delays_each_fire_and_keeps_its_id(scene: Scene) -> None:
    made = scene.schedule(interval=60, jitter=50)
    scheduler = scene.scheduler()
    seen: list[int] = []
    for second in range(300):
        scene.now_ms = NOON + second * SECOND
        scene.tick(scheduler)
        if scene.stored(made.name).fired > len(seen):
            seen.append(second)
    assert scene.fire_times(made.name, *range(NOON, NOON + 5 * MINUTE, MINUTE))
    assert [second // 60 for second in seen] == [0, 1, 2, 3, 4]
    assert len({second % 60 for second in seen}) > 1


def test_a_schedule_ends(scene: Scene) -> None:
    made = scene.schedule(interval=60, start="2026-06-01T12:01", end="2026-06-01T12:03")
    scheduler = scene.scheduler()
    for _ in range(10):
        scene.tick(scheduler)
        scene.now_ms += MINUTE
    assert scene.fire_times(made.name, *(NOON + n * MINUTE for n in (1, 2, 3)))
    stored = scene.stored(made.name)
    assert (stored.next_fire, stored.fires) == (None, False)
    assert schedules.upcoming(stored, 3) == []


def test_a_task_that_does_not_exist_makes_jobs_that_fail_in_the_worker(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    made = scene.schedule(interval=60, path="nowhere.Nothing")
    scene.tick(scene.scheduler())
    (job,) = scene.jobs(made.name)
    assert (job.path, job.queue) == ("nowhere.Nothing", "default")
    assert "schedule.task_missing path=nowhere.Nothing" in caplog.text


@pytest.mark.parametrize("overlap", ["skip", "buffer_one", "cancel_other"])
@pytest.mark.parametrize(
    "name", ["a:b:c", "x/y/", 'größe "1" {tag}', "*?[a]", "schedules:x", "-", "\U0001f600" * 100]
)
def test_odd_names_are_names(scene: Scene, name: str, overlap: str) -> None:
    scene.schedule(interval=60, name=name, overlap=overlap)
    other = scene.schedule(interval=60, overlap=overlap).name
    scheduler = scene.scheduler()
    for _ in range(3):
        scene.tick(scheduler)
        scene.now_ms += MINUTE
    made = {"skip": 1, "buffer_one": 1, "cancel_other": 3}[overlap]
    assert len(scene.jobs(name)) == len(scene.jobs(other)) == made
    assert {job.schedule for job in scene.claim()} == {name, other}
    assert [stored.name for stored in schedules.list_schedules(scene.broker)] == sorted([name, other])


def test_a_value_that_cannot_be_read_harms_no_other_schedule(scene: Scene) -> None:
    good = scene.schedule(interval=60)
    bad = scene.schedule(interval=60)
    value: Any = schedules.stored_value(bad)
    odd: list[Any] = ["text", None, 5, {}, {**value, "next_fire": "soon"}]
    zone = {**value, "definition": {**value["definition"], "timezone": "Mars/Olympus"}}
    huge = {**value, "anchor": 10**18, "next_fire": 10**17}
    for number, one in enumerate([*odd, zone, huge]):
        scene.broker.state.put("schedules", f"odd{number}", one)
    scheduler = scene.scheduler()
    for _ in range(3):
        scene.tick(scheduler)
        scene.now_ms += MINUTE
    assert scene.stored(good.name).fired == scene.stored(bad.name).fired == 3


def test_a_job_that_cannot_be_queued_is_dropped_and_named(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = scene.schedule(interval=60)

    def refuse(record: object) -> None:
        raise ValueError("not on Mondays")

    monkeypatch.setattr(scene.client.plugins, "before_enqueue", refuse)
    scene.tick(scene.scheduler())
    stored = scene.stored(made.name)
    assert (stored.fired, stored.dropped, stored.next_fire) == (0, 1, NOON + MINUTE)
    assert "not on Mondays" in stored.error


# --- cost -----------------------------------------------------------------------------------


def test_thousands_of_schedules_cost_a_bounded_tick(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firing, "STALE_SECONDS", 3600.0)  # a busy machine makes each tick read all again
    base = scene.schedule(interval=3600, name="base")
    value: Any = schedules.stored_value(base)
    number = 1000
    for index in range(number):
        name = f"many{index}"
        definition = {**value["definition"], "name": name}
        scene.broker.state.put(
            "schedules", name, {**value, "definition": definition, "next_fire": NOON + DAY}
        )
    calls: list[str] = []
    state = type(scene.broker.state)
    for call in ("get", "list", "compare_and_set"):
        original = getattr(state, call)

        def counted(self: Any, *args: Any, _call: str = call, _original: Any = original, **keys: Any) -> Any:
            calls.append(_call)
            return _original(self, *args, **keys)

        monkeypatch.setattr(state, call, counted)
    scheduler = scene.scheduler()
    scene.tick(scheduler)
    calls.clear()
    scheduler.tick()
    assert calls == ["get"], "an idle tick reads one counter"
    enqueued: list[int] = []
    enqueue = scene.broker.enqueue

    def counting(jobs: Sequence[NewJob]) -> list[Enqueued]:
        enqueued.append(len(jobs))
        return enqueue(jobs)

    monkeypatch.setattr(scene.broker, "enqueue", counting)
    scene.now_ms += DAY
    ticks = 0
    while True:
        calls.clear()
        pause = scheduler.tick()
        ticks += 1
        assert len(calls) <= 3 * firing.BATCH + 2
        if pause > 0:
            break
    assert sum(enqueued) == number + 1
    assert len(enqueued) <= ticks == -(-(number + 1) // firing.BATCH)
    assert sum(scene.stored(f"many{index}").fired for index in range(0, number, 50)) == number // 50


def test_a_backlog_of_many_schedules_is_made_in_bounded_steps(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [scene.schedule(interval=60, missed="all", missed_limit=1000).name for _ in range(5)]
    enqueued: list[int] = []
    enqueue = scene.broker.enqueue

    def counting(jobs: Sequence[NewJob]) -> list[Enqueued]:
        enqueued.append(len(jobs))
        return enqueue(jobs)

    monkeypatch.setattr(scene.broker, "enqueue", counting)
    scene.now_ms += 599 * MINUTE
    scheduler = scene.scheduler()
    steps: list[int] = []
    while True:
        enqueued.clear()
        pause = scheduler.tick()
        steps.append(sum(enqueued))
        if pause > 0:
            break
    assert sum(steps) == 5 * 600
    assert max(steps) <= 1200
    assert [scene.stored(name).fired for name in made] == [600] * 5


def test_a_backlog_leaves_time_for_the_jobs_of_a_worker(scene: Scene) -> None:
    for _ in range(2 * firing.BATCH + 1):
        scene.schedule(interval=3600)
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if seconds:
            scheduler.stop()

    scheduler = Scheduler(scene.client, None, now=scene.now, wait=wait)
    scheduler.run()
    assert waits == [0, 0, firing.PAUSE]


def test_the_pause_ends_at_the_next_fire(scene: Scene) -> None:
    scene.schedule(interval=60)
    scheduler: Scheduler = scene.scheduler()
    scene.tick(scheduler)
    scene.now_ms = NOON + MINUTE - 250
    assert scheduler.tick() == 0.25
    scene.now_ms = NOON + MINUTE - 1
    assert scheduler.tick() == 0.001
    scene.now_ms = NOON + 10 * SECOND
    assert scheduler.tick() == firing.PAUSE
