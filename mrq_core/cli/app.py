"""The typer application: all commands under their names."""

from __future__ import annotations

from typing import Annotated

import typer

from mrq_core import __version__
from mrq_core.cli.check_commands import check, plugins
from mrq_core.cli.dashboard_command import dashboard
from mrq_core.cli.demo import demo
from mrq_core.cli.explain_command import explain
from mrq_core.cli.jobs_actions import cancel, edit, move, remove, requeue
from mrq_core.cli.jobs_commands import list_jobs, logs, show_job, wait
from mrq_core.cli.limits_commands import list_limits, remove_limits, set_limit
from mrq_core.cli.options import dashed
from mrq_core.cli.queues_commands import list_queues, pause, resume, stats
from mrq_core.cli.run_command import run
from mrq_core.cli.scheduler_command import scheduler
from mrq_core.cli.schedules_commands import (
    add,
    backfill,
    delete,
    list_schedules,
    next_fires,
    pause_schedule,
    resume_schedule,
    run_now,
)
from mrq_core.cli.tasks_commands import list_all_tasks, pause_task, resume_task, show_task
from mrq_core.cli.worker_command import worker
from mrq_core.cli.workers_commands import (
    ListByDefault,
    drain,
    list_workers,
    show_worker,
    stack,
    stack_of,
    stop,
)

_SETTINGS = {"token_normalize_func": dashed, "help_option_names": ["--help", "-h"]}
_WORK, _LOOK, _CARE = "Work", "Look and change", "Care"

app = typer.Typer(
    name="mrq",
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings=_SETTINGS,
)
jobs = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="List, show and change jobs.")
queues = typer.Typer(
    cls=ListByDefault, rich_markup_mode="rich", help="List, measure, pause and resume queues."
)
workers = typer.Typer(cls=ListByDefault, rich_markup_mode="rich", help="List, show and stop workers.")
tasks = typer.Typer(cls=ListByDefault, rich_markup_mode="rich", help="Show, pause and resume tasks.")
schedules = typer.Typer(
    cls=ListByDefault, rich_markup_mode="rich", help="List, add, pause, run and delete schedules."
)
limits = typer.Typer(cls=ListByDefault, rich_markup_mode="rich", help="List, set and remove limits.")


@app.callback()
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


app.command(rich_help_panel=_WORK)(worker)
app.command(rich_help_panel=_WORK)(scheduler)
app.command(rich_help_panel=_WORK)(run)
app.command(rich_help_panel=_WORK)(dashboard)
app.command(rich_help_panel=_WORK)(demo)
app.add_typer(jobs, name="jobs", rich_help_panel=_LOOK)
app.add_typer(queues, name="queues", rich_help_panel=_LOOK)
app.add_typer(tasks, name="tasks", rich_help_panel=_LOOK)
app.add_typer(limits, name="limits", rich_help_panel=_LOOK)
app.add_typer(schedules, name="schedules", rich_help_panel=_LOOK)
app.add_typer(workers, name="workers", rich_help_panel=_LOOK)
app.command(rich_help_panel=_LOOK)(explain)
app.command("stack", rich_help_panel=_LOOK)(stack_of)
app.command(rich_help_panel=_CARE)(check)
app.command(rich_help_panel=_CARE)(plugins)

jobs.command("list")(list_jobs)
jobs.command("show")(show_job)
jobs.command()(logs)
jobs.command()(wait)
jobs.command()(requeue)
jobs.command()(cancel)
jobs.command()(move)
jobs.command()(edit)
jobs.command()(remove)

queues.command("list")(list_queues)
queues.command()(stats)
queues.command()(pause)
queues.command()(resume)

tasks.command("list")(list_all_tasks)
tasks.command("show")(show_task)
tasks.command("pause")(pause_task)
tasks.command("resume")(resume_task)

limits.command("list")(list_limits)
limits.command("set")(set_limit)
limits.command("remove")(remove_limits)

schedules.command("list")(list_schedules)
schedules.command()(add)
schedules.command("pause")(pause_schedule)
schedules.command("resume")(resume_schedule)
schedules.command("run")(run_now)
schedules.command("next")(next_fires)
schedules.command()(delete)
schedules.command()(backfill)

workers.command("list")(list_workers)
workers.command("show")(show_worker)
workers.command()(stop)
workers.command()(drain)
workers.command()(stack)
