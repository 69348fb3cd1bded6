"""The typer application: all commands under their names.

A call of one command imports and builds that command only. All commands together take longer to import than
most of them take to run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer
from typer.core import TyperGroup

from mrq_core import __version__
from mrq_core.cli.options import dashed, help_of

_SETTINGS = {"token_normalize_func": dashed, "help_option_names": ["--help", "-h"]}
_WORK, _LOOK, _CARE = "Work", "Look and change", "Care"


class ListByDefault(TyperGroup):
    """A group of commands; without a command it runs `list`."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if not args or (args[0].startswith("-") and args[0] not in ("--help", "-h")):
            args = ["list", *args]
        return super().parse_args(ctx, args)


def application(name: str | None = None) -> typer.Typer:
    """Builds `mrq` with all commands, or with the command of this name only if there is such a command."""
    app = typer.Typer(
        name="mrq",
        no_args_is_help=True,
        rich_markup_mode="rich",
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings=_SETTINGS,
    )
    app.callback(help=help_of(mrq))(mrq)
    for each in [name] if name in _COMMANDS else _COMMANDS:
        _COMMANDS[each](app)
    return app


def mrq(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error, too.")] = False,
) -> None:
    """A distributed task queue for Python.

    New here? `mrq demo` runs some hundred jobs and says what to look at next.
    """
    if version:
        typer.echo(f"mrq {__version__}")
        raise typer.Exit


# --- work -----------------------------------------------------------------------------------------


def _worker(app: typer.Typer) -> None:
    from mrq_core.cli.worker_command import worker

    app.command(rich_help_panel=_WORK)(worker)


def _scheduler(app: typer.Typer) -> None:
    from mrq_core.cli.scheduler_command import scheduler

    app.command(rich_help_panel=_WORK)(scheduler)


def _run(app: typer.Typer) -> None:
    from mrq_core.cli.run_command import run

    app.command(rich_help_panel=_WORK)(run)


def _dashboard(app: typer.Typer) -> None:
    from mrq_core.cli.dashboard_command import dashboard

    app.command(rich_help_panel=_WORK)(dashboard)


def _demo(app: typer.Typer) -> None:
    from mrq_core.cli.demo import demo

    app.command(rich_help_panel=_WORK)(demo)


# --- look and change ------------------------------------------------------------------------------


def _jobs(app: typer.Typer) -> None:
    from mrq_core.cli.jobs_actions import cancel, edit, move, remove, requeue
    from mrq_core.cli.jobs_commands import list_jobs, logs, show_job, wait

    jobs = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="List, show and change jobs.")
    jobs.command("list")(list_jobs)
    jobs.command("show")(show_job)
    jobs.command()(logs)
    jobs.command()(wait)
    jobs.command()(requeue)
    jobs.command()(cancel)
    jobs.command()(move)
    jobs.command()(edit)
    jobs.command()(remove)
    app.add_typer(jobs, name="jobs", rich_help_panel=_LOOK)


def _queues(app: typer.Typer) -> None:
    from mrq_core.cli.queues_commands import list_queues, move_jobs, pause, purge, resume, stats

    queues = _group(app, "queues", "List, measure, pause, resume, purge and move queues.")
    queues.command("list")(list_queues)
    queues.command()(stats)
    queues.command()(pause)
    queues.command()(resume)
    queues.command()(purge)
    queues.command("move")(move_jobs)


def _tasks(app: typer.Typer) -> None:
    from mrq_core.cli.tasks_commands import list_all_tasks, pause_task, resume_task, show_task

    tasks = _group(app, "tasks", "Show, pause and resume tasks.")
    tasks.command("list")(list_all_tasks)
    tasks.command("show")(show_task)
    tasks.command("pause")(pause_task)
    tasks.command("resume")(resume_task)


def _limits(app: typer.Typer) -> None:
    from mrq_core.cli.limits_commands import list_limits, remove_limits, set_limit

    limits = _group(app, "limits", "List, set and remove limits.")
    limits.command("list")(list_limits)
    limits.command("set")(set_limit)
    limits.command("remove")(remove_limits)


def _schedules(app: typer.Typer) -> None:
    from mrq_core.cli import schedules_commands

    schedules = _group(app, "schedules", "List, add, pause, run and delete schedules.")
    schedules.command("list")(schedules_commands.list_schedules)
    schedules.command()(schedules_commands.add)
    schedules.command("pause")(schedules_commands.pause_schedule)
    schedules.command("resume")(schedules_commands.resume_schedule)
    schedules.command("run")(schedules_commands.run_now)
    schedules.command("next")(schedules_commands.next_fires)
    schedules.command()(schedules_commands.delete)
    schedules.command()(schedules_commands.backfill)


def _workers(app: typer.Typer) -> None:
    from mrq_core.cli.workers_commands import (
        drain,
        list_workers,
        profile,
        show_worker,
        stack,
        stop,
        worker_log,
    )

    workers = _group(app, "workers", "List, show and stop workers.")
    workers.command("list")(list_workers)
    workers.command("show")(show_worker)
    workers.command()(stop)
    workers.command()(drain)
    workers.command()(stack)
    workers.command()(profile)
    workers.command("log")(worker_log)


def _explain(app: typer.Typer) -> None:
    from mrq_core.cli.explain_command import explain

    app.command(rich_help_panel=_LOOK)(explain)


def _stack(app: typer.Typer) -> None:
    from mrq_core.cli.workers_commands import stack_of

    app.command("stack", rich_help_panel=_LOOK)(stack_of)


def _group(app: typer.Typer, name: str, help: str) -> typer.Typer:
    """Adds an empty group whose default command is `list`."""
    group = typer.Typer(cls=ListByDefault, rich_markup_mode="rich", help=help)
    app.add_typer(group, name=name, rich_help_panel=_LOOK)
    return group


# --- care -----------------------------------------------------------------------------------------


def _check(app: typer.Typer) -> None:
    from mrq_core.cli.check_commands import check

    app.command(rich_help_panel=_CARE)(check)


def _plugins(app: typer.Typer) -> None:
    from mrq_core.cli.check_commands import plugins

    app.command(rich_help_panel=_CARE)(plugins)


_COMMANDS: dict[str, Callable[[typer.Typer], None]] = {
    "worker": _worker,
    "scheduler": _scheduler,
    "run": _run,
    "dashboard": _dashboard,
    "demo": _demo,
    "jobs": _jobs,
    "queues": _queues,
    "tasks": _tasks,
    "limits": _limits,
    "schedules": _schedules,
    "workers": _workers,
    "explain": _explain,
    "stack": _stack,
    "check": _check,
    "plugins": _plugins,
}
"""Adds each command to the application, in the order of the help."""
