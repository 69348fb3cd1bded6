"""Has the server explain what it is asked, and sees to it that every question goes through an index."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pymongo
from pymongo import monitoring

Doc = dict[str, Any]
QUESTIONS = ("find", "aggregate", "update", "delete", "findAndModify")
SMALL = ("totals", "meta", "wake")
"""Collections that grow with the number of queues, paths and workers only."""
SCANNED = 9 * 3 + 20
"""How many keys a question may look at besides those that it answers with: at each rank where it begins and
ends."""


class Explained(monitoring.CommandListener):
    """Has each command explained before it is sent, while it is on."""

    def __init__(self, client: pymongo.MongoClient[Doc]) -> None:
        self._client = client
        self.is_on = False
        self.found: list[tuple[Doc, Doc]] = []
        self.commands: list[str] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if not self.is_on:
            return
        self.commands.append(f"{event.command_name} {event.command.get(event.command_name)}")
        if event.command_name in QUESTIONS:
            kept = {name: value for name, value in event.command.items() if not name.startswith("$")}
            for name in ("lsid", "txnNumber", "writeConcern", "ordered"):
                kept.pop(name, None)
            for part in self._parts(kept):
                told = self._client[event.database_name].command("explain", part, verbosity="executionStats")
                self.found.append((part, told))

    def _parts(self, command: Doc) -> list[Doc]:
        """Only a command with one update, or one deletion, can be explained."""
        for name in ("updates", "deletes"):
            if name in command:
                return [{**command, name: [one]} for one in command[name][:20]]
        return [command]

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        pass

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        pass


def stages(plan: Any) -> Iterator[Doc]:
    """All stages of a plan, with their figures where it was executed."""
    if isinstance(plan, dict):
        if "stage" in plan and isinstance(plan["stage"], str):
            yield plan
        for name, value in plan.items():
            if name not in ("rejectedPlans", "allPlansExecution"):
                yield from stages(value)
    elif isinstance(plan, list):
        for item in plan:
            yield from stages(item)


def check(explained: Explained, work: Callable[[], object], *, scanned: int = SCANNED) -> Explained:
    """Does the work, and sees to it that every question on jobs went well."""
    explained.found, explained.commands = [], []
    explained.is_on = True
    try:
        work()
    finally:
        explained.is_on = False
    assert explained.commands
    for command, told in explained.found:
        collection = next(iter(command.values()))
        if collection.rpartition("_")[2] in SMALL:
            continue
        names = {one["stage"] for one in stages(told)}
        assert "COLLSCAN" not in names, command
        assert "SORT" not in names, command
        found = figures(told)
        answered = _answered(command, told)
        assert found["totalDocsExamined"] <= answered + scanned, (command, found)
        assert found["totalKeysExamined"] <= 2 * answered + scanned, (command, found)
    return explained


def figures(told: Doc) -> Doc:
    """What the execution of an explained command has cost."""
    if "executionStats" in told:
        return dict(told["executionStats"])
    cursor = next(one["$cursor"] for one in told["stages"] if "$cursor" in one)
    return dict(cursor["executionStats"])


def _answered(command: Doc, told: Doc) -> int:
    """How many documents a command finds, or changes; one that counts finds all that it counts."""
    found = figures(told)
    changed: list[int] = [
        one.get(name, 0) for one in stages(told) for name in ("nMatched", "nWouldModify", "nWouldDelete")
    ]
    if "aggregate" in command:
        changed += [one.get("nReturned", 0) for one in stages(told) if one["stage"] != "IXSCAN"]
    return max([int(found["nReturned"]), *changed, 1])
