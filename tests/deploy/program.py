"""What the program would make of a command line and an environment. Nothing is run or connected to."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from typer.main import get_command

from mrq_core.cli.app import application
from mrq_core.config.settings import SETTINGS, Config
from mrq_core.config.sources import load_config
from mrq_core.contract.naming import check_queue_name
from mrq_core.plugins.manager import Plugins
from mrq_core.plugins.opening import open_broker
from mrq_core.worker.guards.process_end import LEAVE_WITHIN

CLASSIC_NAMES = {"mrq": [], "mrq-worker": ["worker"], "mrq-run": ["run"]}
"""The installed programs, and which words each puts in front."""
TIME_TO_STOP = 1.5 * (Config().stop_grace + LEAVE_WITHIN)
"""Seconds from SIGTERM to SIGKILL that every example leaves to a worker, at least."""


@functools.cache
def _program() -> Any:
    """The commands, which take a tenth of a second to make."""
    return get_command(application())


class Call(NamedTuple):
    """A command with the values of its options and arguments, as typer has parsed them."""

    command: str
    values: Mapping[str, Any]


def parsed(words: Sequence[str]) -> Call:
    """The command that `mrq` would run with these words. Raises AssertionError where it would refuse them."""
    program = _program()
    calls: list[Call] = []
    for name, command in _leaves(program):
        assert not (command.hidden and name in words[:1]), f"`mrq {name}` is not part of this version"
        command.callback = _recorder(name, calls)
    try:
        program.main(args=list(words), prog_name="mrq", standalone_mode=False)
    except Exception as error:
        raise AssertionError(f"`mrq {shlex.join(words)}` is refused: {error}") from error
    assert calls, f"`mrq {shlex.join(words)}` runs no command"
    return calls[0]


def checked(words: Sequence[str], environ: Mapping[str, str]) -> Config:
    """The configuration with which `mrq` would run these words in this environment.

    Raises AssertionError, ConfigError or InvalidValue for whatever a user would be told of: unknown
    commands, options and variables, values that do not fit, URLs that no driver takes, names that no queue
    can have.
    """
    call = parsed(words)
    given: dict[str, object] = {
        name: value
        for name, value in call.values.items()
        if name.upper() in SETTINGS and isinstance(value, str | bool)
    }
    if call.command == "worker" and call.values["names"]:
        assert "queues" not in given, "queues are named twice"
        given["queues"] = " ".join(call.values["names"])
    ours = {name: value for name, value in environ.items() if name.startswith("MRQ_")}
    config = load_config(given, environ=ours)  # an unknown variable warns, which is an error in tests
    for queue in config.queues:
        check_queue_name(queue)
    open_broker(config, Plugins(config)).close()
    return config


def split_program(words: Sequence[str]) -> list[str] | None:
    """The words behind the program, where the first one is ours, with or without a path; else None."""
    front = CLASSIC_NAMES.get(PurePosixPath(words[0]).name) if words else None
    return None if front is None else [*front, *words[1:]]


def options_of(words: Sequence[str]) -> set[str]:
    """The options of the command that these words begin with, which may leave arguments open.

    Raises AssertionError where there is no such command.
    """
    front = split_program(words)
    assert front is not None, f"`{shlex.join(words)}` is no call of mrq"
    command: Any = _program()
    options = {"--help", "-h"}
    while True:
        options |= {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
        found = getattr(command, "commands", None)
        if found is None or (front and front[0].isupper()):  # as in `mrq COMMAND --help`
            return options
        if not front or front[0].startswith("-"):
            if "list" not in found:
                return options
            front = ["list", *front]  # what `mrq queues` does
        assert front[0] in found, f"`{shlex.join(words)}`: there is no command {front[0]}"
        command, front = found[front[0]], front[1:]


class Simple(NamedTuple):
    """A simple command of a shell: the variables in front of it, and its words."""

    environ: dict[str, str]
    words: list[str]


def simple_commands(script: str) -> Iterator[Simple]:
    """The simple commands of a shell script without loops and here-documents, in order."""
    for line in script.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set(";&|()"):
                if words:
                    yield _simple(words)
                words = []
            else:
                words.append(word)


def our_calls(script: str) -> Iterator[Simple]:
    """The calls of our programs in a script: at the front of a command, or of what `exec`, `docker compose
    exec SERVICE` and `... --` start."""
    for environ, words in simple_commands(script):
        if words[:1] == ["exec"]:
            words = words[1:]
        elif words[:3] == ["docker", "compose", "exec"]:
            words = words[4:]  # behind the service
        elif words[:1] != ["mrq"] and "--" in words:
            words = words[words.index("--") + 1 :]
        rest = split_program(words)
        if rest is not None:
            yield Simple(environ, rest)


def _simple(words: list[str]) -> Simple:
    environ = {}
    while words and "=" in words[0] and words[0].partition("=")[0].isidentifier():
        name, _, value = words[0].partition("=")
        environ[name] = value
        words = words[1:]
    redirects = [index for index, word in enumerate(words) if word and set(word) <= set("<>")]
    return Simple(environ, words[: redirects[0]] if redirects else words)


def _leaves(command: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All commands of a program that are no groups, with their names."""
    for name, sub in command.commands.items():
        if hasattr(sub, "commands"):
            yield from _leaves(sub, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", sub


def _recorder(name: str, calls: list[Call]) -> Any:
    def record(**values: object) -> None:
        calls.append(Call(name, values))

    return record
