"""`mrq tasks`: lists, shows, pauses and resumes tasks."""

from __future__ import annotations

from typing import Annotated

import typer

from mrq_core import __version__
from mrq_core.cli.errors import named_as_typed
from mrq_core.cli.options import Given, command
from mrq_core.cli.output import json_text, note, print_json, say, show_table
from mrq_core.cli.queues_commands import For, Until, pause_end, until_text
from mrq_core.contract.values import check_path
from mrq_core.operations import queues
from mrq_core.operations.task_descriptions import published_task
from mrq_core.operations.tasks import TaskSummary, task_list, task_summary_view
from mrq_core.operations.views import iso, seconds, struct_view
from mrq_core.tasks.describing import ArgumentDescription, describe
from mrq_core.tasks.loading import load_task

Paths = Annotated[list[str], typer.Argument(metavar="TASK", help="Paths of tasks, such as shop.tasks.Mail.")]


Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@command("broker", "plugins", needs_output=True)
def list_all_tasks(given: Given, as_json: Json = False) -> None:
    """Lists the tasks that have jobs, that workers have loaded, or that are paused."""
    with given.client() as client:
        found = task_list(client.broker)
    if as_json:
        print_json([task_summary_view(task) for task in found])
    elif found:
        show_table(
            ("task", "jobs", "failed", "p50", "p95", "paused since", "until"), [_row(task) for task in found]
        )
    else:
        note("There are no tasks: none has jobs, and no worker has loaded one.")


def _row(task: TaskSummary) -> tuple[object, ...]:
    return (
        task.path,
        task.number,
        "" if task.failure_rate is None else f"{task.failure_rate:.1%}",
        seconds(task.run_time.p50) if task.run_time else "",
        seconds(task.run_time.p95) if task.run_time else "",
        iso(task.pause.since) if task.pause else "",
        iso(task.pause.until) if task.pause else "",
    )


@command("broker", "tasks", "plugins", needs_output=True)
def show_task(
    given: Given,
    path: Annotated[str, typer.Argument(metavar="TASK", help="The path of a task, such as shop.tasks.Mail.")],
    as_json: Json = False,
) -> None:
    """Shows the arguments, the options and the source of a task, as a worker has loaded it last.

    Imports the task where no worker has loaded it in the last 30 days.
    """
    path = check_path(path)
    with given.client() as client:
        task = published_task(client.broker, path)
        if task is None:
            task = describe(load_task(path, client.config), version=__version__, evaluates=True)
    if as_json:
        print_json(struct_view(task))
        return
    say(task.path, style="bold")
    if task.doc:
        say(task.doc)
    if task.arguments:
        show_table(("argument", "type", "default"), [_argument(argument) for argument in task.arguments])
    elif task.arguments is None:
        say("The task takes all params.")
    if task.takes_more and task.arguments is not None:
        say("Params with other names are accepted, too.")
    options = [(name, json_text(value, indent=None)) for name, value in sorted(task.options.items())]
    show_table(("option", "value"), [(name, value) for name, value in options if value not in _UNSET])
    if task.file:
        say(f"{task.file}:{task.line}", style="dim")
    for notice in task.notices:
        note(notice)


_UNSET = frozenset({"null", "[]", "{}", "false"})


def _argument(argument: ArgumentDescription) -> tuple[str, str, str]:
    default = argument.default_text or json_text(argument.default, indent=None)
    return argument.name, argument.type, "required" if argument.required else default


@command("broker", "plugins")
def pause_task(given: Given, paths: Paths, until: Until = None, duration: For = None) -> None:
    """Pauses tasks: workers start none of their jobs, and running jobs go on."""
    with given.client() as client, named_as_typed(until="--until"):
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
