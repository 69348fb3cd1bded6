"""The parameters of commands: the flags of settings, made from their table, and the filters of jobs.

`command` takes a function with parameters of the types `Given` and `FilterTexts`, and makes the function
that typer calls, with one parameter for each flag.
"""

from __future__ import annotations

import dataclasses
import inspect
import shlex
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, get_origin

import typer
from typer.models import OptionInfo

from mrq_core.cli import terminal
from mrq_core.cli.errors import EXIT_FAILED, UsageError, exit_on_error, named_as_typed
from mrq_core.cli.output import note
from mrq_core.cli.terminal import output_error, reserved_output, restore_streams
from mrq_core.client.ambient import command_config, reading_config
from mrq_core.client.client import Client
from mrq_core.config.settings import SETTINGS, Config, Setting, default_of, flag_of
from mrq_core.config.source_file import ConfigFile
from mrq_core.config.sources import load_config
from mrq_core.contract.plain import is_utf8
from mrq_core.contract.queries import JobFilter
from mrq_core.operations.queries.filters import FilterTexts, filter_from

_PANELS = {
    "broker": "Broker",
    "worker": "Worker",
    "scheduler": "Scheduler",
    "tasks": "Defaults and limits of tasks",
    "logs": "Logs",
    "plugins": "Plugins",
    "dashboard": "Dashboard",
    "debugging": "Debugging",
}
_FILTERS = "Which jobs"
_COMMON = "Common"
_WITHOUT_DOCSTRINGS = 2
"""The level of optimization at which Python removes docstrings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The settings given on the command line."""

    overrides: Mapping[str, object]
    file: str | None = None
    debug: bool = False

    def config(self, read: ConfigFile | None = None, /, **more: object) -> Config:
        """The configuration; `more` are settings that the command gives itself. `read`: the config file, as
        another process has read it. Raises ConfigError."""
        with warnings.catch_warnings(record=True) as caught, reading_config() as take:
            warnings.simplefilter("always", UserWarning)
            config = load_config({**self.overrides, **more}, file=read or self.file)
            take(config)
        restore_streams()
        for warning in caught:
            note(f"mrq: {warning.message}")
        return config

    @contextmanager
    def client(self, **more: object) -> Iterator[Client]:
        """Opens a client of the configured broker for one command; it connects when it is first used.

        Raises ConfigError.
        """
        with opened_client(self.config(**more)) as client:
            yield client

    def broker_flags(self) -> str:
        """The broker's flags for another command, each with a space in front."""
        return "".join(f" {shlex.quote(word)}" for word in self.flags("broker"))

    def flags(self, *groups: str) -> list[str]:
        """The config file and the flags of these groups, for another command."""
        words = ["--config", self.file] if self.file else []
        for name, value in self.overrides.items():
            if SETTINGS[name.upper()].group in groups:
                words += [flag_of(name), str(value)]
        return words


@contextmanager
def opened_client(config: Config) -> Iterator[Client]:
    """Opens a client for one command. Raises ConfigError."""
    client = Client(config)
    restore_streams()  # a plugin may have replaced them
    try:
        yield client
    finally:
        client.close()


def dashed(token: str) -> str:
    """Spells a flag or command with dashes instead of underscores."""
    return token.replace("_", "-")


def help_of(function: Callable[..., None]) -> str | None:
    """The docstring of a command, for `--help`. `python -OO` removes it from the function, not from the
    source."""
    if function.__doc__ is not None or sys.flags.optimize < _WITHOUT_DOCSTRINGS:
        return function.__doc__
    import ast

    try:
        (definition,) = ast.parse(inspect.getsource(function)).body
    except (OSError, SyntaxError, ValueError):  # the source is not installed, or is another one
        return None
    return ast.get_docstring(definition, clean=False) if isinstance(definition, ast.FunctionDef) else None


