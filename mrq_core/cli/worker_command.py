"""`mrq worker`."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import Annotated, NoReturn

import typer

from mrq_core.cli import worker_role
from mrq_core.cli.errors import UsageError
from mrq_core.cli.options import Given, command
from mrq_core.cli.worker_process import run_worker, with_burst
from mrq_core.config.settings import Config
from mrq_core.operations.queries.filters import worker_queues_from

_LEAVE_WITHIN = 1.0
"""Seconds for the parent of workers to end once these have ended."""


@command("broker", "worker", "scheduler", "tasks", "logs", "plugins", "debugging", has_result=False)
def worker(
    given: Given,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="QUEUES",
            help="Queues to work on, in order; a name that ends with / means its subqueues. Default: QUEUES.",
            show_default=False,
        ),
    ] = None,
    burst: Annotated[
        bool, typer.Option("--burst", help="Stop when nothing is due any more.", rich_help_panel="Worker")
    ] = False,
) -> None:
    """Runs the jobs of queues, until it is told to stop.

    Ctrl-C lets running jobs finish; a second one interrupts them. SIGTERM interrupts them after STOP_GRACE.
    With --processes, a parent process runs several workers, replaces them, and passes signals on.

    Examples: `mrq worker`, `mrq worker high low -g 10`, `mrq worker mail/ --burst`, `mrq worker -p auto`.
    """
    settings: dict[str, object] = {}
    if names:
        if "queues" in given.overrides:
            raise UsageError("queues are named twice, as arguments and by --queues: expected one of them")
        if not all(name.strip(", ") for name in names):
            raise UsageError(
                "the name of a queue is empty: expected names of queues, or no argument for QUEUES"
            )
        settings["queues"] = worker_queues_from(names)
    config = given.config(**settings)
    once = config.file.path if config.file is not None and config.file.is_read_once else None
    worker_role.keep_or_change(wants_parent=config.processes > 0, read_once=once)
    if not config.processes:
        run_worker(with_burst(config) if burst else config)
    _run_parent(config, given, {**given.overrides, **settings}, is_burst=burst)


def _run_parent(config: Config, given: Given, overrides: Mapping[str, object], *, is_burst: bool) -> NoReturn:
    """Runs the workers of `--processes`, and ends the process."""
    from mrq_core.operations.checking.checks import check_task_options
    from mrq_core.running.logs import set_up_logging
    from mrq_core.scheduler.definitions import definitions_from
    from mrq_core.worker.guards.called_code import guard_called_code
    from mrq_core.worker.processes.child import ChildProcess
    from mrq_core.worker.processes.log_thread import LogThread
    from mrq_core.worker.processes.messages import Start, encoded
    from mrq_core.worker.processes.parent import ParentProcess, check_number

    check_number(config.processes)
    check_task_options(config)
    if config.scheduler:  # each worker also reads the tasks, which a parent never imports
        definitions_from(config.scheduler_tasks)
    launch = worker_role.launch
    launch.return_to_folder()
    guard_called_code()
    set_up_logging(config, follows_file=True)
    log = LogThread()

    file, source = given.file, None
    if config.file is not None and config.file.is_read_once:
        file, source = config.file.path, config.file.source

    def start(number: int) -> ChildProcess:
        told = Start(
            number=number, overrides=overrides, file=file, source=source, is_burst=is_burst, debug=given.debug
        )
        title = f"mrq-worker-process {number}/{config.processes}"
        return ChildProcess(encoded(told), launch, title)

    code = ParentProcess(config.processes, start, stop_grace=config.stop_grace).run()
    log.stop(_LEAVE_WITHIN / 2)
    threading.Thread(target=_end_later, args=(code,), daemon=True).start()
    sys.exit(code)


def _end_later(code: int) -> None:
    """Ends the process, whatever the config file has left in it."""
    time.sleep(_LEAVE_WITHIN / 2)
    os._exit(code)
