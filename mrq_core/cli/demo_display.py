"""How `mrq demo` looks: its progress, and the tables and hints at its end."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mrq_core.cli.demo_jobs import DemoJobs, library
from mrq_core.cli.output import console, counted, program, say, show_table
from mrq_core.contract.record import JobRecord, Status
from mrq_core.operations.views import seconds

_LARGEST = 10
_STEPS = 4


@contextmanager
def progress(total: int) -> Iterator[Callable[[int], None]]:
    """Gives a function to be called with the number of jobs that have ended: a bar on a terminal, some
    lines elsewhere."""
    to = console()
    if not to.is_terminal:
        steps = {total * step // _STEPS for step in range(1, _STEPS + 1)}
        yield lambda done: say(f"{done:,} of {total:,} jobs have ended") if done in steps else None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("running jobs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=to, transient=True) as bar:
        task = bar.add_task("running jobs", total=total)
        yield lambda done: bar.update(task, completed=done)


def print_results(jobs: DemoJobs, wall: float, flags: str, *, goes_on: bool) -> None:
    """Prints what became of the jobs. `wall` is seconds; `flags` lead other commands to the same broker.
    `goes_on`: the worker of the demo runs on."""
    records = list(jobs.records.values())
    by_status = Counter(str(record.status) for record in records)
    readers = [r for r in records if r.path.endswith(".read_module") and r.status is Status.SUCCESS]
    say("")
    show_table(("status", "jobs"), sorted(by_status.items()))
    say("")
    rate = len(records) / wall if wall else 0
    say(f"{counted(len(records), 'job')} in {wall:.1f} s: {rate:,.0f} jobs per second.")
    reading = _span(readers)
    if reading:
        say(f"The {len(readers):,} source files took {seconds(reading)}: "
            f"{len(readers) / reading:,.0f} jobs per second.")  # fmt: skip
    largest = sorted((r for r in readers if isinstance(r.result, dict)), key=_lines, reverse=True)[:_LARGEST]
    say("")
    rows = [
        [_module(record), *(_figure(record, name) for name in ("lines", "functions", "classes"))]
        for record in largest
    ]
    show_table(("largest modules", "lines", "functions", "classes"), rows)
    say("")
    _print_hints(jobs, flags, goes_on=goes_on)


def _print_hints(jobs: DemoJobs, flags: str, *, goes_on: bool) -> None:
    from rich import box
    from rich.panel import Panel
    from rich.text import Text

    mrq = program()
    hints = [
        (f"{mrq} jobs list --status failed,timeout{flags}", "what went wrong"),
        (f"{mrq} jobs show {jobs.named['failed']}{flags}", "everything about the one that failed"),
        (f"{mrq} jobs show {jobs.named['retried']}{flags}", "one that succeeded at its third attempt"),
        (f"{mrq} jobs logs {jobs.named['slow']}{flags}", "what a job has logged"),
        (f"{mrq} jobs requeue {jobs.named['timeout']}{flags}", "queue the one again that took too long"),
    ]
    if not goes_on:
        hints.append((f"{mrq} worker demo --burst{flags}", "run what is queued"))
    text = Text("\n").join(Text.assemble((command, "bold"), "\n    ", (why, "dim")) for command, why in hints)
    to = console()
    if to.is_terminal and all(len(command) < to.width - 4 for command, _ in hints):
        to.print(
            Panel(text, title="Look at the same jobs", title_align="left", box=box.ROUNDED, expand=False)
        )
    else:
        # Without a frame a long command can be copied whole.
        say("Look at the same jobs:")
        to.print(text, soft_wrap=True)


def _span(records: list[JobRecord]) -> float:
    """Seconds from the first start to the last end."""
    starts = [record.started_at for record in records if record.started_at is not None]
    ends = [record.ended_at for record in records if record.ended_at is not None]
    return (max(ends) - min(starts)).total_seconds() if starts and ends else 0.0


def _figure(record: JobRecord, name: str) -> Any:
    return record.result.get(name) if isinstance(record.result, dict) else None


def _module(record: JobRecord) -> str:
    return os.path.relpath(str(record.params["path"]), library())


def _lines(record: JobRecord) -> int:
    return int(_figure(record, "lines") or 0)
