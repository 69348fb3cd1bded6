"""Calls while the interpreter ends, from `__del__` of objects that live until then.

The interpreter has stopped all other threads by then, wherever they were. The locks and transactions of a
stopped thread are never released, and a call that needs them would wait without end. Imports fail.
"""

from __future__ import annotations

import threading

from mrq_core.errors import BrokerUnavailable


def has_stopped_threads() -> bool:
    """Whether other threads were running when the interpreter began to end. Only call it after that."""
    return threading.active_count() > 1


def too_late(where: str) -> BrokerUnavailable:
    """The error for a call while the interpreter ends."""
    return BrokerUnavailable(
        f"{where} cannot be called while the interpreter ends: threads are stopped, perhaps in the middle of "
        "a call; call it earlier, for instance in a function of atexit"
    )
