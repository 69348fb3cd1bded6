"""`mrq worker`."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from mrq_core.cli.errors import EXIT_FAILED, UsageError
from mrq_core.cli.options import Given, command
from mrq_core.operations.filters import queue_names_from


@command("broker", "worker", "tasks", "logs", "plugins", has_result=False)
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

    Examples: `mrq worker`, `mrq worker high low -g 10`, `mrq worker mail/ --burst`.
    """
    settings: dict[str, object] = {}
    if names:
        if "queues" in given.overrides:
            raise UsageError("queues are named twice, as arguments and by --queues: expected one of them")
        if not all(name.strip(", ") for name in names):
            raise UsageError(
                "the name of a queue is empty: expected names of queues, or no argument for QUEUES"
            )
        settings["queues"] = queue_names_from(names)
    config = given.config(**settings)
    words = [word.strip() for word in config.dequeue_strategy.split(",")]
    if burst and "burst" not in words:
        config = replace(config, dequeue_strategy=",".join([*words, "burst"]))

    from mrq_core.operations.checks import check_task_options
    from mrq_core.plugins.manager import Plugins
    from mrq_core.running.logs import set_up_logging
    from mrq_core.worker.signals import end_after_work, leave_after_work
    from mrq_core.worker.worker import Worker

    check_task_options(config)
    set_up_logging(config)
    try:
        code = Worker(config, Plugins(config)).run(exits_after=True)
    except BaseException:
        leave_after_work(EXIT_FAILED)
        raise
    end_after_work(code)
