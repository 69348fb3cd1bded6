"""`mrq jobs requeue`, `cancel`, `move` and `remove`: changing jobs, by id or all that match."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer
from msgspec.structs import replace

from mrq_core.cli.errors import CommandFailed, UsageError
from mrq_core.cli.options import Given, command
from mrq_core.cli.output import console, counted, say
from mrq_core.cli.session import opened
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import CHUNK, Action, Cancel, ChangeResult, JobFilter, Move, Remove, Requeue
from mrq_core.contract.naming import check_queue_name
from mrq_core.operations.actions import apply_to_ids, apply_to_matching
from mrq_core.operations.filters import FilterTexts, filter_from

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Ids of jobs.", show_default=False)]
Yes = Annotated[
    bool, typer.Option("--yes", "-y", help="Do not ask, on a terminal, before changing many jobs.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Change nothing: only count the jobs.")]


@command("broker", "plugins")
def requeue(
    given: Given,
    wanted: FilterTexts,
    ids: Ids = None,
    to: Annotated[str | None, typer.Option("--to", metavar="QUEUE", help="Queue them there instead.")] = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Queues jobs again that have ended, or wait for a retry.

    Examples: `mrq jobs requeue ID`, `mrq jobs requeue --status failed --error ValueError --since 1d`.
    """
    if to is not None:
        check_queue_name(to)
    _change(given, ids, wanted, Requeue(queue=to), ("requeue", "requeued"), yes=yes, dry_run=dry_run)


@command("broker", "plugins")
def cancel(
    given: Given,
    wanted: FilterTexts,
    ids: Ids = None,
    interrupt: Annotated[bool, typer.Option("--interrupt", help="Stop those that are running, too.")] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Cancels jobs that wait or have failed. A running one is only kept from running again.

    Examples: `mrq jobs cancel ID --interrupt`, `mrq jobs cancel --queue mail --status queued`.
    """
    action = Cancel(interrupt=interrupt)
    _change(given, ids, wanted, action, ("cancel", "cancelled"), yes=yes, dry_run=dry_run)


@command("broker", "plugins")
def move(
    given: Given,
    wanted: FilterTexts,
    to: Annotated[str, typer.Option("--to", metavar="QUEUE", help="The queue to move them to.")],
    ids: Ids = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Moves waiting jobs to another queue; their priority and due time stay.

    Example: `mrq jobs move --queue slow --to fast`.
    """
    check_queue_name(to)
    _change(given, ids, wanted, Move(queue=to), ("move", "moved"), yes=yes, dry_run=dry_run)


@command("broker", "plugins")
def remove(
    given: Given, wanted: FilterTexts, ids: Ids = None, yes: Yes = False, dry_run: DryRun = False
) -> None:
    """Deletes jobs with their logs. Running ones are refused.

    Example: `mrq jobs remove --status success --path reports.Nightly`.
    """
    _change(given, ids, wanted, Remove(), ("remove", "removed"), yes=yes, dry_run=dry_run)


def _change(
    given: Given,
    ids: Sequence[str] | None,
    texts: FilterTexts,
    action: Action,
    verb: tuple[str, str],
    *,
    yes: bool,
    dry_run: bool,
) -> None:
    """Does one of the commands. `verb` is what to do, and what is then done."""
    wanted = filter_from(texts, now=datetime.now(UTC))
    if not ids and wanted.is_empty:
        raise UsageError(f"nothing says which jobs to {verb[0]}: expected ids, or a filter such as --status")
    if ids and not wanted.is_empty:
        raise UsageError("ids and filters are both given: expected one of them")
    with opened(given) as client:
        if isinstance(action, Cancel):
            action = replace(action, ttl=client.config.default_job_cancel_ttl)
        if dry_run:
            _count(client.broker, ids, wanted, verb)
        elif ids:
            _by_id(client.broker, ids, action, verb)
        elif yes or _is_confirmed(client.broker, wanted, verb):
            _by_filter(client.broker, wanted, action, verb)
        else:
            raise CommandFailed("nothing was changed")


def _count(broker: Broker, ids: Sequence[str] | None, wanted: JobFilter, verb: tuple[str, str]) -> None:
    if ids:
        wanted = JobFilter(ids=tuple(dict.fromkeys(ids)))
    numbers = broker.count(wanted, "status")
    parts = ", ".join(f"{number:,} {status}" for status, number in sorted(numbers.items()))
    say(f"{counted(sum(numbers.values()), 'job')} to {verb[0]}{f': {parts}' if parts else ''}")


def _is_confirmed(broker: Broker, wanted: JobFilter, verb: tuple[str, str]) -> bool:
    """Asks, where there is a terminal to ask on."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return True
    number = sum(broker.count(wanted).values())
    return typer.confirm(f"{verb[0].capitalize()} {counted(number, 'job')}?")


def _by_id(broker: Broker, ids: Sequence[str], action: Action, verb: tuple[str, str]) -> None:
    answers = apply_to_ids(broker, ids, action)
    say(_summary(Counter(change for _, change in answers), verb))
    refused = [job_id for job_id, change in answers if change is ChangeResult.REFUSED]
    statuses = {r.id: str(r.status) for start in range(0, len(refused), CHUNK)
                for r in broker.get(refused[start : start + CHUNK]) if r is not None}  # fmt: skip
    problems = [f"{job_id}: its status is {statuses.get(job_id, 'unknown')}" for job_id in refused]
    problems += [
        f"{i}: another job holds its unique key" for i, change in answers if change is ChangeResult.HELD
    ]
    problems += [
        f"{i}: there is no such job; it was removed, or has expired"
        for i, change in answers
        if change is ChangeResult.UNKNOWN
    ]
    if problems:
        raise CommandFailed("\n".join([f"not {verb[1]}:", *(f"  {problem}" for problem in problems)]))


def _by_filter(broker: Broker, wanted: JobFilter, action: Action, verb: tuple[str, str]) -> None:
    progress = console(stderr=True)
    if not progress.is_terminal:
        done = apply_to_matching(broker, wanted, action)
    else:
        with progress.status(f"{verb[1]}: 0") as status:
            done = apply_to_matching(
                broker, wanted, action, on_step=lambda done: status.update(_summary(done, verb))
            )
    say(_summary(done, verb))


def _summary(done: Counter[ChangeResult], verb: tuple[str, str]) -> str:
    parts = [f"{counted(done[ChangeResult.DONE], 'job')} {verb[1]}"]
    if done[ChangeResult.REQUESTED]:
        parts.append(
            f"{done[ChangeResult.REQUESTED]:,} running: marked, to be {verb[1]} when their worker sees it"
        )
    if done[ChangeResult.REFUSED]:
        parts.append(f"{done[ChangeResult.REFUSED]:,} refused: their status does not allow it")
    if done[ChangeResult.HELD]:
        parts.append(f"{done[ChangeResult.HELD]:,} refused: another job holds their unique key")
    if done[ChangeResult.UNKNOWN]:
        parts.append(f"{done[ChangeResult.UNKNOWN]:,} unknown")
    return "; ".join(parts)
