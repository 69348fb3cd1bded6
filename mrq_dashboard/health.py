"""The findings of `mrq check`, which may take seconds on a large store: made in the background and kept."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime

from msgspec import Struct

from mrq_core.clock import monotonic
from mrq_core.contract.broker import Broker
from mrq_core.contract.queries import Finding
from mrq_core.errors import shown_error
from mrq_core.operations.checking.checks import broker_findings

KEPT = 60.0
"""Seconds after which findings are old, and the next request has them checked again."""
_PATIENCE = 0.1
"""Seconds for which a request waits for a check that it has begun."""


class Checked(Struct, frozen=True, kw_only=True):
    """The findings of one check, and when it ended: by the broker's clock, or by that of this machine where
    the broker could not be asked."""

    findings: tuple[Finding, ...]
    at: datetime


class Health:
    """The latest findings about the broker. May be used by several threads."""

    def __init__(self, check: Callable[[Broker], list[Finding]] = broker_findings) -> None:
        self._check = check
        self._lock = threading.Lock()
        self._latest: Checked | None = None
        self._ended = 0.0
        self._running: threading.Thread | None = None

    def latest(self, broker_of: Callable[[], Broker]) -> Checked | None:
        """The latest findings; None while the first check runs. Begins a check if they are old.
        `broker_of` is called in the thread of the check."""
        with self._lock:
            if self._running is None and (self._latest is None or monotonic() > self._ended + KEPT):
                self._running = threading.Thread(target=self._run, args=(broker_of,), daemon=True)
                self._running.start()
            running = self._running
        if running is not None:
            running.join(_PATIENCE)
        return self._latest

    def _run(self, broker_of: Callable[[], Broker]) -> None:
        at = None
        try:
            broker = broker_of()
            found = self._check(broker)
            at = broker.now()
        except Exception as error:  # a driver of someone else
            found = [Finding(level="error", subject="check", message=shown_error(error))]
        with self._lock:
            self._latest = Checked(findings=tuple(found), at=at or datetime.now(UTC))
            self._ended = monotonic()
            self._running = None
