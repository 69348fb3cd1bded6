"""Calls the observers of a hook, such as `mrq_jobs_settled`, and does not wait for those that hang."""

from __future__ import annotations

import gevent

from mrq_core.plugins.manager import Plugins
from mrq_core.worker.guards import forking
from mrq_core.worker.guards.guarded_log import GuardedLog

_PATIENCE = 5.0
"""Seconds for which the worker waits for the observers of a hook."""
_MOST_HANGING = 100

_log = GuardedLog("mrq.worker")


class Observers:
    """The observers of all plugins, and the calls that hang."""

    def __init__(self, plugins: Plugins) -> None:
        self._plugins = plugins
        self._hanging: dict[str, list[gevent.Greenlet[..., None]]] = {}
        """The greenlets of observers that are not waited for, by hook."""

    def call(self, hook: str, **values: object) -> None:
        """Calls the observers of a hook, and waits up to _PATIENCE for them.

        They run in a separate greenlet, so that what an observer raises or leaves behind, such as a timer,
        reaches none of the worker's greenlets. While observers hang, later ones are not waited for, and above
        _MOST_HANGING calls are left out.
        """
        hanging = self._hanging.get(hook, [])
        if hanging:
            hanging = self._hanging[hook] = [greenlet for greenlet in hanging if not greenlet.dead]
        if len(hanging) >= _MOST_HANGING:
            return
        greenlet = gevent.spawn(
            self._plugins.observe, hook, caught=BaseException, after_each=forking.end_if_child, **values
        )
        greenlet.join(0 if hanging else _PATIENCE)
        if not greenlet.dead:
            self._hanging.setdefault(hook, []).append(greenlet)
            if not hanging:
                _log.warning("plugin.hangs hook=%s: the worker waits for it no longer", hook)
