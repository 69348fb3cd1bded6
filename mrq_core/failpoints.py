"""Named places between two writes, at which a test may end the process or make a call fail.

A driver calls `reach` where a crash would leave the most to be mended. Outside of tests nobody sets
`hook`, and the call does nothing.
"""

from __future__ import annotations

from collections.abc import Callable

hook: Callable[[str], None] | None = None
"""Called with the name of each place that is reached. For tests only."""


def reach(name: str) -> None:
    """Says that the place of this name was reached."""
    if hook is not None:
        hook(name)
