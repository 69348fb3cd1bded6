"""`mrq queues`: lists queues, shows their load, pauses and resumes them, purges them and moves their jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Protocol, TypedDict

import typer

from mrq_core.cli.errors import CommandFailed, UsageError, ask, can_ask, named_as_typed
from mrq_core.cli.options import Given, command
from mrq_core.cli.output import counted, note, print_json, say, show_table, told_until_then
from mrq_core.contract.broker import Broker
from mrq_core.contract.naming import shown_names
from mrq_core.contract.shared_state import Pause
from mrq_core.operations import queues
from mrq_core.operations.queries.filters import duration_from, queue_names_from, time_from
from mrq_core.operations.queue_contents import (
    Emptied,
    OnStep,
    checked_move,
    move_queue,
    purge_queue,
    what_waits,
)
from mrq_core.operations.statistics import QueueStatistics, queue_statistics
from mrq_core.operations.views import iso, queue_view, seconds, statistics_view

Names = Annotated[
    list[str], typer.Argument(metavar="NAME", help="Queues; a name that ends with / means its subqueues.")
]


Until = Annotated[
    str | None,
    typer.Option("--until", metavar="TIME", help="The end of the pause, such as 2025-01-31T12:00; UTC."),
]
For = Annotated[
    str | None,
    typer.Option("--for", metavar="DURATION", help="The length of the pause: 90s, 15m, 2h."),
]


class _End(TypedDict, total=False):
    until: datetime
    seconds: float


def pause_end(until: str | None, duration: str | None) -> _End:
    """The arguments for the end of a pause. Raises UsageError."""
    if until is not None and duration is not None:
        raise UsageError("--until and --for were given: a pause has one end")
    if duration is not None:
        return {"seconds": duration_from(duration, name="--for")}
    return {} if until is None else {"until": time_from(until, name="--until")}


def until_text(end: datetime | None) -> str:
    """The end of a pause, for a message."""
    return "" if end is None else f" until {iso(end)}"


def pause_text(pause: Pause | None) -> str | None:
    """Whether there is a pause, and its end, for a table."""
    return None if pause is None else f"yes{until_text(pause.until)}"


@command("broker", "plugins", needs_output=True)
def list_queues(
    given: Given, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Lists the queues that hold jobs, with their counts."""
    with given.client() as client:
        found, now = queues.list_queues(client.broker), client.broker.now()
    if as_json:
        print_json([queue_view(queue, paused=found.paused) for queue in found.queues])
        return
    rows = [
        (
            queue.queue,
            queue.waiting,
            queue.due,
            queue.claimed,
            seconds((now - queue.oldest_due).total_seconds()) if queue.oldest_due else None,
            pause_text(found.pause_of(queue.queue)),
        )
        for queue in found.queues
    ]
    if rows:
        show_table(("name", "waiting", "due", "claimed", "oldest due since", "paused"), rows)
    else:
        note("There are no queues yet: the first job makes one.")
    others = found.other_paused()
    if others:
        note(f"Also paused: {shown_names(others)}")


