"""The event loop of gevent, which all jobs of a process share, without calls by which one stops all others.

The loop keeps its timers in a heap, sorted by time. NaN, such as the mean of no numbers, is neither less nor
more than any time: one such timer keeps all others of the process from ending, those of other jobs and of
the worker, too. Only libev takes it. `time.sleep` of Python raises ValueError, as the loop now does.
"""

from __future__ import annotations

from typing import Any

_CANCEL = 0
"""The argument of `break_` that takes an earlier call back."""


def guard_loops() -> None:
    """Guards the loops of the hubs that are made from now on."""
    from gevent._config import config

    settings: Any = config
    loop: Any = settings.loop
    if isinstance(loop, type) and not hasattr(loop, "is_guarded"):
        settings.loop = _guarded(loop)


def _guarded(base: Any) -> Any:
    make_timer, make_stat = base.timer, base.stat

    class Loop(base):  # type: ignore[misc]
        is_guarded = True

        def timer(self, after: Any, repeat: Any = 0.0, *others: Any, **named: Any) -> Any:
            if after != after or repeat != repeat:
                raise ValueError("Invalid value NaN (not a number) for a time to wait")
            return make_timer(self, after, repeat, *others, **named)

        def stat(self, path: Any, interval: Any = 0.0, *others: Any, **named: Any) -> Any:
            if interval != interval:
                raise ValueError("Invalid value NaN (not a number) for a time between looks at a file")
            return make_stat(self, path, interval, *others, **named)

        def run(self, *arguments: Any, **named: Any) -> Any:
            from gevent.hub import Hub, getcurrent

            if not isinstance(getcurrent(), Hub):
                raise RuntimeError("the loop of gevent runs in its hub already: to wait, call gevent.sleep")
            return base.run(self, *arguments, **named)

        def break_(self, how: int = 1) -> None:
            if how != _CANCEL:
                raise RuntimeError("other jobs and the worker need the loop of gevent, which cannot be ended")
            base.break_(self, how)

    Loop.__name__ = Loop.__qualname__ = base.__name__
    return Loop
