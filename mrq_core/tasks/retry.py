"""When a failed job is retried, and after which delay."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec

from mrq_core.contract.record import RetryDecision

LONGEST_DELAY = 3600.0
"""The default of `max_delay`, in seconds, unless the delay itself is longer."""


class RetryRule(msgspec.Struct, frozen=True, kw_only=True):
    """The retry options of a task.

    The n-th retry (from 0) waits ``delay * backoff ** n`` seconds, at most `max_delay`. With
    `jitter` it waits a random part of that, evenly spread between half of it and all of it
    ("equal jitter": Marc Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015).
    """

    max_retries: int = 3
    delay: float = 3.0
    backoff: float = 1.0
    max_delay: float = LONGEST_DELAY
    jitter: bool = False
    retry_on: tuple[type[BaseException], ...] = ()

    def delay_of(self, retry_count: int, *, draw: Callable[[], float] = random.random) -> float:
        """The delay in seconds before the next attempt of a job that was retried `retry_count` times."""
        try:
            delay = min(self.delay * self.backoff**retry_count, self.max_delay)
        except OverflowError:
            delay = self.max_delay
        return delay * (0.5 + draw() / 2) if self.jitter else delay

    def decide(self, exception: BaseException) -> RetryDecision:
        """Decides about an exception: retries only exceptions that `retry_on` names, by their real class, as
        an `except` clause does."""
        return RetryDecision(retry=issubclass(type(exception), self.retry_on))
