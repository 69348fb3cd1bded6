"""`mrq workers`: lists and shows workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from mrq_core.cli.errors import CommandFailed
from mrq_core.cli.options import Given, command
from mrq_core.cli.output import note, print_json, safe, say, show_table
from mrq_core.contract.broker import Broker
from mrq_core.contract.codec import JsonValue
from mrq_core.contract.naming import shown_names
from mrq_core.contract.record import Status
from mrq_core.contract.values import check_path
from mrq_core.errors import JobNotFound
from mrq_core.ids import is_id
from mrq_core.operations import workers as reports
from mrq_core.operations.queries.filters import duration_from
from mrq_core.operations.requests import request_worker
from mrq_core.operations.running_jobs import NOT_TRACED, io_calls_text
from mrq_core.operations.views import iso, seconds, worker_view

Name = Annotated[str, typer.Argument(metavar="NAME", help="The worker's name, its NAME, or its host.")]
Patience = Annotated[
    str,
    typer.Option("--patience", metavar="DURATION", help="How long to wait for the answer: 30s, 2m."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@command("broker", "plugins", needs_output=True)
def list_workers(given: Given, as_json: AsJson = False) -> None:
    """Lists the workers of the last hour: at work, stopped (state stop) and dead."""
    with given.client() as client:
        found, now = reports.list_workers(client.broker), client.broker.now()
    if as_json:
        print_json([worker_view(report) for report in found])
        return
    rows = [
        (
            report.name,
            report.status,
            _queues_text(report),
            f"{report.busy}/{report.greenlets}",
            sum(report.jobs.values()),
            f"{report.memory / 1e6:.0f} MB",
            seconds((now - report.started_at).total_seconds()),
            f"{seconds((now - report.reported_at).total_seconds())} ago",
        )
        for report in found
    ]
    if rows:
        show_table(("name", "state", "queues", "running", "jobs", "memory", "up", "reported"), rows)
    else:
        note("No worker is running here. Start one with `mrq worker`.")


@command("broker", "plugins", needs_output=True)
def show_worker(
    given: Given,
    name: Name,
    as_json: AsJson = False,
) -> None:
    """Shows one worker and its running jobs. Exits with 1 if it has stopped or died."""
    with given.client() as client:
        report = reports.only_worker(client.broker, name)
    if as_json:
        print_json(worker_view(report))
    else:
        _print_worker(report)
    if not report.is_at_work:
        what = "has stopped" if report.status == reports.STOPPED else "is dead: it has not reported lately"
        raise CommandFailed(f"the worker {report.name} {what}")


@command("broker", "plugins")
def stop(
    given: Given,
    name: Name,
    now: Annotated[bool, typer.Option("--now", help="Interrupt its running jobs at once.")] = False,
    patience: Patience = "10s",
) -> None:
    """Stops a worker: its running jobs have STOP_GRACE seconds, and are then interrupted."""
    _request(given, name, "stop", patience, {"now": True} if now else None)


@command("broker", "plugins")
def drain(given: Given, name: Name, patience: Patience = "10s") -> None:
    """Drains a worker: it claims nothing more, finishes its running jobs, and ends."""
    _request(given, name, "drain", patience)


@command("broker", "plugins")
def stack(given: Given, name: Name, patience: Patience = "10s") -> None:
    """Shows the stacks of the running jobs of a worker."""
    _request(given, name, "stack", patience)


@command("broker", "plugins", needs_output=True)
def worker_log(given: Given, name: Name, patience: Patience = "10s") -> None:
    """Shows the latest log lines of a worker, up to 500, also while a job blocks the worker."""
    _request(given, name, "log", patience)


@command("broker", "plugins", needs_output=True)
def profile(
    given: Given,
    name: Name,
    task: Annotated[str, typer.Option("--task", metavar="PATH", help="The path of the task.")],
    patience: Patience = "1m",
) -> None:
    """Profiles the next run of a task in a worker, and shows where its time goes.

    Example: `mrq workers profile web-1 --task shop.call`.
    """
    ttl = _seconds_of(patience)
    with given.client() as client:
        worker = reports.only_worker(client.broker, name).name
        answer = request_worker(client.broker, worker, "profile", {"task": check_path(task)}, ttl=ttl)
    say(safe(answer.rstrip("\n")))


@command("broker", "plugins", needs_output=True)
def stack_of(
    given: Given,
    name: Annotated[
        str,
        typer.Argument(
            metavar="WORKER|JOB", help="The worker's name, its NAME, or its host; or the id of a running job."
        ),
    ],
    patience: Patience = "10s",
) -> None:
    """Shows the stacks of a worker's greenlets, or of a running job, also while a job blocks the worker.

    Examples: `mrq stack web-1`, `mrq stack ID`.
    """
    ttl = _seconds_of(patience)
    with given.client() as client:
        broker = client.broker
        if is_id(name) and not reports.find_workers(broker, name):
            answer = request_worker(broker, _worker_of(broker, name), "stack", {"job": name.lower()}, ttl=ttl)
        else:
            answer = request_worker(broker, reports.only_worker(broker, name).name, "stack", ttl=ttl)
    say(safe(answer.rstrip("\n")))


def _seconds_of(patience: str) -> float:
    return duration_from(patience, name="--patience", least=0.1, most=3600)


def _worker_of(broker: Broker, job_id: str) -> str:
    """The worker that runs the job. Raises CommandFailed and JobNotFound."""
    [record] = broker.get([job_id])
    if record is None:
        raise JobNotFound(job_id)
    if record.status is not Status.STARTED or record.worker is None:
        raise CommandFailed(f"the job {job_id} is {record.status}: only a running job has a stack")
    return record.worker


def _request(
    given: Given, name: str, kind: str, patience: str, args: Mapping[str, JsonValue] | None = None
) -> None:
    ttl = _seconds_of(patience)
    with given.client() as client:
        worker = reports.only_worker(client.broker, name).name
        answer = request_worker(client.broker, worker, kind, args, ttl=ttl)
    say(safe(answer.rstrip("\n")) if kind in ("stack", "log") else f"{worker}: {answer}")


def _print_worker(report: reports.WorkerReport) -> None:
    say(f"{report.name}  {report.status}", style="bold")
    ended = ", ".join(f"{number:,} {status}" for status, number in sorted(report.jobs.items())) or "none"
    facts = {
        "host": f"{report.host}, {report.ip or 'no address'}, process {report.pid}, mrq {report.version}",
        "queues": _queues_text(report),
        **_chosen_tasks(report),
        "started": iso(report.started_at),
        "reported": iso(report.reported_at),
        "ended": ended,
        "unsettled": report.unsettled,
        "memory": _with_history(
            f"{report.memory / 1e6:.0f} MB", [size / 1e6 for size in report.memory_history], " MB"
        ),
        "cpu": _with_history(
            f"{seconds(report.cpu_time)}, {report.cpu:.0%} of a core",
            [share * 100 for share in report.cpu_history],
            " %",
        ),
        "running": f"{report.busy} of {report.greenlets}, {report.usage:.0%} in the last minute",
    }
    for key, value in facts.items():
        say(f"  {key:<10} {value}")
    if report.running:
        _print_running(report.running)
        if report.busy > len(report.running):
            note(f"The oldest {len(report.running)} of {report.busy} running jobs are shown.")


def _print_running(running: Sequence[reports.RunningJob]) -> None:
    is_traced = any(job.io is not None for job in running)
    rows = []
    for job in running:
        io = (io_calls_text(job.io) if job.io is not None else "",) if is_traced else ()
        rows.append((job.id, job.path, seconds(job.age), *io, "".join(job.stack[-1:])))
    show_table(("id", "task", "for", *(("I/O",) if is_traced else ()), "at"), rows)
    if not is_traced:
        note(NOT_TRACED)


def _queues_text(report: reports.WorkerReport) -> str:
    more = f" and {report.queues_left_out} more" if report.queues_left_out else ""
    return f"{shown_names(report.queues)}{more}"


def _chosen_tasks(report: reports.WorkerReport) -> dict[str, str]:
    """The tasks that the worker runs or leaves to other workers, where it chooses."""
    more = f" and {report.tasks_left_out} more" if report.tasks_left_out else ""
    chosen = {"allowed": report.allowed_tasks, "denied": report.denied_tasks}
    return {key: ", ".join(patterns) + more for key, patterns in chosen.items() if patterns}


def _with_history(now: str, history: Sequence[float], unit: str) -> str:
    """A value with its lowest and highest value of the last hour."""
    if not history:
        return now
    return f"{now} (in the last {len(history)} min: {min(history):.0f} to {max(history):.0f}{unit})"
