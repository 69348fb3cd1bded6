"""`mrq dashboard`."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer

from mrq_core.cli.errors import UsageError
from mrq_core.cli.options import Given, command
from mrq_core.cli.output import note

_NEEDED = ("starlette", "uvicorn", "jinja2", "python_multipart")


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
) -> None:
    """Serves the dashboard, by default at http://127.0.0.1:5555, until it is told to stop."""
    for module in _NEEDED:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise UsageError(
                f"the dashboard needs {error.name}, which is not installed: "
                "pip install starlette uvicorn jinja2 python-multipart"
            ) from error
    serving = importlib.import_module("mrq_dashboard.serving")
    from mrq_core.running.logs import set_up_logging

    config = given.config()
    set_up_logging(config, follows_file=True)
    serving.serve(config, insecure=insecure, announce=lambda address: note(f"The dashboard is at {address}"))
