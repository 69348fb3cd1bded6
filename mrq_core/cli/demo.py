"""`mrq demo`: real jobs on a real broker, a worker in this process, a dashboard beside it, and results."""

from __future__ import annotations

import logging
import sys
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from mrq_core.cli.errors import EXIT_INTERRUPTED, CommandFailed
from mrq_core.cli.options import Given, command
from mrq_core.cli.output import console, counted, note, program, say
from mrq_core.clock import monotonic
from mrq_core.config.settings import default_of
from mrq_core.errors import BrokerUnavailable

if TYPE_CHECKING:
    from gevent.event import Event

    from mrq_core.cli.demo_dashboard import DemoDashboard
    from mrq_core.cli.demo_jobs import DemoJobs
    from mrq_core.client.client import Client
    from mrq_core.config.settings import Config
    from mrq_core.plugins.manager import Plugins
    from mrq_core.worker.executions import Execution
    from mrq_core.worker.worker import Worker

_DEFAULT_JOBS = 500
_LOOK_EVERY = 0.5
"""Seconds between two looks at jobs that this process has not settled: another worker may have."""
_SETTINGS: dict[str, object] = {
    "quiet": True,
    "max_latency": 0.1,  # so that retries are not waited for longer than they take
    # What a config file says of other workers would end this one too early.
    "name": "",
    "dequeue_strategy": "sequential",
    "max_jobs": 0,
    "max_time": 0,
    "max_memory": 0,
    "allow_tasks": (),
    "deny_tasks": (),
    # And what it says of other jobs would remove these too early.
    **{name: default_of(name) for name in ("default_job_result_ttl", "default_job_ttl")},
}


@command("broker", "plugins", "dashboard")
def demo(
    given: Given,
    number: Annotated[
        int, typer.Option("--jobs", min=1, metavar="INTEGER", help="How many source files to read at most.")
    ] = _DEFAULT_JOBS,
    greenlets: Annotated[
        int, typer.Option("--greenlets", "-g", min=1, metavar="INTEGER", help="How many jobs run at a time.")
    ] = 10,
    no_dashboard: Annotated[
        bool,
        typer.Option("--no-dashboard", help="Leave the dashboard out, and end with the jobs."),
    ] = False,
) -> None:
    """Reads Python's own library, a job for each source file, and shows how jobs can end.

    The dashboard shows the jobs. On a terminal, the worker and the dashboard then go on until Ctrl-C. The
    jobs stay with the configured broker, to be looked at. The demo can be run again and again.
    """
    from mrq_core.cli.demo_dashboard import dashboard_of
    from mrq_core.cli.demo_tasks import QUEUE
    from mrq_core.client.client import Client
    from mrq_core.plugins.manager import Plugins
    from mrq_core.worker.guards.surroundings import folder_now

    config = given.config(queues=QUEUE, greenlets=greenlets, **_SETTINGS)
    _quiet_logs(config)
    plugins = Plugins(config)
    client = Client(config, plugins=plugins)
    try:
        folder_now()  # the worker needs it: refuse before jobs are queued
        with dashboard_of(config, given, is_wanted=not no_dashboard) as dashboard:
            jobs = _enqueue(client, number)
            try:
                _work(config, plugins, jobs, dashboard, given.broker_flags())
            except KeyboardInterrupt:  # the worker does not handle signals yet
                _tell_left(jobs, client, given)
                raise
        if _tell_left(jobs, client, given):
            sys.exit(EXIT_INTERRUPTED)
    finally:
        client.close()
    surprises = jobs.surprises()
    if surprises:
        raise CommandFailed("\n".join(["not all jobs ended as expected:", *(f"  {s}" for s in surprises)]))