@command("broker", "plugins", needs_output=True)
def stats(
    given: Given,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Queues, and trees that end with /. Default: all queues."),
    ] = None,
    empty_in: Annotated[
        str,
        typer.Option(
            "--empty-in",
            metavar="DURATION",
            help="The time in which the needed workers run all due jobs, such as 90s or 5m.",
        ),
    ] = "5m",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Shows the load of queues over the last five minutes, and how many workers they need."""
    within = duration_from(empty_in, name="empty_in")
    with given.client() as client:
        found = queue_statistics(
            client.broker, names or (), empty_in=within, greenlets=client.config.greenlets
        )
    if as_json:
        print_json([statistics_view(one) for one in found])
    elif found:
        show_table(_STATISTICS, [_statistics_row(one) for one in found])
    else:
        note("There are no queues yet: the first job makes one.")


_STATISTICS = (
    *("name", "due", "oldest due since", "arrive/min", "end/min", "wait p95", "run p50", "run p95"),
    *("run p99", "workers", "needed"),
)


def _statistics_row(one: QueueStatistics) -> tuple[object, ...]:
    waiting, running = one.waiting_time, one.run_time
    return (
        one.name,
        one.due,
        seconds(one.oldest_age),
        None if one.arrival_rate is None else f"{one.arrival_rate * 60:.1f}",
        f"{one.service_rate * 60:.1f}",
        seconds(waiting.p95) if waiting else None,
        *((seconds(running.p50), seconds(running.p95), seconds(running.p99)) if running else (None,) * 3),
        one.workers,
        one.workers_needed,
    )


@command("broker", "plugins")
def pause(given: Given, names: Names, until: Until = None, duration: For = None) -> None:
    """Pauses queues: workers claim nothing more from them, and running jobs go on."""
    with given.client() as client:
        paused = queue_names_from(names)
        with named_as_typed(until="--until"):
            end = queues.pause_queues(client.broker, paused, **pause_end(until, duration))
    say(f"paused{until_text(end)}: {shown_names(paused)}")


@command("broker", "plugins")
def resume(given: Given, names: Names) -> None:
    """Resumes paused queues."""
    with given.client() as client:
        result = queues.resume_queues(client.broker, queue_names_from(names))
    for name, tree in result.not_paused.items():
        around = f" itself, but as part of {shown_names([tree])}: resume that" if tree else ""
        note(f"{shown_names([name])} was not paused{around}")
    if result.resumed:
        say(f"resumed: {shown_names(result.resumed)}")


Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Count what waits, and change nothing.")]


@command("broker", "plugins")
def purge(given: Given, names: Names, yes: Yes = False, dry_run: DryRun = False) -> None:
    """Removes what waits in queues: jobs with their logs, parameters of raw queues. Running jobs go on.

    Example: `mrq queues purge mail/ --dry-run`.
    """
    with given.client() as client:
        purged = queue_names_from(names)
        if not _is_confirmed(client.broker, purged, "Remove {}?", yes=yes, dry_run=dry_run):
            return
        for name in purged:
            _in_steps(partial(purge_queue, client.broker, name), partial(_removed_text, name))


def _removed_text(name: str, done: Emptied) -> str:
    params = f", {counted(done.params, 'parameter')}" if done.params else ""
    return f"{shown_names([name])}: {counted(done.jobs, 'job')} removed{params}"


@command("broker", "plugins")
def move_jobs(
    given: Given,
    names: Names,
    to: Annotated[str, typer.Option("--to", metavar="QUEUE", help="The queue to move the jobs to.")],
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Moves the waiting jobs of queues to another queue. Due times and priorities stay; running jobs go on.

    Example: `mrq queues move slow --to fast`.
    """
    with given.client() as client:
        moved = queue_names_from(names)
        for name in moved:
            with named_as_typed(to="--to"):
                checked_move(name, to)
        question = f"Move {{}} to {shown_names([to])}?"
        if not _is_confirmed(client.broker, moved, question, yes=yes, dry_run=dry_run):
            return
        for name in moved:
            _in_steps(partial(move_queue, client.broker, name, to), partial(_moved_text, name, to))


def _moved_text(name: str, to: str, done: Emptied) -> str:
    return f"{shown_names([name])}: {counted(done.jobs, 'job')} moved to {shown_names([to])}"


class _Empties(Protocol):
    """`purge_queue` or `move_queue`, for one queue."""

    def __call__(self, *, on_step: OnStep) -> Emptied: ...


def _in_steps(work: _Empties, text_of: Callable[[Emptied], str]) -> None:
    """Prints what the work has changed; after an error or an interrupt, what its earlier steps have
    changed."""
    done = Emptied()

    def step(now: Emptied) -> None:
        nonlocal done
        done = now

    with told_until_then(lambda: text_of(done) if done.number else ""):
        done = work(on_step=step)
    say(text_of(done))


def _is_confirmed(broker: Broker, names: Sequence[str], question: str, *, yes: bool, dry_run: bool) -> bool:
    """Prints what waits for a dry run, or asks a person. Raises CommandFailed for a no."""
    if not dry_run and (yes or not can_ask()):
        return True
    found = [what_waits(broker, name) for name in names]
    params = sum(one.params for one in found)
    texts = [counted(sum(one.number for one in found) - params, "job")]
    texts += [counted(params, "parameter")] if params else []
    text = f"{' and '.join(texts)} of {shown_names(names)}"
    if dry_run:
        say(text)
        return False
    if not ask(question.replace("{}", text)):
        raise CommandFailed("nothing was changed")
    return True
