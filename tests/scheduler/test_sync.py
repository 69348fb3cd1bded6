"""Schedules of configs follow their configs, and what people change stays."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from mrq_core.client.schedules import add_schedule
from mrq_core.clock import to_ms
from mrq_core.errors import InvalidValue
from mrq_core.operations import schedule_sync, schedules
from mrq_core.scheduler.definitions import Definition, definition_from
from tests.scheduler.conftest import DAY, MINUTE, Scene


def defined(name: str, **keys: object) -> Definition:
    trigger: dict[str, object] = {} if {"cron", "dailytime"} & set(keys) else {"interval": 60}
    return definition_from({"path": "tasks.report", "name": name, **trigger, **keys})


def names(scene: Scene) -> list[str]:
    return [stored.name for stored in schedules.list_schedules(scene.broker)]


def sync(scene: Scene, *definitions: Definition) -> schedule_sync.Synced:
    return schedule_sync.sync_schedules(scene.broker, definitions)


def now(scene: Scene) -> int:
    return to_ms(scene.broker.now())


def live(scene: Scene) -> None:
    """Lets the schedulers of the scene follow the clock of the broker, by which a sync counts."""
    scene.now_ms = now(scene)


def test_a_sync_adds_changes_and_removes(scene: Scene) -> None:
    assert sync(scene, defined("a"), defined("b"), defined("c")).added == ("a", "b", "c")
    assert sync(scene, defined("a"), defined("b"), defined("c")) == schedule_sync.Synced()
    synced = sync(scene, defined("a"), defined("b", queue="other"), defined("d"))
    assert (synced.added, synced.changed, synced.removed) == (("d",), ("b",), ("c",))
    assert names(scene) == ["a", "b", "d"]
    assert scene.stored("b").definition.queue == "other"
    with pytest.raises(InvalidValue, match="there is no schedule 'c'"):
        scene.stored("c")


def test_an_interval_fires_at_once_and_a_time_of_day_that_has_passed_waits(scene: Scene) -> None:
    moment = datetime.fromtimestamp(now(scene) / 1000, UTC)
    passed = moment.replace(microsecond=0).time()
    sync(scene, defined("often"), defined("daily", dailytime=passed))
    often, daily = scene.stored("often"), scene.stored("daily")
    assert often.next_fire == often.anchor <= now(scene)
    assert daily.next_fire is not None
    assert daily.next_fire - now(scene) > DAY - 10 * MINUTE


def test_a_pause_and_the_counts_survive_a_changed_definition(scene: Scene) -> None:
    sync(scene, defined("a"))
    live(scene)
    scene.tick(scene.scheduler())
    schedules.pause_schedules(scene.broker, ["a"])
    sync(scene, defined("a", queue="other", params={"x": 1}))
    stored = scene.stored("a")
    assert stored.paused_at is not None
    assert (stored.fired, stored.definition.queue) == (1, "other")
    sync(scene, defined("a", cron="@daily"))
    assert scene.stored("a").paused_at is not None


def test_other_params_keep_the_next_fire_and_another_trigger_does_not(scene: Scene) -> None:
    sync(scene, defined("a"))
    live(scene)
    scene.tick(scene.scheduler())
    before = scene.stored("a")
    sync(scene, defined("a", params={"x": 1}, overlap="skip"))
    assert scene.stored("a").next_fire == before.next_fire
    sync(scene, defined("a", interval=3600))
    assert before.last_fire is not None
    assert scene.stored("a").next_fire == before.last_fire + 3_600_000, "it does not fire at once again"


def test_what_people_have_added_stays(scene: Scene) -> None:
    schedules.add_schedule(scene.broker, defined("mine"))
    sync(scene, defined("a"))
    sync(scene)
    assert names(scene) == ["mine"]
    with pytest.raises(InvalidValue, match="there is a schedule 'mine' already"):
        schedules.add_schedule(scene.broker, defined("mine"))
    schedules.add_schedule(scene.broker, defined("mine", queue="other"), replaces=True)
    assert scene.stored("mine").definition.queue == "other"


def test_a_schedule_that_a_person_deleted_stays_deleted_until_its_definition_changes(scene: Scene) -> None:
    sync(scene, defined("a"), defined("b"))
    schedules.delete_schedules(scene.broker, ["a", "b"])
    assert names(scene) == []
    assert sync(scene, defined("a"), defined("b")) == schedule_sync.Synced()
    schedules.resume_schedules(scene.broker, ["a"])
    assert names(scene) == ["a"]
    assert sync(scene, defined("a"), defined("b", queue="other")).added == ("b",)
    assert names(scene) == ["a", "b"]


def test_a_deleted_schedule_of_a_person_is_gone(scene: Scene) -> None:
    schedules.add_schedule(scene.broker, defined("mine"))
    schedules.delete_schedules(scene.broker, ["mine"])
    assert scene.broker.state.get("schedules", "mine") is None
    with pytest.raises(InvalidValue, match="there is no schedule"):
        schedules.delete_schedules(scene.broker, ["mine"])


def test_two_configs_that_fight_repeat_no_fire(scene: Scene) -> None:
    """A rolling deploy: processes with the old and the new config start again and again."""
    old, new = [defined("a", interval=3600), defined("b", interval=3600)], [defined("b", interval=3600)]
    sync(scene, *old)
    live(scene)
    scene.tick(scene.scheduler())
    for _ in range(5):
        for config in (new, old):
            sync(scene, *config)
            live(scene)
            scene.tick(scene.scheduler())
    assert names(scene) == ["a", "b"]
    assert len(scene.jobs("a")) == len(scene.jobs("b")) == 1
    assert scene.stored("a").fired == scene.stored("b").fired == 1


def test_a_running_scheduler_follows_the_config_of_another(scene: Scene) -> None:
    live(scene)
    first = scene.scheduler([defined("a", start="2020-01-01", interval=60)])
    scene.tick(first)
    scene.scheduler([defined("b", start="2020-01-01", interval=60)])
    before = len(scene.jobs("a"))
    live(scene)
    scene.now_ms += 2 * MINUTE
    scene.tick(first)
    assert len(scene.jobs("a")) == before
    assert len(scene.jobs("b")) == 1


def followed(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines of schedulers that follow changes of others, since the last call."""
    lines = [one.getMessage() for one in caplog.records if one.getMessage().startswith("schedules.followed")]
    caplog.clear()
    return lines


