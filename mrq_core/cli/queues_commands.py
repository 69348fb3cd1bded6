"""`mrq queues`: lists, pauses and resumes queues."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, TypedDict

import typer

from mrq_core.cli.errors import UsageError
from mrq_core.cli.options import Given, command
from mrq_core.cli.output import note, print_json, say, seconds, show_table
from mrq_core.contract.messages import Pause
from mrq_core.operations import queues
from mrq_core.operations.filters import seconds_from, time_from
from mrq_core.operations.views import iso, queue_view

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
        return {"seconds": seconds_from(duration, name="--for")}
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
    """Lists the queues that have, or had, jobs, with their counts."""
    with given.client() as client:
        found = queues.list_queues(client.broker)
    if as_json:
        print_json([queue_view(queue, paused=found.paused) for queue in found.queues])
        return
    now = datetime.now(UTC)
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
        note(f"Also paused: {', '.join(others)}")


@command("broker", "plugins")
def pause(given: Given, names: Names, until: Until = None, duration: For = None) -> None:
    """Pauses queues: workers claim nothing more from them, and running jobs go on."""
    with given.client() as client:
        end = queues.pause_queues(client.broker, names, **pause_end(until, duration))
    say(f"paused{until_text(end)}: {', '.join(names)}")


@command("broker", "plugins")
def resume(given: Given, names: Names) -> None:
    """Resumes paused queues."""
    with given.client() as client:
        result = queues.resume_queues(client.broker, names)
    for name, tree in result.not_paused.items():
        note(f"{name} was not paused" + (f" itself, but as part of {tree}: resume that" if tree else ""))
    if result.resumed:
        say(f"resumed: {', '.join(result.resumed)}")
