"""`mrq queues`: what waits where, and pauses."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer

from mrq_core.cli.options import Given, command
from mrq_core.cli.output import note, print_json, say, seconds, show, table
from mrq_core.cli.session import opened
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import CHUNK, QueueCounts
from mrq_core.contract.naming import check_queue_name
from mrq_core.operations.views import queue_view

Names = Annotated[
    list[str], typer.Argument(metavar="NAME", help="Queues; a name that ends with / means its subqueues.")
]


@command("broker", "plugins")
def list_queues(
    given: Given, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Lists the queues that have, or had, jobs, and what they hold."""
    with opened(given) as client:
        counts = _all_counts(client.broker)
        paused = client.broker.paused()
    now = datetime.now(UTC)
    views = [queue_view(queue, paused=paused) for queue in counts]
    if as_json:
        print_json(list(views))
        return
    rows = [
        (
            queue.queue,
            queue.waiting,
            queue.due,
            queue.claimed,
            seconds((now - queue.oldest_due).total_seconds()) if queue.oldest_due else None,
            "yes" if view["paused"] else None,
        )
        for queue, view in zip(counts, views, strict=True)
    ]
    if rows:
        show(table(("name", "waiting", "due", "claimed", "oldest due since", "paused"), rows))
    else:
        note("There are no queues yet: the first job makes one.")
    others = sorted(paused - {queue.queue for queue in counts})
    if others:
        note(f"Paused as well: {', '.join(others)}")


@command("broker", "plugins")
def pause(given: Given, names: Names) -> None:
    """Lets workers take nothing more from queues; what runs goes on."""
    _check(names)
    with opened(given) as client:
        client.broker.pause(names)
    say(f"paused: {', '.join(names)}")


@command("broker", "plugins")
def resume(given: Given, names: Names) -> None:
    """Undoes pause."""
    _check(names)
    with opened(given) as client:
        before = client.broker.paused()
        client.broker.resume(names)
    for name in names:
        if name not in before:
            note(f"{name} was not paused" + _tree_note(name, before))
    resumed = [name for name in names if name in before]
    if resumed:
        say(f"resumed: {', '.join(resumed)}")


def _tree_note(name: str, paused: frozenset[str]) -> str:
    trees = [tree for tree in sorted(paused) if tree.endswith("/") and name.startswith(tree) and name != tree]
    return f" itself, but as part of {trees[0]}: resume that" if trees else ""


def _check(names: Sequence[str]) -> None:
    for name in names:
        check_queue_name(name.removesuffix("/"))


def _all_counts(broker: Broker) -> list[QueueCounts]:
    counts: list[QueueCounts] = []
    after = ""
    while names := broker.queue_names(after=after, limit=CHUNK):
        counts += broker.counts(names)
        after = names[-1]
        if len(names) < CHUNK:
            break
    return counts
