"""The greenlets that run jobs. They live long and are fed by a queue: a new greenlet for each job
costs ten times as much."""

from __future__ import annotations

import contextvars
from collections.abc import Callable

import gevent
from gevent.queue import SimpleQueue

from mrq_core.worker.attempts import Attempt


class GreenletPool:
    """Up to `size` greenlets, started when they are first needed. `run` must not raise."""

    def __init__(self, size: int, run: Callable[[Attempt], None]) -> None:
        self._size = size
        self._run = run
        self._inbox: SimpleQueue[Attempt] = SimpleQueue()
        self._greenlets: list[gevent.Greenlet[..., None]] = []
        self._idle = 0

    def start(self, attempt: Attempt) -> None:
        """Runs the attempt in a free greenlet. The caller starts no more than `size` at a time."""
        self._inbox.put(attempt)
        if self._inbox.qsize() > self._idle and len(self._greenlets) < self._size:
            self._greenlets.append(gevent.spawn(self._work))

    def _work(self) -> None:
        while True:
            self._idle += 1
            attempt = self._inbox.get()
            self._idle -= 1
            attempt.greenlet = gevent.getcurrent()
            # Each job gets a context of its own: what one leaves behind, the next does not see.
            contextvars.copy_context().run(self._run, attempt)
