"""The hub and the greenlets of a worker, which no task ends.

All code of a process shares its hub, and a task finds each greenlet through the garbage collector.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent

from mrq_core.contract.plain_tracebacks import repr_of_error
from mrq_core.worker.guards import finalizers
from mrq_core.worker.guards.guarded_log import GuardedLog, may_report

_PAUSE = 0.05
"""Seconds until a greenlet that was ended starts again."""

_log = GuardedLog("mrq.worker")


class LastingGreenlet:
    """Calls `run`, which does not return by itself, in a greenlet. Calls it again when the greenlet is
    ended, until `stop`."""

    def __init__(self, run: Callable[..., None], *arguments: object) -> None:
        self._run = run
        self._arguments = arguments
        self._greenlet: gevent.Greenlet[..., None] | None = None
        self._stopped = False

    def start(self) -> None:
        """Starts the greenlet."""
        self._follow(gevent.spawn(self._run, *self._arguments))

    def may_end(self) -> None:
        """From now on `run` may return: it is not called again."""
        self._stopped = True

    def stop(self, timeout: float | None = None) -> None:
        """Ends the greenlet. Waits for its end, for `timeout` seconds at most."""
        self._stopped = True
        if self._greenlet is not None:
            self._greenlet.kill(timeout=timeout)

    def _follow(self, greenlet: gevent.Greenlet[..., None]) -> None:
        self._greenlet = greenlet
        finalizers.watch.add(greenlet)
        greenlet.rawlink(self._restart)

    def _restart(self, ended: object) -> None:
        if not self._stopped:
            _log.error("greenlet.ended: a task has ended a greenlet of the worker, which starts again")
            self._follow(gevent.spawn_later(_PAUSE, self._run, *self._arguments))


def keep_hub() -> None:
    """Keeps tasks from ending the hub of this thread, or the worker through it.

    SystemExit, KeyboardInterrupt and SystemError end the greenlet or the callback that raises them, and are
    logged; gevent would raise them in the main greenlet.
    """
    hub: Any = gevent.get_hub()
    hub.handle_system_error = _report
    hub.destroy = _refuse


def release_hub() -> None:
    """Undoes `keep_hub`."""
    hub: Any = gevent.get_hub()
    vars(hub).pop("handle_system_error", None)
    vars(hub).pop("destroy", None)


def _report(kind: object, value: object, frames: object = None) -> None:
    if may_report(kind):
        shown = repr_of_error(value)
        _log.warning("greenlet.ended by %s: it ends that greenlet, and not the worker", shown)


def _refuse(destroy_loop: bool | None = None) -> None:
    _log.warning("hub.kept: a task wanted to destroy the hub of the worker")
