"""The description of a driver, and the arguments for opening it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from mrq_core.clock import Clock, SystemClock
from mrq_core.contract.broker import Broker
from mrq_core.contract.folders import Folders
from mrq_core.contract.pair import JobQueue, JobStore

T = TypeVar("T")


class RunBlocking(Protocol):
    """Runs a blocking function and returns its result, without stalling the event loop."""

    def __call__(self, function: Callable[[], T], /) -> T: ...


def run_directly(function: Callable[[], T], /) -> T:
    """The `RunBlocking` of a process without an event loop: calls the function directly."""
    return function()


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """The arguments for opening a broker, queue or store. A driver connects on first use or in `prepare`.

    `settings` are the values of the configuration by their upper-case names; `given` names those that do not
    come from the defaults. `url` is the value of BROKER or STORE where that is a URL. A call that takes
    longer than `timeout` seconds fails with BrokerUnavailable.
    """

    settings: Mapping[str, object] = field(repr=False)  # with passwords, as `url`
    given: frozenset[str] = frozenset()
    url: str | None = field(default=None, repr=False)
    clock: Clock = field(default_factory=SystemClock)
    run_blocking: RunBlocking = run_directly
    timeout: float = 10.0
    folders: Folders = field(default_factory=Folders.now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """A driver, as the hook `mrq_driver` returns it. Its module must import no client library.

    A driver that keeps queues and records sets `open_broker`. A driver that can be half of a composed
    broker sets `open_queue`, `open_store`, or both. `settings` names the settings that the driver reads.
    """

    name: str
    summary: str
    url_schemes: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    open_broker: Callable[[Opening], Broker] | None = None
    open_queue: Callable[[Opening], JobQueue] | None = None
    open_store: Callable[[Opening], JobStore] | None = None
