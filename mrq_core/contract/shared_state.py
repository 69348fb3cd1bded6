"""Shared state as the contract passes it: values with versions, rules, requests to workers, and what `poll`
brings of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct

from mrq_core.contract.codec import JsonObject, JsonValue
from mrq_core.contract.messages import Limit


class StateItem(Struct, frozen=True, kw_only=True):
    """A named value that every process sees. `version` grows with each write of the name."""

    namespace: str
    name: str
    value: JsonValue
    version: int
    expires_at: datetime | None = None


class Pause(Struct, frozen=True, kw_only=True):
    """A pause of a queue, a tree or a task. `since` is None if an earlier version of mrq stored the pause.
    `until`: the time at which it ends by itself; None: it lasts until it is resumed."""

    since: datetime | None = None
    until: datetime | None = None


class Rules(Struct, frozen=True, kw_only=True):
    """What all workers obey: pauses by the name of the queue or tree, pauses by the path of the task, and
    limit rules by name."""

    queues: Mapping[str, Pause] = {}
    tasks: Mapping[str, Pause] = {}
    limits: Mapping[str, Limit] = {}

    @property
    def paused_queues(self) -> frozenset[str]:
        """The names of the paused queues and trees."""
        return frozenset(self.queues)

    @property
    def paused_tasks(self) -> frozenset[str]:
        """The paths of the paused tasks."""
        return frozenset(self.tasks)


class WorkerRequest(Struct, frozen=True, kw_only=True):
    """A request to one worker, such as ``stack``. A worker does not begin to answer it after `expires_at`."""

    id: str
    kind: str
    args: JsonObject = {}
    expires_at: datetime


class Versions(Struct, frozen=True, kw_only=True):
    """The versions that a process knows already, so that poll returns only later changes.

    `rules_until_ms`: the broker's time, in Unix milliseconds, from which poll returns the rules again because
    a pause has ended."""

    rules: int = 0
    signals: int = 0
    rules_until_ms: int | None = None


class PollResult(Struct, frozen=True, kw_only=True):
    """The changes for a worker. `rules`: all rules, or None without a change. `interrupts`: ids of running
    jobs that the worker has to interrupt. `requests`: all requests to the worker that have not expired, in
    each answer, so that a lost answer loses no request; the worker knows requests by their ids."""

    versions: Versions
    rules: Rules | None = None
    interrupts: tuple[str, ...] = ()
    requests: tuple[WorkerRequest, ...] = ()

    @property
    def paused(self) -> frozenset[str] | None:
        """The paused queues and trees, or None without a change."""
        return None if self.rules is None else self.rules.paused_queues
