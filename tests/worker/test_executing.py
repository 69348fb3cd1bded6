"""One attempt, from its record to its outcome. No broker is asked."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from mrq_core import task
from mrq_core.config.settings import Config
from mrq_core.contract.record import Status
from mrq_core.plugins.manager import Plugins
from mrq_core.worker import executing
from mrq_core.worker.executing import Runner
from tests.worker.records import execution


@task(timeout=7)
def returns() -> int:
    return 42


@pytest.fixture
def runner() -> Runner:
    config = Config()
    return Runner(config, Plugins(config))


def test_an_attempt_without_wrappers_asks_plugins_nothing(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise AssertionError("the plugins were asked during an attempt")

    monkeypatch.setattr(Plugins, "job_wrappers", fail)
    monkeypatch.setattr(executing, "Around", fail)
    outcome = runner.run(execution(f"{__name__}.returns").context)
    assert (outcome.status, outcome.result) == (Status.SUCCESS, 42)


@pytest.mark.parametrize(
    ("path", "seconds"), [(f"{__name__}.returns", 7), ("no_such_module.Task", Config().default_job_timeout)]
)
def test_the_timeout_starts_once_the_task_is_loaded_or_could_not_be(
    runner: Runner, path: str, seconds: float
) -> None:
    started: list[float] = []
    runner.run(execution(path).context, started.append)
    assert started == [seconds]


def test_a_module_that_exits_at_a_name_fails_the_job(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    class Exits(ModuleType):
        def __getattr__(self, name: str) -> object:
            raise SystemExit(3)

    monkeypatch.setitem(sys.modules, "exits", Exits("exits"))
    outcome = runner.run(execution("exits.Thing").context)
    assert (outcome.status, outcome.exception_type) == (Status.FAILED, "mrq_core.errors.TaskImportFailed")
