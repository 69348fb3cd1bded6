"""Variables of the environment that gevent reads, with values that it cannot use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from gevent import _config

from mrq_core.errors import ConfigError
from mrq_core.worker.guards.patching import check_variables
from tests.cli.conftest import in_another_process


def check(name: str) -> None:
    check_variables(are_patched=name in ("GEVENT_RESOLVER", "GEVENT_THREADPOOL", "GEVENT_FILE"))


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("GEVENT_LOOP", "nonsense", "ImportError: Cannot import 'nonsense'"),
        ("GEVENT_LOOP", "", "ImportError: Cannot import ''"),
        ("GEVENT_LOOP", "missing.package.loop", "ModuleNotFoundError: No module named 'missing'"),
        ("GEVENT_LOOP", "os.path", "makes no object with the method run"),
        ("GEVENT_BACKEND", "nonsense", "ValueError: Invalid backend or flag: 'nonsense'"),
        ("GEVENT_RESOLVER", "nonsense", "ImportError: Cannot import 'nonsense'"),
        ("GEVENT_RESOLVER", "builtins.int", "<class 'int'> makes no object with the method getaddrinfo"),
        ("GEVENT_THREADPOOL", "os.path", "makes no object with the method apply"),
        ("GEVENT_FILE", "nonsense", "ImportError: Cannot import 'nonsense'"),
        ("GEVENT_MONITOR_THREAD_ENABLE", "maybe", "ValueError: Invalid boolean string: 'maybe'"),
        ("GEVENT_MAX_BLOCKING_TIME", "0", "ValueError: Must be positive"),
        ("GEVENT_MONITOR_MEMORY_MAX", "much", "ValueError: invalid literal"),
    ],
)
def test_a_value_that_gevent_cannot_use_is_refused(
    name: str, value: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(_config, "config", _config.Config())
    with pytest.raises(ConfigError) as caught:
        check(name)
    assert str(caught.value).startswith(
        f"the environment variable {name} is {value!r}, which gevent cannot use ("
    )
    assert reason in str(caught.value)
    assert str(caught.value).endswith("): correct it, or unset it")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GEVENT_LOOP", "nonsense,libev-cext"),
        ("GEVENT_BACKEND", "poll"),
        ("GEVENT_RESOLVER", "ares"),
        ("GEVENT_FILE", "block"),
        ("GEVENT_MONITOR_THREAD_ENABLE", "no"),
        ("GEVENT_MAX_BLOCKING_TIME", "0.5"),
    ],
)
def test_a_value_that_gevent_can_use_is_not_refused(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(_config, "config", _config.Config())
    check(name)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("run", "tasks.x"), "GEVENT_LOOP"),
        (("worker", "--burst"), "GEVENT_RESOLVER"),
        (("worker", "-p", "1"), "GEVENT_FILE"),
        (("run", "tasks.x"), "GEVENT_MONITOR_THREAD_ENABLE"),
    ],
)
def test_a_command_that_runs_tasks_names_the_variable(
    arguments: tuple[str, ...], name: str, tmp_path: Path
) -> None:
    said = in_another_process(arguments, tmp_path, {**os.environ, name: "nonsense"})
    assert said.code == 2
    assert f"mrq: the environment variable {name} is 'nonsense', which gevent cannot use (" in said.err
    assert "Traceback" not in said.err


def test_a_command_that_needs_no_gevent_ignores_the_variable(tmp_path: Path) -> None:
    said = in_another_process(("queues",), tmp_path, {**os.environ, "GEVENT_LOOP": "nonsense"})
    assert said.code == 0
