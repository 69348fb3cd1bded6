"""Chooses the queues of each claim and their order, and checks which tasks a worker may run."""

from __future__ import annotations

from collections.abc import Sequence

from mrq_core.config.settings import Config
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import Wanted
from mrq_core.contract.naming import check_queue_name, in_order, is_covered, is_tree
from mrq_core.contract.values import is_task_pattern
from mrq_core.errors import ConfigError

_WORDS = ("sequential", "parallel", "burst")


class Strategy:
    """DEQUEUE_STRATEGY: ``sequential`` serves queues in order; ``parallel`` gives each queue a share and
    rotates which queue is first; ``burst``, alone or with one of these, ends the worker when nothing is due
    and nothing runs. A queue ``x_reverse`` serves the newest jobs of ``x`` first."""

    def __init__(self, text: str, queues: Sequence[str]) -> None:
        words = [word.strip() for word in text.split(",")]
        unknown = [word for word in words if word not in _WORDS]
        if unknown or {"sequential", "parallel"} <= set(words):
            raise ConfigError(
                f"DEQUEUE_STRATEGY is {text!r}: expected sequential, parallel or burst, "
                "or burst and one of the others joined by a comma"
            )
        if not queues:
            raise ConfigError("QUEUES is empty: expected the names of the queues to work on")
        for name in queues:
            check_queue_name(name)
        self.is_parallel = "parallel" in words
        self.is_burst = "burst" in words
        self._served = tuple(dict.fromkeys(in_order(name) for name in queues))
        self.queues = tuple(dict.fromkeys(name for name, _ in self._served))
        """The names of the queues and trees, without ``_reverse``."""
        self._rotation = 0

    def wanted(self, room: int, paused: frozenset[str]) -> tuple[Wanted, ...]:
        """The queues for a claim of up to `room` jobs, without the paused queues.

        In parallel, each call starts with the next queue.
        """
        served = [one for one in self._served if not is_covered(one[0], paused)]
        names = {name for name, _ in served}
        excluded = frozenset(name for name in paused if name not in names)
        quota = None
        if self.is_parallel and len(served) > 1:
            self._rotation += 1
            start = self._rotation % len(served)
            served = served[start:] + served[:start]
            quota = max(1, -(-room // len(served)))
        return tuple(
            Wanted(
                name=name, quota=quota, reverse=reverse, exclude=excluded if is_tree(name) else frozenset()
            )
            for name, reverse in served
        )


CHOOSING_TASKS = ("ALLOW_TASKS", "DENY_TASKS")
"""The settings that choose the tasks of a worker."""


def check_chosen_tasks(config: Config, broker: Broker, settings: Sequence[str] = CHOOSING_TASKS) -> None:
    """Raises ConfigError if one of these settings is wrong, or the broker cannot obey it."""
    for setting in settings:
        patterns: Sequence[str] = getattr(config, setting.lower())
        wrong = next((pattern for pattern in patterns if not is_task_pattern(pattern)), None)
        if wrong is not None:
            raise ConfigError(
                f"{setting} contains {wrong!r}: expected the path of a task, such as shop.call, "
                "or a module, such as shop.*"
            )
        if patterns and not broker.supports_denied_tasks:
            raise ConfigError(
                f"{setting} is set, and the broker {broker.name} cannot leave out tasks: "
                "give the tasks a queue that only some workers serve"
            )
