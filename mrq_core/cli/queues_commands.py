"""`mrq queues`: lists, pauses and resumes queues."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from mrq_core.cli.options import Given, command
from mrq_core.cli.output import note, print_json, say, show_table
from mrq_core.operations import queues
from mrq_core.operations.views import queue_view, seconds

Names = Annotated[
    list[str], typer.Argument(metavar="NAME", help="Queues; a name that ends with / means its subqueues.")
]


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
            "yes" if found.is_paused(queue.queue) else None,
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
def pause(given: Given, names: Names) -> None:
    """Pauses queues: workers claim nothing more from them, and running jobs go on."""
    with given.client() as client:
        queues.pause_queues(client.broker, names)
    say(f"paused: {', '.join(names)}")


@command("broker", "plugins")
def resume(given: Given, names: Names) -> None:
    """Resumes paused queues."""
    with given.client() as client:
        result = queues.resume_queues(client.broker, names)
    for name, tree in result.not_paused.items():
        note(f"{name} was not paused" + (f" itself, but as part of {tree}: resume that" if tree else ""))
    if result.resumed:
        say(f"resumed: {', '.join(result.resumed)}")
