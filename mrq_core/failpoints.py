"""Named points between two writes, at which a test may kill the process or make a call fail.

A driver calls `reach` where a crash would leave the most to repair. Outside of tests `hook` is None,
and the call does nothing.
"""

from __future__ import annotations

from collections.abc import Callable

hook: Callable[[str], None] | None = None
"""Called with the name of each point that the code reaches. For tests only."""


def reach(name: str) -> None:
    """Calls the hook with this name, if a test has set one."""
    if hook is not None:
        hook(name)
