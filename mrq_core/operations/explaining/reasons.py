"""Reasons why jobs do not run: kinds and words; and the reasons of whole queues and tasks."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

import msgspec

from mrq_core.clock import period_words
from mrq_core.contract.broker import Broker
from mrq_core.contract.codec import JsonObject
from mrq_core.contract.messages import Limit
from mrq_core.contract.naming import is_in, is_tree, quoted_name
from mrq_core.contract.shared_state import Pause, Rules
from mrq_core.operations.views import iso, seconds
from mrq_core.operations.workers import CLAIMING, DEAD, WorkerReport, list_workers, listening

_MOST_NAMED = 3
"""The most ids and names in a sentence."""


class ReasonKind(StrEnum):
    """The kinds of reasons."""

    ENDED = "ended"
    RUNNING = "running"
    LEASE_ENDED = "lease_ended"
    PAUSED = "paused"
    TASK_PAUSED = "task_paused"
    NO_WORKER = "no_worker"
    DENIED = "denied"
    PARENT = "parent"
    NO_ENTRY = "no_entry"
    LIMIT = "limit"
    RATE = "rate"
    DUE_LATER = "due_later"
    WORKERS_FULL = "workers_full"
    BEHIND = "behind"
    NEXT = "next"
    EMPTY = "empty"
    UNKNOWN = "unknown"


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """A reason in one or two sentences. `command` changes it; None: no command does. `paused` is the name of
    the paused queue or tree, and `task` the path of the paused task."""

    kind: ReasonKind
    sentence: str
    command: str | None = None
    paused: str | None = None
    task: str | None = None


def reason_view(reason: Reason) -> JsonObject:
    """The reason as a JSON value."""
    return {"kind": str(reason.kind), "sentence": reason.sentence, "command": reason.command}


class Surroundings(NamedTuple):
    """What the broker tells about rules and workers."""

    now: datetime
    rules: Rules
    workers: Sequence[WorkerReport]


# --- pauses and workers -----------------------------------------------------------------------------


def read_surroundings(broker: Broker) -> Surroundings:
    return Surroundings(now=broker.now(), rules=broker.rules(), workers=list_workers(broker))


def of_queue(name: str, around: Surroundings, path: str | None = None) -> list[Reason]:
    """The reasons why no worker takes jobs from a queue or tree now; with `path`, jobs of this task."""
    reasons = _paused(name, around)
    claiming = listening(name, around.workers)
    if not claiming:
        reasons.append(_no_worker(name, around.workers))
        return reasons
    if path is not None:
        denied = denied_by(path, claiming)
        if denied == claiming:
            reasons.append(_denied(name, path, claiming))
            return reasons
        claiming = [report for report in claiming if report not in denied]
    if all(_is_full(report) for report in claiming):
        reasons.append(_full(name, claiming))
    return reasons


def of_task(path: str, around: Surroundings, parked: str = "") -> Reason | None:
    """The reason why no worker starts jobs of a paused task. `parked` tells about its parked jobs. None: the
    task is not paused."""
    pause = around.rules.tasks.get(path)
    if pause is None:
        return None
    return Reason(
        kind=ReasonKind.TASK_PAUSED,
        sentence=f"The task {path} {_pause_text(pause, around.now)}.{parked}",
        command=f"mrq tasks resume {quoted(path)}",
        task=path,
    )


def _paused(name: str, around: Surroundings) -> list[Reason]:
    reasons = []
    for paused, pause in sorted(around.rules.queues.items()):
        told = _pause_text(pause, around.now)
        if paused == name or (is_tree(paused) and is_in(name, paused)):
            part = "" if paused == name else f", as a part of the tree {paused}"
            sentence = f"The {'tree' if is_tree(name) else 'queue'} {name} {told}{part}."
        elif is_tree(name) and is_in(paused, name):
            sentence = f"Its subqueue {paused} {told}."
        else:
            continue
        command = f"mrq queues resume {quoted_queue(paused)}"
        reasons.append(Reason(kind=ReasonKind.PAUSED, sentence=sentence, command=command, paused=paused))
    return reasons


def _pause_text(pause: Pause, now: datetime) -> str:
    paused = "is paused" if pause.since is None else f"has been paused for {ago(pause.since, now, tail='')}"
    return paused + ("" if pause.until is None else f", until {iso(pause.until)}")


def _no_worker(name: str, workers: Sequence[WorkerReport]) -> Reason:
    dead = [report.name for report in workers if report.status == DEAD]
    stopping = [report.name for report in workers if report.is_at_work and report.status not in CLAIMING]
    others = [report.name for report in workers if report.status in CLAIMING]
    sentence = f"No worker claims from {queue_text(name)}."
    if others:
        queues = sorted({queue for report in workers if report.status in CLAIMING for queue in report.queues})
        number = "1 worker claims" if len(others) == 1 else f"{len(others):,} workers claim"
        sentence += f" {number} from {listed(queues, len(queues))}."
    elif not stopping and not dead:
        sentence += " All workers have stopped." if workers else " No worker has reported lately."
    if stopping:
        sentence += f" {listed(stopping, len(stopping))} {'is' if len(stopping) == 1 else 'are'} stopping."
    if dead:
        sentence += f" {listed(dead, len(dead))} {'is' if len(dead) == 1 else 'are'} dead."
    command = f"mrq worker {quoted_queue(name)}"
    return Reason(kind=ReasonKind.NO_WORKER, sentence=sentence, command=command)


def _full(name: str, workers: Sequence[WorkerReport]) -> Reason:
    greenlets = sum(report.greenlets for report in workers)
    which = "The worker" if len(workers) == 1 else f"All {len(workers):,} workers"
    sentence = (
        f"{which} of {queue_text(name)} {'has' if len(workers) == 1 else 'have'} no free greenlet: "
        f"{listed([report.name for report in workers], len(workers))}, "
        f"{greenlets:,} greenlet{'' if greenlets == 1 else 's'} in all."
    )
    command = f"mrq worker {quoted_queue(name)}"
    return Reason(kind=ReasonKind.WORKERS_FULL, sentence=sentence, command=command)


def denied_by(path: str, workers: Sequence[WorkerReport]) -> list[WorkerReport]:
    """The workers that leave jobs of this task to other workers."""
    return [report for report in workers if not report.takes(path)]


def _denied(name: str, path: str, workers: Sequence[WorkerReport]) -> Reason:
    which = (
        "The worker that claims" if len(workers) == 1 else f"Each of the {len(workers):,} workers that claim"
    )
    sentence = (
        f"{which} from {queue_text(name)} leaves out jobs of the task {path}, by its ALLOW_TASKS "
        f"or DENY_TASKS: {listed([report.name for report in workers], len(workers))}."
    )
    return Reason(kind=ReasonKind.DENIED, sentence=sentence, command=f"mrq worker {quoted_queue(name)}")


def _is_full(report: WorkerReport) -> bool:
    return report.status == "full" or report.busy >= report.greenlets


# --- words ------------------------------------------------------------------------------------------


def quoted(name: str) -> str:
    """The name as an argument of a command. Characters that a terminal obeys are escapes, which bash and zsh
    read."""
    return f"{'-- ' if name.startswith('-') else ''}{in_shell(name)}"


def quoted_queue(name: str) -> str:
    """The name as an argument that is a list of queues."""
    return quoted(quoted_name(name))


def in_shell(text: str) -> str:
    """The text as one word of a command."""
    if text.isprintable():
        return shlex.quote(text)
    letters = (one if one.isprintable() else _escaped(one) for one in text.replace("\\", "\\\\"))
    return "$'" + "".join(letters).replace("'", "\\'") + "'"


def _escaped(letter: str) -> str:
    return f"\\x{ord(letter):02x}" if ord(letter) < 0x80 else f"\\U{ord(letter):08x}"


def queue_text(name: str) -> str:
    return f"the {'tree' if is_tree(name) else 'queue'} {name}"


def jobs_text(number: int) -> str:
    return f"{number:,} job{'' if number == 1 else 's'}"


def rate_text(limit: Limit) -> str:
    """The rate of a limit that has one: ``1 job per 10 min``."""
    number = limit.rate or 0.0
    return f"{number:,g} job{'' if number == 1 else 's'} per {period_words(limit.per)}"


def listed(names: Collection[str], number: int) -> str:
    """The first names, and how many more."""
    shown = list(names)[:_MOST_NAMED]
    more = number - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more > 0 else "")


def ago(moment: datetime | None, now: datetime, *, tail: str = " ago") -> str:
    if moment is None:
        return "at an unknown time"
    return f"{seconds(max(0.0, (now - moment).total_seconds()))}{tail} ({iso(moment)})"


def until_text(moment: datetime, now: datetime) -> str:
    return f"in {seconds((moment - now).total_seconds())} ({iso(moment)})"