def _tell_left(jobs: DemoJobs, client: Client, given: Given) -> bool:
    """Says how to go on if some jobs are not known to have ended. Does not wait for a broker that is away:
    little time is left after the worker's stop."""
    from mrq_core.cli.demo_tasks import QUEUE

    try:
        left = len(jobs.unknown() if jobs.is_stale else jobs.refresh(client))
    except BrokerUnavailable as error:
        note(f"mrq: {error}")
        left = len(jobs.unknown())
    if left:
        again = f"{program()} worker {QUEUE} --burst{given.broker_flags()}"
        note(f"Stopped. {counted(left, 'job')} stay on the queue {QUEUE}; to go on with them: {again}")
    return bool(left)


def _quiet_logs(config: Config) -> None:
    from mrq_core.running.logs import set_up_logging

    # The demo shows that jobs fail; what the worker logs about that would be in the way.
    logging.getLogger("mrq.worker").setLevel(logging.CRITICAL)
    set_up_logging(replace(config, log_level="INFO", quiet=True))


def _enqueue(client: Client, number: int) -> DemoJobs:
    from mrq_core.cli.demo_jobs import enqueue, source_files
    from mrq_core.cli.demo_tasks import QUEUE

    client.broker.prepare()
    if QUEUE in client.broker.paused():
        raise CommandFailed(f"the queue {QUEUE} is paused: `mrq queues resume {QUEUE}` lets it go on")
    files = source_files(number)
    if len(files) < number != _DEFAULT_JOBS:
        note(f"The library of this Python has only {counted(len(files), 'source file')}.")
    jobs = enqueue(client, files)
    others = len(jobs.expected) - len(files)
    say(
        f"{counted(len(jobs.expected), 'job')} queued on {client.broker.name}: "
        f"{len(files):,} read source files, {others} show how else jobs can end."
    )
    return jobs


def _work(
    config: Config, plugins: Plugins, jobs: DemoJobs, dashboard: DemoDashboard | None, flags: str
) -> None:
    """Runs a worker until all these jobs have ended, here or elsewhere, and shows the results. Beside a
    dashboard on a terminal, the worker then goes on until it is stopped, or the dashboard ends. Like the
    worker, waits for a broker that is away."""
    import gevent
    from gevent.event import Event

    from mrq_core.cli.demo_display import print_results, progress
    from mrq_core.worker.worker import Worker

    address = dashboard.ready() if dashboard is not None else None
    if address is not None:
        say(f"The dashboard is at {address}")
    goes_on = address is not None and console().is_terminal
    running = set(jobs.expected)
    ended = Event()
    failures: list[Exception] = []
    shown = ExitStack()
    show_progress = shown.enter_context(progress(len(running)))

    def on_settled(execution: Execution) -> None:
        if (
            execution.record.id in running
            and execution.outcome is not None
            and execution.outcome.status.is_ended
        ):
            running.discard(execution.record.id)
            show_progress(len(jobs.expected) - len(running))
            if not running:
                ended.set()

    def watch() -> None:
        try:
            _wait_for(jobs, worker, ended)
            seconds = monotonic() - started
            shown.close()
            print_results(jobs, seconds, flags, goes_on=goes_on)
            if goes_on and dashboard is not None:
                say(
                    f"The dashboard is at {address} and a worker runs what you queue there. Ctrl-C ends both."
                )
                dashboard.wait()
        except Exception as error:  # gevent would print its traceback
            failures.append(error)
        finally:
            worker.stop("the demo has ended")

    worker = Worker(config, plugins, on_settled=on_settled)
    started = monotonic()
    watcher = gevent.spawn(watch)
    try:
        code = worker.run()
    finally:
        watcher.kill()
        shown.close()
    if failures:
        raise failures[0]
    if code:
        raise CommandFailed("the worker of the demo broke")


def _wait_for(jobs: DemoJobs, worker: Worker, ended: Event) -> None:
    """Waits until all jobs have ended. `ended`: the worker has settled all of them."""
    import gevent

    while True:
        was_away = jobs.is_stale
        try:
            if worker.status != "init" and not jobs.refresh(worker.client):
                return
            ended.wait(_LOOK_EVERY)
        except BrokerUnavailable as error:
            if not was_away:
                note(f"mrq: {error}\nThe demo goes on when the broker is back.")
            gevent.sleep(_LOOK_EVERY)
