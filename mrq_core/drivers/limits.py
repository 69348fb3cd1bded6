"""What a limit key and its rule mean, for drivers that count slots and keep rates.

Rates follow GCRA, the generic cell rate algorithm (ITU-T I.371; B. Leach, Rate Limiting, Cells, and GCRA,
2015), which keeps one time for each key: the time of the next claim if all claims were evenly spaced. Times
are whole microseconds, because a float of Unix time cannot tell the last claim of a burst from the next one.

A claim reserves starts up to RATE_HORIZON_MS ahead. A job that a rate lets start later is parked under the
key and charged to no rate, and so is a job that comes later than the parked jobs of the key. Parked jobs are
let go when their starts come within the horizon. The time of a key is stored with the spacing that it was
counted in: where a claim has another spacing, the rule has changed, and the claim cuts the time to at most
one new interval ahead and stores it.

A start that was reserved may be taken late: no worker was there, or the queue was paused. A second time of
the key therefore counts the jobs as they start, and a claim checks it before a job starts at a reserved time.
Where the late jobs before it have used up the burst, the job gets another start, after those that are
reserved. So no more start at once than the burst and one, and a change of the rule holds for reserved starts.
The first time is never before the second.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mrq_core.contract.messages import ClaimRequest, Limit
from mrq_core.contract.rules import OVERLAP_RULE, RATE_HORIZON_MS, RATE_MOST, SPACING_MOST, TASK_RULE

HORIZON_US = RATE_HORIZON_MS * 1000
_BURST_MOST_US = int(SPACING_MOST * 1_000_000)
_CLOSED = Limit(concurrency=0)
ONE_AT_A_TIME = Limit(concurrency=1)
"""The limit of each key of OVERLAP_RULE."""


class Spacing(NamedTuple):
    """A rate, in microseconds: the time between two claims, and how much earlier a burst may come."""

    interval_us: int
    burst_us: int

    def may_start(self, start_us: int, now_us: int) -> bool:
        """Whether a job may start now at a time reserved earlier. `start_us`: the time of the key by starts.

        One interval is granted, because claims come a little after the reserved times, and not evenly so.
        """
        return start_us - self.burst_us - self.interval_us <= now_us

    def room(self, even_us: int, now_us: int) -> int:
        """The number of jobs whose starts a claim may reserve now. `even_us`: the time of the key."""
        ahead_us = max(even_us, now_us) - self.burst_us - now_us
        return max(0, (HORIZON_US - ahead_us) // self.interval_us + 1)

    def opens_at_us(self, even_us: int) -> int:
        """The time from which there is room."""
        return even_us - self.burst_us - HORIZON_US

    def cut(self, even_us: int, now_us: int) -> int:
        """The time of a key that was counted in another spacing."""
        return min(even_us, now_us + self.interval_us)


def spacing_of(limit: Limit) -> Spacing | None:
    """The spacing that the limit asks for. None: the limit has no rate.

    Numbers beyond the bounds of `rules.checked_limit` count as the bounds: another program may have stored
    them, and a time that no database can hold would fail the claims of all jobs.
    """
    if not limit.rate:
        return None
    rate = min(limit.rate, RATE_MOST)
    interval_us = max(1, round(min(limit.per / rate, SPACING_MOST) * 1_000_000))
    return Spacing(interval_us, min(interval_us * (max(1, int(rate)) - 1), _BURST_MOST_US))


def rule_of(key: str) -> str:
    """The name of the rule that a limit key belongs to."""
    return key.partition(":")[0]


def start_key(key: str) -> str:
    """The name for the time by starts of a limit key, in drivers that store it beside the times of keys. It
    is no limit key."""
    return f"\n{key}"


def task_key(path: str) -> str:
    """The limit key under which a claim parks the jobs of a paused task."""
    return f"{TASK_RULE}:{path}"


def rules_of(request: ClaimRequest) -> Mapping[str, Limit]:
    """The limits of a request, and a rule without room for the key of each paused task."""
    if not request.paused_tasks:
        return request.limits
    return {**request.limits, **{task_key(path): _CLOSED for path in request.paused_tasks}}


def limit_of(key: str, limits: Mapping[str, Limit]) -> Limit | None:
    """The limit that applies to a key, among those of `rules_of`. None: the key does not limit."""
    rule = rule_of(key)
    if rule == OVERLAP_RULE:
        return ONE_AT_A_TIME
    return limits.get(key if rule == TASK_RULE else rule)
