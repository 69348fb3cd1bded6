"""What pages of several visitors show alike: made once for all, so that many open pages cost as much as one.

Only while pages are live: then the poller of their streams notices changes, and the values are made anew
before the pages are told.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

from mrq_core.clock import monotonic
from mrq_core.errors import BrokerUnavailable

_PATIENCE = 5.0
"""Seconds for which a visit waits for a value that another one makes."""

_T = TypeVar("_T")


class _Made(NamedTuple):
    begun: float
    future: Future[Any]


class Shared:
    """Values by key. A value is made by the first visit that asks for it; others wait for it, and get it for
    some time. May be used by several threads. There is no limit of keys: use few.

    `is_live`: whether `forget` is called after each change. If not, nothing is shared.
    """

    def __init__(self) -> None:
        self.is_live = False
        self._lock = threading.Lock()
        self._made: dict[Hashable, _Made] = {}

    def get(self, key: Hashable, seconds: float, make: Callable[[], _T]) -> _T:
        """The value of the key, which `make` began to make at most `seconds` ago. Raises what `make` raises,
        also to those who wait; the next visit tries again. Raises BrokerUnavailable after 5 s."""
        if not self.is_live:
            return make()
        with self._lock:
            made = self._made.get(key)
            is_ours = made is None or (made.future.done() and monotonic() > made.begun + seconds)
            if made is None or is_ours:
                made = self._made[key] = _Made(monotonic(), Future())
        if is_ours:
            try:
                made.future.set_result(make())
            except BaseException as error:
                with self._lock:
                    if self._made.get(key) is made:
                        del self._made[key]
                made.future.set_exception(error)
                raise
        try:
            value: _T = made.future.result(_PATIENCE)
        except TimeoutError as error:
            if made.future.done():  # `make` raised it
                raise
            raise BrokerUnavailable(f"the broker did not answer within {_PATIENCE:g} s") from error
        return value

    def forget(self) -> None:
        """Lets the next visit make each value anew: something has changed."""
        with self._lock:
            self._made.clear()
