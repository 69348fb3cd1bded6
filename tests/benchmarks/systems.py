"""What is measured: a system at its settings, and an empty place for its jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class Place(NamedTuple):
    """Where a system keeps its jobs: servers that have just been started, or a file that is new.

    `environ` tells the system's processes where it is. `unfinished` counts the jobs in it that have not
    ended, as far as the system knows of them.
    """

    environ: Mapping[str, str]
    unfinished: Callable[[], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A task queue at certain settings. Of its texts, `keeps` says what it stores of a job that has ended
    well, and `killed` what becomes of a job whose worker is killed."""

    name: str
    store: str
    """What keeps the jobs; systems with the same one are compared."""
    application: str
    """A module with its tasks, see `send.py`."""
    command: tuple[str, ...]
    """Its worker: a program of its environment and arguments, with `{concurrency}` and `{index}` in them."""
    opened: Callable[[Path], AbstractContextManager[Place]]
    """Makes an empty place; the folder is empty, too."""
    environ: Mapping[str, str] = field(default_factory=dict)
    concurrency: int
    """How many jobs run at a time, where they do nothing."""
    part: float = 1.0
    """Of the jobs of a drain it gets this part: a slow one would take for ever."""
    requires: tuple[str, ...] = ()
    """What its environment needs, for pip. Nothing: it is the environment of the benchmark itself."""
    settings: str
    keeps: str
    killed: str
    cannot: Mapping[str, str] = field(default_factory=dict)
    """Workloads by name, and why it has no figure there."""

    @property
    def is_ours(self) -> bool:
        """Whether it is an arrangement of mrq."""
        return not self.requires

    @property
    def enqueues_as(self) -> tuple[object, ...]:
        """The same for systems that differ in their workers only: their enqueueing is measured once."""
        return self.application, self.store, *sorted(self.environ.items())
