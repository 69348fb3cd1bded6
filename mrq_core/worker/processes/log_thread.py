"""Writes the log of the parent in a thread: a full pipe must not keep the parent from its workers."""

from __future__ import annotations

import logging
import logging.handlers
import queue
import threading


class LogThread:
    """Takes the place of the handlers of the root logger, and calls them in a daemon thread."""

    def __init__(self) -> None:
        self._records: queue.SimpleQueue[logging.LogRecord | None] = queue.SimpleQueue()
        root = logging.getLogger()
        self._handlers = root.handlers[:]
        root.handlers[:] = [logging.handlers.QueueHandler(self._records)]
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Waits for all lines to be written, at most these seconds."""
        self._records.put(None)
        self._thread.join(seconds)

    def _write(self) -> None:
        while (record := self._records.get()) is not None:
            for handler in self._handlers:
                if record.levelno >= handler.level:
                    try:
                        handler.handle(record)
                    except Exception:  # of a handler that the config file has added
                        pass
