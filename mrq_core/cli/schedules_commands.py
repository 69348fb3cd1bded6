"""`mrq schedules`: lists, adds, pauses, runs and deletes schedules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from mrq_core.cli.errors import CommandFailed, UsageError, ask, can_ask, named_as_typed
from mrq_core.cli.options import Given, command
from mrq_core.cli.output import counted, note, print_json, say, show_table, told_until_then
from mrq_core.client.client import Client
from mrq_core.client.schedules import add_schedule, backfill_schedule, fires_between, run_schedule
from mrq_core.clock import from_ms
from mrq_core.contract.codec import JsonObject
from mrq_core.contract.messages import Enqueued
from mrq_core.contract.naming import shown_names
from mrq_core.errors import ScheduleExists, ScheduleNotFound
from mrq_core.operations import schedules
from mrq_core.operations.hidden_params import params_with_secrets
from mrq_core.operations.queries.filters import duration_from, moment_from, object_from
from mrq_core.operations.schedules import StoredSchedule
from mrq_core.operations.views import iso, schedule_status, schedule_view
from mrq_core.scheduler.definitions import trigger_words
from mrq_core.scheduler.values import INTERVAL_MIN, JITTER_MAX

_DAY = 86_400
Names = Annotated[list[str], typer.Argument(metavar="NAME", help="Names of schedules.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of a schedule.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _text(name: str, metavar: str, help: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(name, metavar=metavar, help=help)
    return option


@command("broker", "plugins", needs_output=True)
def list_schedules(given: Given, as_json: AsJson = False) -> None:
    """Lists the schedules with their next and last fires and their counts."""
    with given.client() as client:
        found = schedules.list_schedules(client.broker)
        running = schedules.schedulers(client.broker)
    if as_json:
        print_json([schedule_view(stored) for stored in found])
        return
    if found:
        show_table(_COLUMNS, [_row(stored) for stored in found])
    else:
        note("There are no schedules: SCHEDULER_TASKS, `@task(every=60)` and `mrq schedules add` make them.")
    if found and not running:
        note("No scheduler has reported lately: start `mrq scheduler`, or `mrq worker --scheduler`.")


_COLUMNS = ("name", "status", "task", "fires", "next", "last", "made", "missed", "overlapped", "dropped")


def _row(stored: StoredSchedule) -> tuple[object, ...]:
    reason = f" ({stored.pause_reason})" if stored.pause_reason else ""
    return (
        stored.name,
        schedule_status(stored) + reason,
        stored.definition.path,
        trigger_words(stored.definition),
        _moment(stored.next_fire) if stored.fires else None,
        _moment(stored.last_fire),
        *(stored.fired, stored.missed, stored.overlapped, stored.dropped),
    )


def _moment(moment_ms: int | None) -> str | None:
    return None if moment_ms is None else iso(from_ms(moment_ms))


@command("broker", "plugins")
def add(
    given: Given,
    task: Annotated[str, typer.Argument(metavar="TASK", help="The path of the task.")],
    name: Annotated[str | None, _text("--name", "NAME", "Its name. Default: made of task and times.")] = None,
    every: Annotated[str | None, _text("--every", "DURATION", "Fire each 30s, 15m, 2h or 1d.")] = None,
    cron: Annotated[str | None, _text("--cron", "EXPRESSION", "Fire at '*/5 8-18 * * 1-5'.")] = None,
    at: Annotated[str | None, _text("--at", "HH:MM", "Fire at this time of the day.")] = None,
    weekday: Annotated[
        int | None, typer.Option("--weekday", help="With --at: only on this day; 0 is Monday.")
    ] = None,
    monthday: Annotated[
        int | None, typer.Option("--monthday", help="With --at: only on this day of the month, 1 to 31.")
    ] = None,
    timezone: Annotated[str | None, _text("--timezone", "ZONE", "Such as Europe/Berlin; UTC.")] = None,
    params: Annotated[str | None, _text("--params", "JSON", "The params of the jobs.")] = None,
    queue: Annotated[str | None, _text("--queue", "QUEUE", "Their queue. Default: that of the task.")] = None,
    missed: Annotated[str | None, _text("--missed", "POLICY", "skip, once (default) or all.")] = None,
    overlap: Annotated[
        str | None, _text("--overlap", "POLICY", "allow (default), skip, buffer_one or cancel_other.")
    ] = None,
    jitter: Annotated[str | None, _text("--jitter", "DURATION", "The most by which a fire is late.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a schedule of this name.")] = False,
) -> None:
    """Adds a schedule. It stays until it is deleted, unless a config has a schedule of its name.

    Examples: `mrq schedules add tasks.tidy --every 15m`,
    `mrq schedules add tasks.report --at 08:30 --weekday 0`.
    """
    interval = None if every is None else duration_from(every, name="--every", least=INTERVAL_MIN)
    _check_trigger(interval, cron, at, weekday, monthday)
    keys = {
        "path": task,
        "name": name,
        "interval": interval,
        "cron": cron,
        "dailytime": at,
        "weekday": weekday,
        "monthday": monthday,
        "timezone": timezone,
        "params": None if params is None else object_from(params, name="--params"),
        "queue": queue,
        "missed": missed,
        "overlap": overlap,
        "jitter": None if jitter is None else duration_from(jitter, name="--jitter", most=JITTER_MAX),
    }
    with given.client() as client:
        if isinstance(keys["params"], dict):
            original = _params_of(client, name) if replace and name else {}
            keys["params"] = params_with_secrets(keys["params"], original)
        try:
            with named_as_typed(**_FLAGS):
                made = add_schedule(replaces=replace, client=client, **keys)
        except ScheduleExists as error:
            taken = str(error).partition(":")[0]
            raise CommandFailed(f"{taken}: give another --name, or --replace to replace it") from error
        following = made.next_fires()
    say(f"added: {shown_names([made.name])}, next fire {iso(following[0]) if following else 'never'}")


_FLAGS = {
    "interval": "--every",
    "dailytime": "--at",
    **{key: f"--{key}" for key in ("name", "cron", "weekday", "monthday", "timezone")},
    **{key: f"--{key}" for key in ("queue", "missed", "overlap", "jitter")},
}
"""The flags of keys of a schedule."""


def _check_trigger(
    interval: float | None, cron: str | None, at: str | None, weekday: int | None, monthday: int | None
) -> None:
    """Raises UsageError unless the flags name one trigger."""
    days = [flag for flag, day in (("--weekday", weekday), ("--monthday", monthday)) if day is not None]
    if days and at is None:
        raise UsageError(f"{days[0]} is given without --at: expected the time of day, such as --at 08:30")
    if len(days) > 1:
        raise UsageError(f"{' and '.join(days)} are both given: expected one of them")
    if interval == _DAY and at is not None:
        interval = None  # as in an entry of a config: the time counts
    given = (("--every", interval), ("--cron", cron), ("--at", at))
    kinds = [flag for flag, value in given if value is not None]
    if len(kinds) != 1:
        found = f"{' and '.join(kinds)} are given" if kinds else "none of them is given"
        raise UsageError(f"{found}: expected one of --every, --cron and --at, the times of its fires")


def _params_of(client: Client, name: str) -> JsonObject:
    """The params of a schedule. Empty if there is none of this name."""
    try:
        return schedules.find_schedule(client.broker, name).definition.params or {}
    except ScheduleNotFound:
        return {}


@command("broker", "plugins")
def pause_schedule(given: Given, names: Names) -> None:
    """Pauses schedules until they are resumed. Their jobs go on."""
    with given.client() as client:
        changed = schedules.pause_schedules(client.broker, names)
    _tell("paused", names, changed, "is paused already")


@command("broker", "plugins")
def resume_schedule(given: Given, names: Names) -> None:
    """Resumes paused schedules, and restores deleted schedules of a config. Fires of a pause are left out."""
    with given.client() as client:
        changed = schedules.resume_schedules(client.broker, names)
    _tell("resumed", names, changed, "was not paused")


@command("broker", "plugins")
def delete(given: Given, names: Names) -> None:
    """Deletes schedules. Their jobs stay. A schedule of a config stays deleted until it is resumed."""
    with given.client() as client:
        changed = schedules.delete_schedules(client.broker, names)
    _tell("deleted", names, changed, "was deleted meanwhile")
    for stored in changed:
        if stored.source == "config":
            note(f"{shown_names([stored.name])} is in a config: delete it there, too")


def _tell(what: str, names: list[str], changed: list[StoredSchedule], otherwise: str) -> None:
    done = [stored.name for stored in changed]
    for name in names:
        if name not in done:
            note(f"{shown_names([name])} {otherwise}")
    if done:
        say(f"{what}: {shown_names(done)}")


@command("broker", "tasks", "plugins")
def run_now(given: Given, name: Name) -> None:
    """Queues a job of a schedule now, and prints its id. The next fire stays."""
    with given.client() as client:
        answer = run_schedule(client, name)
    if not answer.created:
        raise CommandFailed(f"its overlap policy keeps the job {answer.id}: no job was queued")
    say(answer.id)


@command("broker", "plugins", needs_output=True)
def next_fires(
    given: Given,
    name: Name,
    number: Annotated[
        int, typer.Option("--number", "-n", min=1, max=schedules.UPCOMING_MOST, help="How many.")
    ] = 10,
) -> None:
    """Prints the next fires of a schedule, without jitter."""
    with given.client() as client:
        stored = schedules.find_schedule(client.broker, name)
    if not stored.fires:
        note(f"{shown_names([name])} is {schedule_status(stored)}")
    for at in schedules.upcoming(stored, number):
        say(iso(from_ms(at)) or "")


@command("broker", "tasks", "plugins")
def backfill(
    given: Given,
    name: Name,
    start: Annotated[str, typer.Argument(metavar="FROM", help="A time (UTC), or how long ago: 2h, 3d.")],
    end: Annotated[str, typer.Argument(metavar="TO", help="The end, as FROM; or now.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count the fires, and queue no job.")] = False,
) -> None:
    """Queues a job for each fire of a schedule from FROM and before TO, at most 10,000.

    A fire whose job is stored makes no second job. Example: `mrq schedules backfill nightly 7d now`.
    """
    with given.client() as client:
        now = client.broker.now()
        first = moment_from(start, now=now, name="FROM")
        last = now if end.strip() == "now" else moment_from(end, now=now, name="TO")
        number = len(fires_between(schedules.find_schedule(client.broker, name), first, last, now))
        if dry_run:
            say(f"{counted(number, 'fire')} from {iso(first)} to {iso(last)}")
            return
        if number and not yes and can_ask() and not ask(f"Queue {counted(number, 'job')}?"):
            raise CommandFailed("nothing was queued")
        done: list[Enqueued] = []

        def step(answers: list[Enqueued]) -> None:
            done[:] = answers

        with told_until_then(lambda: _queued_text(done) if done else ""):
            answers = backfill_schedule(client, name, first, last, on_step=step)
    say(_queued_text(answers))


def _queued_text(answers: Sequence[Enqueued]) -> str:
    made = sum(answer.created for answer in answers)
    known = f"; {counted(len(answers) - made, 'fire')} had a job" if made < len(answers) else ""
    return f"{counted(made, 'job')} queued{known}"
