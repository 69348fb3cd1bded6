"""Host names are resolved in threads that no job can occupy.

gevent resolves names, also those that are IP addresses, in the ten threads of the hub's pool. A task may fill
these with calls that block, or set a trace function for all threads, and then no connection to the broker can
be made.
"""

from __future__ import annotations

from typing import Any

import gevent
from gevent.resolver.thread import Resolver

from mrq_core.running.context import current_context
from mrq_core.worker.guards.blocking import GuardedPool

_THREADS_OF_JOBS, _THREADS_OF_WORKER = 10, 2


class SeparateResolver(Resolver):
    """Resolves names for jobs in some threads, and for the worker in others, because names of jobs may take
    long. Threads start when they are needed."""

    def __init__(self, hub: Any) -> None:
        self._of_jobs: Any = GuardedPool(_THREADS_OF_JOBS, hub=hub)
        self._of_worker: Any = GuardedPool(_THREADS_OF_WORKER, hub=hub)

    @property
    def pool(self) -> Any:  # type: ignore[override]
        """The threads for the running greenlet."""
        return self._of_worker if current_context.get() is None else self._of_jobs

    def _on_fork(self) -> None:
        """In a forked child: gevent calls this by its name."""
        for pool in (self._of_jobs, self._of_worker):
            pool._on_fork()


def guard_resolver() -> None:
    """Makes the hub of this thread use a `SeparateResolver`, unless the user has chosen another resolver of
    gevent."""
    hub: Any = gevent.get_hub()
    if type(hub.resolver) is Resolver:
        hub.resolver = SeparateResolver(hub)
