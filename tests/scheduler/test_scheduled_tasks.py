"""`@task(every=..., cron=...)` and TASKS make schedules, as entries of SCHEDULER_TASKS do."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mrq_core.config.settings import Config, TaskOptions
from mrq_core.config.sources import load_config
from mrq_core.errors import ConfigError
from mrq_core.scheduler.definitions import Definition
from mrq_core.tasks.scheduled import schedules_of
from mrq_core.tasks.task import task

MODULE = """
from datetime import timedelta
from mrq_core import Task, task

@task(every=60)
def tick(): ...

@task(cron="0 8 * * 1-5", queue="reports", schedule={"timezone": "Europe/Berlin", "overlap": "skip"})
def report(): ...

@task(every=timedelta(minutes=5))
def often(): ...

class Base(Task):
    cron = "@daily"

class Inherits(Base):
    pass

class Weekly(Task):
    schedule = {"dailytime": "08:30", "weekday": 0}

@task
def plain(): ...

again = tick
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    name = f"scheduled_{request.node.name}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def by_path(config: Config) -> dict[str, Definition]:
    return {definition.path.rpartition(".")[2]: definition for definition in schedules_of(config)}


def test_options_of_tasks_make_schedules(module: str) -> None:
    found = by_path(Config(scheduler_modules=(module,)))
    assert set(found) == {"tick", "report", "often", "Base", "Weekly"}
    assert found["tick"].interval == 60
    assert found["often"].interval == 300
    assert (found["report"].cron, found["report"].timezone) == ("0 8 * * 1-5", "Europe/Berlin")
    assert (found["report"].overlap, found["report"].queue) == ("skip", None), (
        "the job takes the task's queue"
    )
    assert (found["Weekly"].dailytime, found["Weekly"].weekday) == ("08:30", 0)


def test_an_entry_of_the_config_is_the_same_schedule(module: str) -> None:
    (of_config,) = schedules_of(
        Config(scheduler_modules=(), scheduler_tasks=({"path": f"{module}.tick", "interval": 60},))
    )
    assert of_config == by_path(Config(scheduler_modules=(module,)))["tick"]
    with pytest.raises(ConfigError, match="expected each schedule once"):
        schedules_of(
            Config(scheduler_modules=(module,), scheduler_tasks=({"path": f"{module}.tick", "interval": 60},))
        )


def test_tasks_in_the_config_change_and_add_schedules(module: str) -> None:
    tasks: TaskOptions = {
        f"{module}.tick": {"every": 30},
        f"{module}.plain": {"cron": "@hourly"},
        "gone.task": {"every": 5},
    }
    found = by_path(Config(scheduler_modules=(module,), tasks=tasks))
    assert found["tick"].interval == 30
    assert found["plain"].cron == "@hourly"
    assert found["task"].path == "gone.task"


def test_the_default_module_may_be_missing_and_a_named_one_may_not(tmp_path: Path) -> None:
    assert schedules_of(load_config(environ={})) == []
    with pytest.raises(ConfigError, match=r"SCHEDULER_MODULES names nowhere.*cannot be imported"):
        schedules_of(load_config({"scheduler_modules": "nowhere"}, environ={}))


@pytest.mark.parametrize(
    "code", ["raise SystemExit(3)", "raise KeyboardInterrupt", "import nothing_like_this", "1 / 0", "x = ("]
)
def test_a_module_that_cannot_be_imported_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    name = f"broken_{abs(hash(code))}"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=f"SCHEDULER_MODULES names {name}"):
        schedules_of(Config(scheduler_modules=(name,)))


def test_wrong_schedules_of_tasks_are_refused_where_they_stand() -> None:
    for options, reason in (
        ({"every": 0}, "interval is 0.0"),
        ({"every": "5m"}, "every is '5m'"),
        ({"cron": "x"}, "cron is 'x'"),
        ({"every": 60, "cron": "@daily"}, "interval and cron"),
        ({"schedule": {}}, "none of them"),
        ({"every": 60, "schedule": {"timezome": "UTC"}}, "did you mean 'timezone'"),
        ({"every": 60, "schedule": ["x"]}, "schedule is"),
    ):
        with pytest.raises(ConfigError, match=f"@task: .*{reason}"):
            task(**options)


def test_a_task_without_a_schedule_loads_no_zones() -> None:
    code = """
        import sys
        from mrq_core import task
        @task(queue="x")
        def f(): ...
        assert not {"cronsim", "zoneinfo"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


LAZY = """
from mrq_core import task

class Lazy:
    @property
    def __class__(self):
        raise ConnectionError("the database is away")

    def __getattr__(self, name):
        raise ConnectionError("the database is away")

db = Lazy()

@task(every=60)
def tick(): ...
"""


def test_a_lazy_object_beside_the_tasks_is_not_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scheduled_lazily.py").write_text(LAZY)
    monkeypatch.syspath_prepend(tmp_path)
    assert by_path(Config(scheduler_modules=("scheduled_lazily",)))["tick"].interval == 60


def test_the_default_module_is_named_as_such_if_it_cannot_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tasks.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tasks", raising=False)
    with pytest.raises(ConfigError, match=r"SCHEDULER_MODULES is not set, and means tasks, which cannot be"):
        schedules_of(load_config(environ={}))
