"""Each command that names a thing which does not exist says so and exits with 1."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from mrq_core.cli.app import application
from tests.cli.conftest import Shell

ID = "0" * 24
UNKNOWN = {
    "jobs show": [ID],
    "jobs logs": [ID],
    "jobs wait": [ID],
    "jobs edit": [ID, "--in", "0"],
    "jobs requeue": [ID],
    "jobs cancel": [ID],
    "jobs move": [ID, "--to", "q"],
    "jobs remove": [ID],
    "explain": [ID],
    "stack": ["none"],
    "workers show": ["none"],
    "workers stop": ["none"],
    "workers drain": ["none"],
    "workers stack": ["none"],
    "workers log": ["none"],
    "workers profile": ["none", "--task", "tasks.Add"],
    "schedules pause": ["none"],
    "schedules resume": ["none"],
    "schedules delete": ["none"],
    "schedules run": ["none"],
    "schedules next": ["none"],
    "schedules backfill": ["none", "2h", "now"],
    "limits remove": ["none"],
    "tasks show": ["tasks.none"],
    "run": ["tasks.none"],
}
MORE = [("jobs cancel", [ID, "--dry-run"]), ("jobs logs", [ID, "--follow"]), ("stack", [ID])]
FREELY_NAMED = {
    *("queues stats", "queues pause", "queues resume", "queues purge", "queues move", "worker"),
    *("tasks pause", "tasks resume", "limits set", "schedules add"),
}
"""Commands that accept any valid name: a queue or a task need not be known."""


@pytest.mark.parametrize(("words", "arguments"), [*UNKNOWN.items(), *MORE])
def test_a_thing_that_does_not_exist_is_an_error_with_exit_code_1(
    words: str, arguments: list[str], mrq: Shell
) -> None:
    said = mrq(*words.split(), *arguments, code=1)
    assert said.err.startswith("mrq: ")
    assert "Traceback" not in said.err


@pytest.mark.parametrize("words", sorted(UNKNOWN.keys() | FREELY_NAMED - {"worker"}))
def test_an_empty_name_is_refused_as_a_wrong_argument(words: str, mrq: Shell) -> None:
    """An unset variable of a shell leaves one."""
    _, *more = UNKNOWN.get(words, {"queues move": ["", "--to", "q"]}.get(words, [""]))
    said = mrq(*words.split(), "", *more, code=2)
    assert said.err.startswith("mrq: ")


def test_each_command_that_names_a_thing_is_tested() -> None:
    app = typer.main.get_command(application())
    named = set(_commands_with_arguments(app, ""))
    assert named == UNKNOWN.keys() | FREELY_NAMED


def _commands_with_arguments(command: Any, words: str) -> Iterator[str]:
    if isinstance(command, TyperGroup):
        for name, one in command.commands.items():
            yield from _commands_with_arguments(one, f"{words} {name}".strip())
    elif any(one.param_type_name == "argument" for one in command.params):
        yield words
