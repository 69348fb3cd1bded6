"""The guards that each process that runs jobs has, in their order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mrq_core.worker.guards import forking
from mrq_core.worker.guards.asyncio_loops import keep_loops_apart
from mrq_core.worker.guards.guarded_log import guard_hub, guard_loggers
from mrq_core.worker.guards.lasting import keep_hub, release_hub
from mrq_core.worker.guards.resolving import guard_resolver
from mrq_core.worker.guards.thread_locks import guard_thread_locks

if TYPE_CHECKING:
    from mrq_core.debug.io_tracing import IoTracing


def guard_process(tracing: IoTracing | None) -> None:
    """Guards this process, its log and its hub against the code of jobs. Call it before the first job."""
    forking.enter_worker()
    guard_loggers()
    guard_hub()
    guard_resolver()
    guard_thread_locks()
    if tracing is not None:  # traces the lookups of the guarded resolver
        tracing.trace_lookups()
    keep_hub()
    keep_loops_apart()


def release_process(*, exits_after: bool) -> None:
    """Takes back what would outlast the worker in a program that goes on. `exits_after`: the process exits
    now; greenlets that are left in it do not change its exit code, and what exit handlers of tasks fork ends
    where they end."""
    if not exits_after:
        release_hub()
        forking.leave_worker()
