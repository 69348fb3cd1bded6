"""A thread that advances the bulk actions of an installation, those that a dead process has left included."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable

from mrq_core.clock import monotonic
from mrq_core.contract.broker import Broker
from mrq_core.errors import BrokerError, BrokerUnavailable, shown_error
from mrq_core.ids import new_id
from mrq_core.operations.bulk.bulk_actions import Bulk, Held
from mrq_core.operations.bulk.bulk_steps import Lost, advance, fail, release, reread, take_over

LOOK = 5.0
"""Seconds between two looks for bulk actions that no process advances."""
_WAIT_FIRST, _WAIT_MOST = 0.5, 10.0
"""Seconds before another attempt to reach a broker that is away."""
_log = logging.getLogger("mrq.bulk")


class BulkRunner:
    """Owns bulk actions and does a step of each in turn. Several processes may have a runner.

    `broker` returns the broker for the calling thread. `on_end` is called with each bulk that has ended,
    before its end is stored; it may be called twice for one bulk, and its errors of the broker are tried
    again.
    """

    def __init__(
        self, broker: Callable[[], Broker], on_end: Callable[[Bulk], None] = lambda bulk: None
    ) -> None:
        self._broker = broker
        self._on_end = on_end
        self._owner = new_id()
        self._asked = threading.Event()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Starts the thread if it does not run, and makes it look at once."""
        with self._lock:
            self._asked.set()
            if self._thread is None and not self._stopping.is_set():
                self._thread = threading.Thread(target=self._run, name="mrq-bulk", daemon=True)
                self._thread.start()

    def begin(self) -> None:
        """Wakes the thread, also after a stop."""
        with self._lock:
            self._stopping.clear()
            if self._thread is not None and not self._thread.is_alive():
                self._thread = None
        self.wake()

    def stop(self, patience: float = 5.0) -> None:
        """Ends the thread after its step, and gives its bulk actions back. Waits for `patience` seconds."""
        with self._lock:
            self._stopping.set()
            self._asked.set()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(patience)

    def _run(self) -> None:
        held: dict[str, Held] = {}
        doubtful: set[str] = set()
        wait, next_look = _WAIT_FIRST, 0.0
        while not self._stopping.is_set():
            try:
                broker = self._broker()
                if self._asked.is_set() or monotonic() >= next_look:
                    self._asked.clear()
                    next_look = monotonic() + LOOK
                    for taken in take_over(broker, self._owner, list(held)):
                        _log.info("bulk.taken id=%s action=%s", taken.bulk.id, taken.bulk.change.verb)
                        held[taken.bulk.id] = taken
                for bulk_id in list(held):
                    if self._stopping.is_set():
                        break
                    self._step(broker, held, bulk_id, doubtful)
                wait = _WAIT_FIRST
            except BrokerUnavailable as error:
                _log.warning("bulk.away error=%s", error)
                doubtful.update(held)
                next_look = 0.0
                self._stopping.wait(wait)
                wait = min(_WAIT_MOST, 2 * wait)
                continue
            except Exception:  # of a driver: the thread outlives it
                _log.exception("bulk.broke")
                self._stopping.wait(_WAIT_MOST)
            if not held:
                self._asked.wait(LOOK)
        self._release(held, doubtful)

    def _step(self, broker: Broker, held: dict[str, Held], bulk_id: str, doubtful: set[str]) -> None:
        """Does a step of one bulk, and forgets a bulk that has ended or has another owner. Raises
        BrokerUnavailable."""
        try:
            if bulk_id in doubtful:
                held[bulk_id] = reread(broker, held[bulk_id])
                doubtful.discard(bulk_id)
            held[bulk_id] = advance(broker, held[bulk_id], self._on_end)
        except Lost as error:
            _log.info("bulk.lost id=%s reason=%s", bulk_id, error)
            del held[bulk_id]
            return
        except BrokerUnavailable:
            raise
        except Exception as error:  # it would come again with each step
            _log.exception("bulk.failed id=%s", bulk_id)
            failed = held.pop(bulk_id)
            with contextlib.suppress(Lost):
                fail(broker, reread(broker, failed), shown_error(error), self._on_end)
            return
        if not held[bulk_id].bulk.is_running:
            bulk = held.pop(bulk_id).bulk
            _log.info("bulk.ended id=%s status=%s handled=%d", bulk_id, bulk.status, bulk.handled)

    def _release(self, held: dict[str, Held], doubtful: set[str]) -> None:
        """Lets other processes go on at once. Without an answer of the broker they wait for the lease."""
        for bulk_id, one in held.items():
            if bulk_id not in doubtful:
                try:
                    release(self._broker(), one)
                except (BrokerError, Lost) as error:
                    _log.warning("bulk.not_released id=%s error=%s", bulk_id, error)
