"""What a driver announces, and what it is given when it is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from mrq_core.clock import Clock, SystemClock
from mrq_core.contract.broker import Broker
from mrq_core.contract.pair import JobQueue, JobStore

T = TypeVar("T")


class RunBlocking(Protocol):
    """Runs a function that blocks its thread, and returns what it returns, without stalling others."""

    def __call__(self, function: Callable[[], T], /) -> T: ...


def run_directly(function: Callable[[], T], /) -> T:
    """The `RunBlocking` of a process without an event loop: the calling thread does the work."""
    return function()


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What a driver is given to open its broker, queue or store. It opens connections when they are
    first used, or in prepare(), not before.

    `settings` are the values of the configuration by their upper-case names. `url` is what stood in
    BROKER or STORE if that was a URL. `timeout` is how many seconds a call
    may take before it fails with BrokerUnavailable.
    """

    settings: Mapping[str, object]
    url: str | None = None
    clock: Clock = field(default_factory=SystemClock)
    run_blocking: RunBlocking = run_directly
    timeout: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """What the hook `mrq_driver` returns. Its module imports nothing heavy.

    A driver that owns both halves gives `open_broker`; one that can be half of a composed
    broker gives `open_queue`, `open_store`, or both. `settings` names the configuration it reads.
    """

    name: str
    summary: str
    url_schemes: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    open_broker: Callable[[Opening], Broker] | None = None
    open_queue: Callable[[Opening], JobQueue] | None = None
    open_store: Callable[[Opening], JobStore] | None = None
