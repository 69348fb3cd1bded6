"""The logger of a worker, which no log handler can harm.

Handlers, filters, formatters and record factories belong to users and tasks: they may raise anything, and
standard error may be closed. A worker must store outcomes and renew leases all the same.
"""

from __future__ import annotations

import logging
from typing import Any

_CALLER = 2
"""The frame that a log line names: the caller of this module."""


class GuardedLog(logging.LoggerAdapter[logging.Logger]):
    """Logs like the logger of this name. Never raises."""

    def __init__(self, name: str) -> None:
        super().__init__(logging.getLogger(name), {})

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        try:
            if self.logger.isEnabledFor(level):
                self.logger.log(level, msg, *args, stacklevel=_CALLER, **kwargs)
        except BaseException:
            pass
