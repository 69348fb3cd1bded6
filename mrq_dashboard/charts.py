"""The geometry of charts that templates draw as inline SVG: in a plane of WIDTH by HEIGHT, y downwards."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mrq_dashboard.formats import short_number

WIDTH, HEIGHT = 600.0, 100.0
_GAP = 0.2
"""The share of a bar's room that stays free."""


class Curve(NamedTuple):
    """A line through the values: the `points` of a polyline, one for each part without a gap, and the
    polygons below them. `series` counts from 1."""

    points: tuple[str, ...]
    areas: tuple[str, ...]
    series: int = 1


class Bar(NamedTuple):
    """One bar, with a title in words. `series` counts from 1."""

    x: float
    y: float
    width: float
    height: float
    title: str
    series: int = 1


class Chart(NamedTuple):
    """A chart with its labels: `ticks` from top to bottom, `times` from left to right."""

    ticks: tuple[str, ...]
    times: tuple[str, ...]
    bars: tuple[Bar, ...] = ()
    curves: tuple[Curve, ...] = ()


def sparkline(values: Sequence[float | None]) -> Curve | None:
    """A line without axes. None: there are fewer than two values, or all are 0."""
    known = [value for value in values if value is not None]
    if len(known) < 2 or not any(known):
        return None
    return _curve(values, max(known))


def bar_chart(
    stacks: Sequence[Sequence[float]],
    titles: Sequence[str],
    times: Sequence[str],
    label: Callable[[float], str] = short_number,
) -> Chart | None:
    """Stacked bars: each item of `stacks` has the values of one bar from below. None: all are 0."""
    highest = max((sum(stack) for stack in stacks), default=0.0)
    if not highest:
        return None
    top = nice_above(highest)
    room = WIDTH / len(stacks)
    bars = []
    for index, (stack, title) in enumerate(zip(stacks, titles, strict=True)):
        below = 0.0
        for series, value in enumerate(stack, start=1):
            if value:
                height = max(1.0, value / top * HEIGHT)
                x, y = room * (index + _GAP / 2), HEIGHT - below / top * HEIGHT - height
                bars.append(
                    Bar(
                        round(x, 2), round(y, 2), round(room * (1 - _GAP), 2), round(height, 2), title, series
                    )
                )
                below += value
    return Chart(_ticks(top, label), tuple(times), bars=tuple(bars))


def line_chart(
    series: Sequence[Sequence[float | None]], times: Sequence[str], label: Callable[[float], str]
) -> Chart | None:
    """Lines over the same times. None: there are no values."""
    highest = max((value for values in series for value in values if value is not None), default=None)
    if highest is None:
        return None
    top = nice_above(highest or 1.0)
    curves = tuple(_curve(values, top, number) for number, values in enumerate(series, start=1))
    return Chart(_ticks(top, label), tuple(times), curves=curves)


def nice_above(value: float) -> float:
    """The smallest of 1, 2, 2.5, 5 and 10 times a power of ten that is not below the value."""
    power = 10.0 ** math.floor(math.log10(value))
    return next((factor * power for factor in (1.0, 2.0, 2.5, 5.0) if factor * power >= value), 10 * power)


def _ticks(top: float, label: Callable[[float], str]) -> tuple[str, ...]:
    middle = top / 2
    return (label(top), label(middle) if top >= 2 or label is not short_number else "", "0")


def _curve(values: Sequence[float | None], top: float, series: int = 1) -> Curve:
    step = WIDTH / max(1, len(values) - 1)
    parts: list[list[tuple[float, float]]] = [[]]
    for index, value in enumerate(values):
        if value is None:
            parts.append([])
        else:
            parts[-1].append((round(index * step, 1), round(HEIGHT - value / top * HEIGHT, 1)))
    drawn = [part if len(part) > 1 else [*part, (part[0][0] + 1, part[0][1])] for part in parts if part]
    points = [" ".join(f"{x:g},{y:g}" for x, y in part) for part in drawn]
    areas = [
        f"{part[0][0]:g},{HEIGHT:g} {text} {part[-1][0]:g},{HEIGHT:g}"
        for part, text in zip(drawn, points, strict=True)
    ]
    return Curve(tuple(points), tuple(areas), series)
