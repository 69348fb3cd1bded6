"""`mrq tasks`: pauses and resumes tasks."""

from __future__ import annotations

from typing import Annotated

import typer

from mrq_core.cli.options import Given, command
from mrq_core.cli.output import note, print_json, say, show_table
from mrq_core.cli.queues_commands import For, Until, pause_end, until_text
from mrq_core.operations import queues
from mrq_core.operations.views import iso

Paths = Annotated[list[str], typer.Argument(metavar="TASK", help="Paths of tasks, such as shop.tasks.Mail.")]


@command("broker", "plugins", needs_output=True)
def list_tasks(
    given: Given, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Lists the paused tasks."""
    with given.client() as client:
        tasks = client.broker.rules().tasks
    views = [(path, iso(pause.since), iso(pause.until)) for path, pause in sorted(tasks.items())]
    if as_json:
        print_json([{"name": path, "since": since, "until": until} for path, since, until in views])
    elif views:
        show_table(("name", "paused since", "until"), views)
    else:
        note("No task is paused.")


@command("broker", "plugins")
def pause_task(given: Given, paths: Paths, until: Until = None, duration: For = None) -> None:
    """Pauses tasks: workers start none of their jobs, and running jobs go on."""
    with given.client() as client:
        end = queues.pause_tasks(client.broker, paths, **pause_end(until, duration))
    say(f"paused{until_text(end)}: {', '.join(paths)}")


@command("broker", "plugins")
def resume_task(given: Given, paths: Paths) -> None:
    """Resumes paused tasks. Their jobs go on in bounded steps."""
    with given.client() as client:
        result = queues.resume_tasks(client.broker, paths)
    for path in result.not_paused:
        note(f"{path} was not paused")
    if result.resumed:
        say(f"resumed: {', '.join(result.resumed)}")
