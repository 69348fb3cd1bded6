"""Debugging of running jobs: what their I/O waits for.

`io_calls` holds the calls of one attempt, `io_texts` describes them without values, `io_sockets` and
`io_libraries` note them, and `io_tracing` is what a worker uses. `peers` reads from a stack which server a
greenlet waits for; it needs no tracing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mrq_core.config.settings import Config

if TYPE_CHECKING:
    from mrq_core.debug.io_tracing import IoTracing


def start_io_tracing(config: Config) -> IoTracing | None:
    """Starts to trace I/O in this process, if TRACE_IO is on. None: it is off, and nothing is imported."""
    if not config.trace_io:
        return None
    from mrq_core.debug.io_tracing import IoTracing

    return IoTracing()
