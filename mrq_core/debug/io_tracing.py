"""I/O tracing as a worker uses it: TRACE_IO."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import Any

from mrq_core.clock import now_ms
from mrq_core.contract.driver import RunBlocking
from mrq_core.debug.io_calls import JobIo, current_io
from mrq_core.debug.io_libraries import trace_libraries, traced_blocking
from mrq_core.debug.io_sockets import trace_lookups, trace_sockets
from mrq_core.operations.running_jobs import io_totals_text
from mrq_core.running.context import JobContext


@cache
def _replace_functions() -> None:
    """Replaces the functions of libraries, once in a process."""
    trace_libraries()
    trace_sockets()


class IoTracing:
    """Traces the I/O of the jobs of this process. The constructor replaces functions of libraries for good;
    make it before a client of a database is made.

    Without an instance nothing is replaced.
    """

    def __init__(self) -> None:
        _replace_functions()

    def blocking(self, run_blocking: RunBlocking) -> RunBlocking:
        """`run_blocking` for the broker of the worker: calls that a job makes are noted."""
        return traced_blocking(run_blocking)

    def trace_lookups(self) -> None:
        """Traces lookups of host names in the hub of this thread, after its resolver was chosen."""
        trace_lookups()

    def begin(self, context: JobContext, greenlet: Any) -> JobIo:
        """Notes the calls of an attempt. Called in its greenlet and its context."""
        io = JobIo(context, greenlet)
        current_io.set(io)
        greenlet.io = io
        return io

    def end(self, io: JobIo, context: JobContext, greenlet: Any) -> None:
        """Ends an attempt: its totals become a line of its log. Never raises an Exception."""
        greenlet.io = None
        with suppress(Exception):
            if io.totals:
                totals = io.state().totals
                context.log.write("INFO", f"I/O: {io_totals_text(totals)}", now_ms())
