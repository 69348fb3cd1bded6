"""One attempt, from its record to its outcome. No broker is asked."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from msgspec.structs import replace

from mrq_core import task
from mrq_core.clock import from_ms
from mrq_core.config.settings import Config
from mrq_core.contract.record import Attempt, Status
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


@task(at_most_once=True)
def runs_once() -> int:
    return 1


@pytest.mark.parametrize(
    ("attempts", "may_start"),
    [
        ([(Status.STARTED, True)], False),
        ([(Status.STARTED, True), (Status.QUEUED, False)], False),
        ([(Status.STARTED, True), (Status.QUEUED, False), (Status.QUEUED, False)], False),
        ([(Status.STARTED, True), (Status.FAILED, False)], True),
        ([(Status.QUEUED, False)], True),
    ],
)
def test_an_at_most_once_job_starts_once_also_after_its_worker_has_backed_off(
    runner: Runner, attempts: list[tuple[Status, bool]], may_start: bool
) -> None:
    at = from_ms(0)
    history = tuple(
        Attempt(claim=number, token="", started_at=at, ended_at=at, worker="w", status=status, lost=lost)
        for number, (status, lost) in enumerate(attempts, start=1)
    )
    context = execution(f"{__name__}.runs_once").context
    context.record = replace(context.record, history=history)
    outcome = runner.run(context)
    assert outcome.status == (Status.SUCCESS if may_start else Status.FAILED)
