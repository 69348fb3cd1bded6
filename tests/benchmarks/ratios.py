"""What is promised as a ratio: of figures of the same run; of these the median, the least and the most."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

from tests.benchmarks import ours

Values = Mapping[str, Sequence[float]]


def ratios(values: Values) -> dict[str, list[float]]:
    """By what they say: one of each run."""
    return {
        title: [mine / other for mine, other in zip(values[figure], values[against], strict=True)]
        for title, figure, against in _pairs(values)
        if figure in values and against in values
    }


def print_ratios(found: Values) -> None:
    """One a line."""
    print()
    for title, each in found.items():
        print(f"{title}: {statistics.median(each):.2f} times ({min(each):.2f} to {max(each):.2f})")


def _pairs(values: Values) -> Iterator[tuple[str, str, str]]:
    """What is said, the figure, and the one that it is divided by."""
    for broker in ours.BROKERS:
        one = f"{broker}: drain, 1 process of {ours.BATCH} greenlets (jobs/s)"
        two = f"{broker}: drain, 2 processes of {ours.BATCH} greenlets (jobs/s)"
        kind = broker.partition(" ")[0]
        where = {"sqlite": "SQLite", "redis": "Redis"}.get(kind, "nothing")
        for figure in values:
            if f" on {where}, drain" in figure:
                peer = figure.removesuffix(" (jobs/s)").replace(", drain", "")
                yield f"{broker}: drain against {peer}", one, figure
        yield f"{broker}: drain of two processes against one", two, one
        if kind == "redis":
            bulk = f"{broker}: enqueue, in bulk (jobs/s)"
            yield f"{broker}: enqueue in bulk against RQ", bulk, "RQ on Redis, enqueue (jobs/s)"
        claims = [figure for figure in values if figure.startswith(f"{broker}: claim, ")]
        if len(claims) > 1:
            yield f"{broker}: claim of the largest queue against the smallest", claims[-1], claims[0]