def test_a_scheduler_that_follows_says_what_has_changed_and_who_changed_it(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    live(scene)
    first = scene.scheduler([defined("a"), defined("b"), defined("c")])
    scene.tick(first)
    scene.tick(first)
    assert followed(caplog) == []
    later = scene.scheduler([defined("b"), defined("c", queue="other"), defined("d")])
    scene.tick(first)
    (line,) = followed(caplog)
    assert line == f"schedules.followed added=d changed=c removed=a by=the config of {later.name} (no file)"
    scene.tick(first)
    scene.tick(later)
    assert followed(caplog) == []
    schedules.add_schedule(scene.broker, defined("mine"))
    scene.tick(first)
    assert followed(caplog) == ["schedules.followed added=mine by=a person"]
    schedules.delete_schedules(scene.broker, ["mine", "b"])
    scene.tick(first)
    assert followed(caplog) == ["schedules.followed removed=b, mine by=a person"]
    schedules.pause_schedules(scene.broker, ["d"])
    scene.tick(first)
    assert followed(caplog) == []


def test_syncs_at_the_same_time_agree(scene: Scene) -> None:
    definitions = [defined(f"s{number}") for number in range(10)]
    failures: list[BaseException] = []

    def run() -> None:
        client = scene.new_client()
        try:
            schedule_sync.sync_schedules(client.broker, definitions)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert names(scene) == sorted(definition.name for definition in definitions)
    assert {scene.stored(name).fired for name in names(scene)} == {0}


def test_a_resumed_schedule_leaves_out_the_fires_of_its_pause(scene: Scene) -> None:
    sync(scene, defined("a", start="2020-01-01"))
    before = scene.stored("a")
    value: Any = schedules.stored_value(before)
    scene.broker.state.put("schedules", "a", {**value, "next_fire": before.anchor - DAY})
    schedules.pause_schedules(scene.broker, ["a"])
    schedules.resume_schedules(scene.broker, ["a"])
    stored = scene.stored("a")
    assert stored.next_fire is not None
    assert stored.next_fire > now(scene) - 1000
    assert (stored.next_fire - to_ms(datetime(2020, 1, 1, tzinfo=UTC))) % MINUTE == 0, "it keeps its grid"


def test_schedules_that_the_broker_has_lost_come_back(scene: Scene) -> None:
    live(scene)
    scheduler = scene.scheduler([defined("a"), defined("b"), defined("c")])
    scene.tick(scheduler)
    schedules.delete_schedules(scene.broker, ["c"])
    schedules.add_schedule(scene.broker, defined("mine"))
    scene.tick(scheduler)
    state = scene.broker.state
    state.delete("schedules", ["a", "b", "mine"])
    state.delete("schedule_changes", ["number"])
    scene.tick(scheduler)
    assert names(scene) == ["a", "b"]
    assert sync(scene, defined("a"), defined("b")).removed == ()


def test_a_config_that_removes_a_schedule_wins_over_running_schedulers(scene: Scene) -> None:
    live(scene)
    old = scene.scheduler([defined("a"), defined("b")])
    scene.tick(old)
    scene.scheduler([defined("b")])
    for _ in range(3):
        scene.now_ms += MINUTE
        scene.tick(old)
    assert names(scene) == ["b"]


def test_a_sync_costs_one_write_for_each_difference(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    state = type(scene.broker.state)
    for call in ("get", "list", "compare_and_set", "add", "put"):
        original = getattr(state, call)

        def counted(self: Any, *args: Any, _call: str = call, _original: Any = original, **keys: Any) -> Any:
            calls.append(_call)
            return _original(self, *args, **keys)

        monkeypatch.setattr(state, call, counted)
    many = [defined(f"s{index}") for index in range(50)]
    sync(scene, *many)
    assert calls == ["list", *["compare_and_set"] * 50, "put", "add"]
    calls.clear()
    sync(scene, *many)
    assert calls == ["list"]
    sync(scene, *many[:-2], defined("s48", queue="other"))
    assert calls == ["list", "list", *["compare_and_set"] * 2, "put", "add"]


def test_unknown_names_change_nothing(scene: Scene) -> None:
    sync(scene, defined("a"))
    for change in (schedules.pause_schedules, schedules.resume_schedules, schedules.delete_schedules):
        with pytest.raises(InvalidValue, match="there is no schedule 'gone'"):
            change(scene.broker, ["a", "gone"])
    assert scene.stored("a").paused_at is None


LATE = "tests.client.described.late"
WRONG = [
    ({"end": "2001-01-01"}, "end is 2001-01-01T00:00:00Z, which is past: the schedule would never fire"),
    ({"path": LATE}, "the argument number is missing"),
    ({"path": LATE, "params": {"number": 1, "nams": []}}, "no argument 'nams': did you mean names?"),
]


@pytest.mark.parametrize(("keys", "reason"), WRONG)
def test_what_can_never_work_is_refused_where_a_person_adds_it(
    scene: Scene, keys: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidValue) as raised:
        add_schedule(client=scene.client, **{"path": "tasks.report", "interval": 60, **keys})
    assert reason in str(raised.value)
    assert names(scene) == []


@pytest.mark.parametrize(("keys", "reason"), WRONG)
def test_what_can_never_work_in_a_config_is_one_warning(
    scene: Scene, caplog: pytest.LogCaptureFixture, keys: dict[str, object], reason: str
) -> None:
    live(scene)
    scheduler = scene.scheduler([defined("wrong", **keys)])
    for _ in range(3):
        scene.tick(scheduler)
        scheduler._known_changes = -1  # it reads all schedules again
    said = [text for record in caplog.records if "schedule.invalid" in (text := record.getMessage())]
    assert len(said) == 1
    assert said[0].startswith("schedule.invalid name=wrong: ")
    assert reason in said[0]
