"""`mrq dashboard`."""

from __future__ import annotations

import importlib
import os
import signal
import threading
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Annotated

import typer

from mrq_core.cli.errors import UsageError
from mrq_core.cli.options import Given, command
from mrq_core.cli.output import note
from mrq_core.config.source_file import ConfigFile
from mrq_core.errors import ConfigError

_NEEDED = ("starlette", "uvicorn", "jinja2", "python_multipart")


def missing_library() -> str | None:
    """The name of a library that the dashboard needs and that is not installed."""
    return next((name for name in _NEEDED if find_spec(name) is None), None)


def how_to_install() -> str:
    """The command that installs the libraries of the dashboard."""
    return f"pip install {' '.join(name.replace('_', '-') for name in _NEEDED)}"


@command("broker", "dashboard", "tasks", "logs", "plugins", has_result=False)
def dashboard(
    given: Given,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            help="Serve other machines without a login.",
            rich_help_panel="Dashboard",
        ),
    ] = False,
    until_input_ends: Annotated[
        bool,
        typer.Option(
            "--until-input-ends",
            help="Also stop when standard input ends: for a parent process that may die.",
            hidden=True,
        ),
    ] = False,
    config_bytes: Annotated[
        int | None,
        typer.Option(
            "--config-bytes",
            min=0,
            help="The size of the config file, which a parent process has read and writes to standard input.",
            hidden=True,
        ),
    ] = None,
) -> None:
    """Serves the dashboard, by default at http://127.0.0.1:5555, until it is told to stop."""
    for module in _NEEDED:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise UsageError(
                f"the dashboard needs {error.name}, which is not installed: {how_to_install()}"
            ) from error
    serving = importlib.import_module("mrq_dashboard.serving")
    from mrq_core.running.logs import logging_kept, set_up_logging
    from mrq_core.worker.guards.called_code import guard_called_code

    config = given.config(None if config_bytes is None else _config_file(given, config_bytes))
    guard_called_code()
    set_up_logging(config, follows_file=True)
    loading = ExitStack()
    loading.enter_context(logging_kept())

    def announce(address: str) -> None:
        loading.close()  # plugins are loaded now
        note(f"The dashboard is at {address}")

    if until_input_ends:
        threading.Thread(target=_stop_after_input, daemon=True).start()
    serving.serve(config, insecure=insecure, announce=announce)


def _config_file(given: Given, size: int) -> ConfigFile:
    """Reads the config file from standard input. Raises ConfigError if the input ends before."""
    source = b""
    while len(source) < size:
        part = os.read(0, size - len(source))
        if not part:
            raise ConfigError("standard input ended before the config file did: expected all of the file")
        source += part
    return ConfigFile(given.file or "", source)


def _stop_after_input() -> None:
    """Stops this process when no process can write to its standard input any more."""
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        pass
    os.kill(os.getpid(), signal.SIGTERM)
