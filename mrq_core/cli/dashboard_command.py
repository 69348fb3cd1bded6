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

    config = given.config()
    set_up_logging(config, follows_file=True)
    loading = ExitStack()
    loading.enter_context(logging_kept())

    def announce(address: str) -> None:
        loading.close()  # plugins are loaded now
        note(f"The dashboard is at {address}")

    if until_input_ends:
        threading.Thread(target=_stop_after_input, daemon=True).start()
    serving.serve(config, insecure=insecure, announce=announce)


def _stop_after_input() -> None:
    """Stops this process when no process can write to its standard input any more."""
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        pass
    os.kill(os.getpid(), signal.SIGTERM)
