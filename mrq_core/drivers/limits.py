"""What a limit key and its rule mean, for drivers that count slots and keep rates.

Rates follow GCRA, the generic cell rate algorithm (ITU-T I.371; B. Leach, Rate Limiting, Cells, and GCRA,
2015), which keeps one time for each key: the time of the next claim if all claims were evenly spaced. Times
are whole microseconds, because a float of Unix time cannot tell the last claim of a burst from the next one.
"""

from __future__ import annotations

from typing import NamedTuple

from mrq_core.contract.messages import Limit


class Spacing(NamedTuple):
    """A rate, in microseconds: the time between two claims, and how much earlier a burst may come."""

    interval_us: int
    burst_us: int


def spacing_of(limit: Limit) -> Spacing | None:
    """The spacing that the limit asks for. None: the limit has no rate."""
    if not limit.rate:
        return None
    interval_us = round(limit.per * 1_000_000 / limit.rate)
    return Spacing(interval_us, interval_us * (max(1, int(limit.rate)) - 1))


def rule_of(key: str) -> str:
    """The name of the rule that a limit key belongs to."""
    return key.partition(":")[0]