def command(
    *groups: str, needs_output: bool = False, has_result: bool = True
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorates a command. `Given` becomes ``--config``, ``--debug`` and the flags of these groups,
    and `FilterTexts` the filters. Errors of mrq become messages and exit codes.

    `needs_output`: the output is the work of the command, which fails if a full disk cuts the output off.
    `has_result`: standard output is for the result alone; other code prints to standard error.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        parameters: list[inspect.Parameter] = []
        given_name = filter_name = None
        for parameter in inspect.signature(function, eval_str=True).parameters.values():
            if parameter.annotation is Given:
                given_name = parameter.name
            elif parameter.annotation is FilterTexts:
                filter_name = parameter.name
                parameters += _filter_parameters()
            else:
                parameters.append(parameter.replace(kind=parameter.KEYWORD_ONLY))
        parameters += [*_setting_parameters(groups), *_common_parameters()]

        def called(context: typer.Context, **values: Any) -> None:
            given = _take_given(values, groups, context)
            if given_name is not None:
                values[given_name] = given
            texts = _take_filter(values) if filter_name is not None else None
            if filter_name is not None:
                values[filter_name] = texts
            terminal.is_working = True
            reserved = reserved_output() if has_result else nullcontext()
            with exit_on_error(debug=given.debug), reserved, command_config():
                _refuse_other_bytes(values)
                function(**values)
                if output_error() is not None:
                    if needs_output or values.get("dry_run"):
                        sys.exit(EXIT_FAILED)
                    note("mrq: the command is done; what it prints is lost")

        for parameter in parameters:
            _hide_type_of_switch(parameter)
        called.__name__ = function.__name__
        called.__doc__ = help_of(function)
        called.__annotations__ = {}
        own = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        called.__signature__ = inspect.Signature([own, *parameters])  # type: ignore[attr-defined]
        return called

    return decorate


def _refuse_other_bytes(values: Mapping[str, object]) -> None:
    """Raises UsageError for an argument that no id, name or filter can be: bytes that are not UTF-8."""
    for value in values.values():
        texts = dataclasses.astuple(value) if isinstance(value, FilterTexts) else (value,)
        for text in texts:
            for word in text if isinstance(text, list | tuple) else (text,):
                if isinstance(word, str) and not is_utf8(word):
                    raise UsageError(f"the argument {word!r} is not valid UTF-8")


def _hide_type_of_switch(parameter: inspect.Parameter) -> None:
    """Removes the type of a switch from the help: a switch takes no value."""
    if get_origin(parameter.annotation) is Annotated and parameter.annotation.__origin__ in (
        bool,
        bool | None,
    ):
        for option in parameter.annotation.__metadata__:
            if isinstance(option, OptionInfo):
                option.metavar = ""


# --- settings -------------------------------------------------------------------------------------


def settings_of(groups: Iterable[str]) -> dict[str, Setting]:
    """The settings of these groups that have a flag, by their upper-case names."""
    wanted = set(groups)
    return {n: s for n, s in SETTINGS.items() if s.group in wanted and not s.file_only}


def _setting_parameters(groups: Iterable[str]) -> list[inspect.Parameter]:
    return [_setting_parameter(name, setting) for name, setting in settings_of(groups).items()]


def _setting_parameter(name: str, setting: Setting) -> inspect.Parameter:
    default = default_of(name)
    flag = flag_of(name)
    panel = _PANELS.get(setting.group, setting.group.capitalize())
    option: Any
    if isinstance(default, bool):
        kind: Any = bool | None
        option = typer.Option(
            f"{flag}/--no-{flag[2:]}", *setting.flags, help=setting.help, rich_help_panel=panel
        )
    else:
        # Always text: the configuration converts the values of all sources, and its errors name the setting.
        kind = str | None
        option = typer.Option(
            flag,
            *setting.flags,
            help=setting.help + _default_note(default),
            rich_help_panel=panel,
            metavar=_metavar(setting, default),
        )
    return inspect.Parameter(
        name.lower(), inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option]
    )


def _metavar(setting: Setting, default: object) -> str:
    if setting.choices:
        return "|".join(setting.choices)
    if isinstance(default, int):
        return "INTEGER" if setting.auto is None else "INTEGER|auto"
    if isinstance(default, float):
        return "NUMBER"
    return "NAMES" if isinstance(default, tuple) else "TEXT"


