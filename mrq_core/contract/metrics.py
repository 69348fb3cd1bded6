"""Metrics: measurements of workers, added up by minute and by hour.

A value falls into one bucket of a fixed exponential scheme: bucket `i` has the values above ``2**((i-1)/4)``
and up to ``2**(i/4)``, so each bound is 1.19 times the bound before. This is schema 2 of Prometheus' native
histograms. `percentile` answers a value whose relative distance to both bounds of its bucket is the same, as
DDSketch does (Masson, Rim and Lee, VLDB 2019): its relative error is at most ``(g - 1) / (g + 1)`` with
``g = 2**(1/4)``, which is 8.7 %. Buckets of the same number are added up, without a further error.

Values are seconds, or another quantity that is not negative. The lowest bucket has all values up to one
microsecond, the highest all above 34 years.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum

from msgspec import Struct

from mrq_core.clock import from_ms, to_ms
from mrq_core.contract.plain import is_utf8
from mrq_core.errors import InvalidValue, shown

Tags = tuple[tuple[str, str], ...]
"""Pairs of name and value, sorted by name. Names are unique; a value is any text."""

STARTED = "jobs.started"
"""Started attempts, each with the seconds that it waited since it was due. Tags: queue, task."""
ENDED = "jobs.ended"
"""Ended attempts, each with the seconds that it ran. Tags: queue, status, task."""
LOST = "claims.lost"
"""Lost claims, counted by the worker that claims the job next, or ends it. Tags: queue, task."""
UNFINISHED = "queue.unfinished"
"""Samples of the number of waiting and running jobs. Tag: queue."""
ERRORS = "jobs.errors"
"""Attempts that raised, counted. Tags: group, task; see `terms.error_group`."""
OVERFLOW: Tags = (("overflow", "true"),)
"""The tags of all series above the bound of one process, as OpenTelemetry has them."""

BUCKETS_PER_DOUBLING = 4
LOWEST, HIGHEST = -80, 120
"""The numbers of the outermost buckets."""
ERROR = (2 ** (1 / BUCKETS_PER_DOUBLING) - 1) / (2 ** (1 / BUCKETS_PER_DOUBLING) + 1)
"""The largest relative error of `percentile`."""
MOST_TAGS = 8
MOST_CHARACTERS = 2000
"""Of a name of a metric, and of a name and a value of a tag."""
MOST_COUNT, MOST_TOTAL = 10**9, 1e15
"""Of one recorded metric, so that sums stay exact."""

_PER_DOUBLING = float(BUCKETS_PER_DOUBLING)
_SMALLEST = 2.0 ** (LOWEST / BUCKETS_PER_DOUBLING)
_LARGEST = 2.0 ** (HIGHEST / BUCKETS_PER_DOUBLING)
_MIDDLE = 2 / (2 ** (1 / BUCKETS_PER_DOUBLING) + 1)


class Resolution(StrEnum):
    """The time that one roll-up covers."""

    MINUTE = "minute"
    HOUR = "hour"

    @property
    def seconds(self) -> int:
        """The length of a roll-up."""
        return 60 if self is Resolution.MINUTE else 3600

    def start_of(self, moment: datetime) -> datetime:
        """The time at which the roll-up of this moment begins."""
        return from_ms(to_ms(moment) // (self.seconds * 1000) * self.seconds * 1000)

    @property
    def kept(self) -> float:
        """Seconds from the end of a roll-up until `prune` may delete it: a day for minutes, 30 days for
        hours."""
        return 86_400.0 if self is Resolution.MINUTE else 30 * 86_400.0


class Metric(Struct, frozen=True, kw_only=True, gc=False):
    """Measurements of one name and one set of tags: their number, their sum, and their histogram.

    A recorded metric has the time of the measurements. A metric that is read is a roll-up, and `at` is the
    time at which its minute or hour begins. `buckets` has the number of values of each bucket; it is empty
    for events that are only counted.
    """

    name: str
    at: datetime
    tags: Tags = ()
    count: int = 1
    total: float = 0.0
    buckets: Mapping[int, int] = {}

    @property
    def mean(self) -> float | None:
        """The mean of the values. None: there are no values."""
        return self.total / self.count if self.count else None


# --- histograms -------------------------------------------------------------------------------


def buckets_of(values: Iterable[float]) -> dict[int, int]:
    """The histogram of values. The lowest bucket has the negative values and NaN, too. About 0.2 µs a value,
    because no function of Python is called for each."""
    inside = [
        value if _SMALLEST < value < _LARGEST else _LARGEST if value > _SMALLEST else _SMALLEST
        for value in values
    ]
    return dict(Counter(map(math.ceil, map(_PER_DOUBLING.__mul__, map(math.log2, inside)))))


def measured(name: str, at: datetime, tags: Tags, values: Sequence[float]) -> Metric:
    """The metric of these values. A negative value, and NaN, counts as 0, an infinite one as MOST_TOTAL."""
    total = sum(values)
    if not 0 <= total <= MOST_TOTAL or min(values, default=0.0) < 0:
        values = [min(value, MOST_TOTAL) if value > 0 else 0.0 for value in values]
        total = min(sum(values), MOST_TOTAL)
    return Metric(name=name, at=at, tags=tags, count=len(values), total=total, buckets=buckets_of(values))


def added(histograms: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """The sum of histograms."""
    sums: dict[int, int] = {}
    for buckets in histograms:
        for bucket, number in buckets.items():
            sums[bucket] = sums.get(bucket, 0) + number
    return sums


def percentile(buckets: Mapping[int, int], ratio: float) -> float | None:
    """The value below which this ratio of the values lies, such as 0.95; within `ERROR` of the exact value of
    that rank. None: the histogram is empty. 0 for the lowest bucket."""
    rank = ratio * (sum(buckets.values()) - 1)
    below = 0
    for bucket in sorted(buckets):
        below += buckets[bucket]
        if below > max(0, rank):
            return 0.0 if bucket == LOWEST else 2 ** (bucket / BUCKETS_PER_DOUBLING) * _MIDDLE
    return None


# --- valid metrics ------------------------------------------------------------------------------


def check_metrics(metrics: Sequence[Metric]) -> None:
    """Raises InvalidValue for a metric that cannot be added up: a driver calls this before it stores any."""
    for metric in metrics:
        _check_text(metric.name, "name")
        _check_tags(metric.tags)
        if metric.at.tzinfo is None:
            raise InvalidValue(f"at is {shown(metric.at)}: expected a time with a timezone", path="at")
        if not _is_count(metric.count, MOST_COUNT):
            raise InvalidValue(f"count is {shown(metric.count)}: expected 0 to {MOST_COUNT}", path="count")
        if not (isinstance(metric.total, int | float) and 0 <= metric.total <= MOST_TOTAL):
            raise InvalidValue(
                f"total is {shown(metric.total)}: expected a number from 0 to {MOST_TOTAL:g}", path="total"
            )
        if not all(
            _is_count(number, MOST_COUNT) and type(bucket) is int and LOWEST <= bucket <= HIGHEST
            for bucket, number in metric.buckets.items()
        ):
            raise InvalidValue(
                f"buckets is {shown(metric.buckets)}: expected counts of buckets from {LOWEST} to {HIGHEST}, "
                "as buckets_of makes them",
                path="buckets",
            )


def _is_count(number: object, most: int) -> bool:
    return type(number) is int and 0 <= number <= most


def _check_tags(tags: Tags) -> None:
    names = [name for name, _ in tags]
    if len(tags) > MOST_TAGS or names != sorted(set(names)):
        raise InvalidValue(
            f"tags is {shown(tags)}: expected at most {MOST_TAGS} pairs of name and value, sorted by name, "
            "each name once",
            path="tags",
        )
    for pair in tags:
        for text in pair:
            _check_text(text, "tags")


def _check_text(text: object, path: str) -> None:
    if not (isinstance(text, str) and len(text) <= MOST_CHARACTERS and is_utf8(text)):
        raise InvalidValue(
            f"{path} is {shown(text)}: expected valid Unicode text of at most {MOST_CHARACTERS} characters",
            path=path,
        )
