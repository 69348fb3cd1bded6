"""`mrq jobs requeue`, `cancel`, `move`, `remove`: change jobs by id or by filter. `edit`: changes one job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Annotated

import typer
from msgspec.structs import replace

from mrq_core.cli.errors import CommandFailed, UsageError, ask, can_ask, named_as_typed
from mrq_core.cli.options import Given, command, filter_of
from mrq_core.cli.output import console, counted, note, say, told_until_then
from mrq_core.client.handles import Job
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import Action, Cancel, ChangeResult, Move, Remove, Requeue
from mrq_core.contract.naming import check_job_queue_name
from mrq_core.contract.queries import JobFilter
from mrq_core.errors import InvalidValue, shown
from mrq_core.operations.actions import (
    VERBS,
    Answers,
    Preview,
    apply_to_ids,
    apply_to_matching,
    cancelled_texts,
    preview_for_ids,
    preview_for_matching,
    refusals,
    statuses_of,
    summary,
)
from mrq_core.operations.hidden_params import params_with_secrets
from mrq_core.operations.queries.filters import (
    FilterTexts,
    object_from,
    seconds_from,
    time_from,
)
from mrq_core.operations.views import iso

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Ids of jobs.", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Change many jobs without asking for confirmation.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Count the jobs that would change, and change none.")]

_MOST_TOLD = 20
"""The largest number of jobs of which a cancel tells each."""


@command("broker", "plugins")
def requeue(
    given: Given,
    wanted: FilterTexts,
    ids: Ids = None,
    to: Annotated[str | None, typer.Option("--to", metavar="QUEUE", help="Queue them on this queue.")] = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Queues ended jobs, and jobs that wait for a retry, again.

    Examples: `mrq jobs requeue ID`, `mrq jobs requeue --status failed --error ValueError --since 1d`.
    """
    queue = None if to is None else _target(to)
    _change(given, ids, wanted, Requeue(queue=queue), yes=yes, dry_run=dry_run)


@command("broker", "plugins")
def cancel(
    given: Given,
    wanted: FilterTexts,
    ids: Ids = None,
    interrupt: Annotated[bool, typer.Option("--interrupt", help="Also stop running jobs.")] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Cancels waiting and failed jobs. A running job finishes, but does not run again.

    Examples: `mrq jobs cancel ID --interrupt`, `mrq jobs cancel --queue mail --status queued`.
    """
    action = Cancel(interrupt=interrupt)
    _change(given, ids, wanted, action, yes=yes, dry_run=dry_run)


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
    action = Move(queue=_target(to))
    if not ids and filter_of(wanted).queues == (action.queue,):
        raise InvalidValue(f"--to is {shown(to)}, where these jobs are: expected another queue", path="to")
    _change(given, ids, wanted, action, yes=yes, dry_run=dry_run)


def _target(to: str) -> str:
    with named_as_typed(queue="--to"):
        return check_job_queue_name(to)


@command("broker", "plugins")
def edit(
    given: Given,
    job_id: Annotated[str, typer.Argument(metavar="ID", help="The job's id.")],
    params: Annotated[
        str | None, typer.Option("--params", metavar="JSON", help="New params, which replace all params.")
    ] = None,
    priority: Annotated[
        int | None, typer.Option("--priority", help="The new priority, -4 to 4; larger first.")
    ] = None,
    after: Annotated[
        str | None, typer.Option("--in", metavar="DURATION", help="Due in 30s, 15m, 2h or 3d; 0 means now.")
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="Due at this time, in ISO 8601 (UTC).")
    ] = None,
) -> None:
    """Changes params, priority or due time of a job that waits. The other parts stay, as does a unique key.

    Examples: `mrq jobs edit ID --priority 4 --in 0`, `mrq jobs edit ID --params '{"user": 17}'`.
    """
    if params is None and priority is None and after is None and at is None:
        raise UsageError("nothing to change is named: expected --params, --priority, --in or --at")
    if after is not None and at is not None:
        raise UsageError("--in and --at are both given: expected one of them")
    delay = None if after is None else seconds_from(after, name="--in")
    due_at = None if at is None else time_from(at, name="--at")
    value = None if params is None else object_from(params, name="--params")
    with given.client() as client:
        job = Job(job_id, client=client)
        if value is not None:
            value = params_with_secrets(value, job.fetch().params)
        with named_as_typed(priority="--priority", delay="--in", at="--at"):
            job.edit(params=value, priority=priority, delay=delay, at=due_at)
        record = client.stored(job_id)
    due = "parked" if record.due_at is None else f"due at {iso(record.due_at)}"
    say(f"{record.id} is edited: {record.status}, {due}, with priority {record.priority}")


@command("broker", "plugins")
def remove(
    given: Given, wanted: FilterTexts, ids: Ids = None, yes: Yes = False, dry_run: DryRun = False
) -> None:
    """Deletes jobs with their logs. Running jobs are refused.

    Example: `mrq jobs remove --status success --path reports.Nightly`.
    """
    _change(given, ids, wanted, Remove(), yes=yes, dry_run=dry_run)


def _change(
    given: Given,
    ids: Sequence[str] | None,
    texts: FilterTexts,
    action: Action,
    *,
    yes: bool,
    dry_run: bool,
) -> None:
    """Runs one of the commands above."""
    wanted = filter_of(texts)
    verb = VERBS[type(action)][0]
    if not ids and wanted.is_empty:
        raise UsageError(f"no jobs to {verb} are named: expected ids, or a filter such as --status")
    if ids and not wanted.is_empty:
        raise UsageError("ids and filters are both given: expected one of them")
    with given.client() as client:
        if isinstance(action, Cancel):
            action = replace(action, ttl=client.config.default_job_cancel_ttl)
        if dry_run:
            preview = _preview(client.broker, ids, wanted, action)
            say(_foreseen(preview, verb))
            if preview.may_be_held:
                note("A job is refused if another job holds its unique key; the count does not foresee that.")
            if preview.unknown:
                raise CommandFailed(f"{counted(preview.unknown, 'id')} of no job: removed or expired")
        elif ids:
            _by_id(client.broker, ids, action)
        elif yes or not can_ask() or _is_confirmed(client.broker, wanted, action, verb):
            _by_filter(client.broker, wanted, action)


def _preview(broker: Broker, ids: Sequence[str] | None, wanted: JobFilter, action: Action) -> Preview:
    now = datetime.now(UTC)
    if ids:
        return preview_for_ids(broker, ids, action, now)
    return preview_for_matching(broker, wanted, action, now)


def _foreseen(preview: Preview, verb: str) -> str:
    """What the action would do, such as ``2 jobs to cancel: 1 failed, 1 queued; 1 refused: 1 success``."""
    texts = [f"{counted(preview.number, 'job')} to {verb}{_by_status(preview.changed, ': {}')}"]
    if preview.unchanged:
        number = sum(preview.unchanged.values())
        texts.append(f"{number:,} already in that queue{_by_status(preview.unchanged, ': {}')}")
    if preview.refused:
        texts.append(f"{sum(preview.refused.values()):,} refused{_by_status(preview.refused, ': {}')}")
    if preview.unknown:
        texts.append(f"{preview.unknown:,} unknown")
    return "; ".join(texts)


def _by_status(numbers: Mapping[str, int], form: str) -> str:
    """The numbers by status in this form, such as ``: 6 maxretries, 49 success``; nothing without numbers."""
    parts = ", ".join(f"{number:,} {status}" for status, number in sorted(numbers.items()))
    return form.format(parts) if parts else ""


def _is_confirmed(broker: Broker, wanted: JobFilter, action: Action, verb: str) -> bool:
    """Asks for confirmation, unless no job would change. Raises CommandFailed for a no and for the end of
    the input."""
    preview = preview_for_matching(broker, wanted, action, datetime.now(UTC))
    if not preview.number:
        say(_foreseen(preview, verb))
        return False
    jobs = f"{counted(preview.number, 'job')}{_by_status(preview.changed, ' ({})')}"
    if not ask(f"{verb.capitalize()} {jobs}?"):
        raise CommandFailed("nothing was changed")
    return True


def _by_id(broker: Broker, ids: Sequence[str], action: Action) -> None:
    is_told_each = isinstance(action, Cancel) and len(ids) <= _MOST_TOLD
    before = statuses_of(broker, ids) if is_told_each else {}
    done: Counter[ChangeResult] = Counter()

    def step(answers: Answers) -> None:
        done.update(change for _, change in answers)

    with told_until_then(lambda: summary(done, action) if done else ""):
        answers = apply_to_ids(broker, ids, action, on_step=step)
    if isinstance(action, Cancel) and is_told_each:
        for job_id, text in cancelled_texts(broker, answers, before, action):
            say(f"{job_id} {text}")
    if len(answers) > 1 or not is_told_each:
        say(summary(Counter(change for _, change in answers), action))
    problems = refusals(broker, answers)
    if problems:
        lines = [f"  {job_id}: {reason}" for job_id, reason in problems]
        raise CommandFailed("\n".join([f"not {VERBS[type(action)][1]}:", *lines]))


def _by_filter(broker: Broker, wanted: JobFilter, action: Action) -> None:
    """Changes all matching jobs. After an error or an interrupt, prints the counts of the earlier steps."""
    done: Counter[ChangeResult] = Counter()
    progress = console(stderr=True)
    shows = progress.status(summary(done, action)) if progress.is_terminal else None

    def step(now: Counter[ChangeResult]) -> None:
        nonlocal done
        done = now
        if shows is not None:
            shows.update(summary(done, action))

    with told_until_then(lambda: summary(done, action) if done else ""), shows or nullcontext():
        done = apply_to_matching(broker, wanted, action, on_step=step)
    say(summary(done, action))