def _default_note(default: object) -> str:
    """The default as a sentence after the help; typer would print brackets and quotes."""
    if isinstance(default, tuple):
        text = " ".join(default)
    else:
        text = f"{default:.10g}" if isinstance(default, float) else str(default)
    return f" Default: {text}." if text else ""


# --- common parameters ------------------------------------------------------------------------


def _common_parameters() -> list[inspect.Parameter]:
    return [
        _option(
            "config",
            str | None,
            None,
            typer.Option(
                "--config",
                metavar="FILE",
                help="The config file. Default: mrq-config.py in the working directory, if it exists.",
                rich_help_panel=_COMMON,
            ),
        ),
        _option(
            "debug",
            bool,
            False,
            typer.Option("--debug", help="Also print the traceback of an error.", rich_help_panel=_COMMON),
        ),
    ]


def _take_given(values: dict[str, Any], groups: Iterable[str], context: typer.Context) -> Given:
    overrides = {name.lower(): values.pop(name.lower()) for name in settings_of(groups)}
    return Given(
        overrides={name: value for name, value in overrides.items() if value is not None},
        file=values.pop("config"),
        debug=values.pop("debug") or bool(context.find_root().params.get("debug")),
    )


# --- filters ----------------------------------------------------------------------------------------


def _filter_parameters() -> list[inspect.Parameter]:
    """The flags that select jobs. `operations/queries/filters.py` makes a JobFilter of their values."""

    def many(name: str, flag: str, metavar: str, help: str) -> inspect.Parameter:
        option = typer.Option(flag, metavar=metavar, help=help, rich_help_panel=_FILTERS, show_default=False)
        return _option(name, list[str] | None, None, option)

    return [
        many(
            "statuses", "--status", "STATUS", "Of this status; may be repeated, or several joined by commas."
        ),
        many("paths", "--path", "TASK", "Of the task with this path."),
        many("queues", "--queue", "QUEUE", "On this queue; a name that ends with / means its subqueues."),
        many("workers", "--worker", "WORKER", "Last claimed by the worker with this full name."),
        many("errors", "--error", "TYPE", "With this type of exception, such as ValueError or app.NoStock."),
        many("messages", "--message", "WORDS", "With these words in the message of its exception."),
        many("groups", "--group", "GROUP", "With an exception of this group, as `mrq jobs show` names it."),
        many("search_keys", "--key", "NAME=VALUE", "With this value of a search key of its task."),
        many("schedules", "--schedule", "NAME", "Of the schedule with this name."),
        many("since", "--since", "TIME", "Queued since then: a time (UTC), or how long ago: 15m, 2h, 3d."),
        many("until", "--until", "TIME", "Queued until then."),
        many("params", "--params", "KEY=VALUE", "With this value in its params."),
    ]


_LISTS = (
    "statuses",
    "paths",
    "queues",
    "workers",
    "errors",
    "messages",
    "groups",
    "search_keys",
    "schedules",
    "params",
)


def _take_filter(values: dict[str, Any]) -> FilterTexts:
    lists = {name: tuple(values.pop(name) or ()) for name in _LISTS}
    return FilterTexts(**lists, since=_only("since", values), until=_only("until", values))


_TYPED = {
    name: f"--{name}"
    for name in (
        *("status", "path", "queue", "worker", "error", "message", "group"),
        *("key", "schedule", "since", "until", "params"),
    )
}


def filter_of(texts: FilterTexts) -> JobFilter:
    """The filter that the flags select. Raises InvalidValue, which names the flag."""
    with named_as_typed(**_TYPED):
        return filter_from(texts, now=datetime.now(UTC))


def _only(name: str, values: dict[str, Any]) -> str | None:
    """The value of a flag that is given at most once: of two times, the last would count silently."""
    given = values.pop(name) or [None]
    if len(given) > 1:
        raise typer.BadParameter(f"given {len(given)} times: expected once", param_hint=f"--{name}")
    value: str | None = given[0]
    return value


def _option(name: str, kind: Any, default: object, option: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )
