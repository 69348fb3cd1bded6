"""The geometry of charts."""

from __future__ import annotations

import pytest

from mrq_dashboard.charts import bar_chart, line_chart, nice_above, sparkline
from mrq_dashboard.formats import bounded, rate


@pytest.mark.parametrize(
    ("value", "above"), [(0.7, 1), (1, 1), (1.1, 2), (23, 25), (26, 50), (51, 100), (1001, 2000)]
)
def test_axes_end_at_round_numbers(value: float, above: float) -> None:
    assert nice_above(value) == pytest.approx(above)


def test_a_sparkline_begins_at_the_left_and_ends_at_the_right() -> None:
    curve = sparkline([0, 5, 10])
    assert curve is not None
    assert curve.points == ("0,100 300,50 600,0",)
    assert curve.areas == ("0,100 0,100 300,50 600,0 600,100",)


@pytest.mark.parametrize("values", [[], [1], [0, 0], [None, None], [None, 3]])
def test_a_sparkline_needs_two_values(values: list[float | None]) -> None:
    assert sparkline(values) is None


def test_a_line_has_a_gap_where_nothing_was_measured() -> None:
    chart = line_chart([[1.0, 2.0, None, 4.0]], ["a", "b"], rate)
    assert chart is not None
    [curve] = chart.curves
    assert curve.points == ("0,80 200,60", "600,20 601,20")
    assert chart.ticks == ("5/s", "2.5/s", "0")


def test_bars_stand_on_each_other() -> None:
    chart = bar_chart([[3, 1], [0, 2]], ["first", "second"], ["then", "now"])
    assert chart is not None
    assert [(bar.series, bar.y, bar.height, bar.title) for bar in chart.bars] == [
        (1, 40.0, 60.0, "first"),
        (2, 20.0, 20.0, "first"),
        (2, 60.0, 40.0, "second"),
    ]
    assert chart.bars[2].x > 300
    assert bar_chart([[0], [0]], ["", ""], []) is None
    assert line_chart([[None], []], [], rate) is None


def test_a_text_is_cut_and_says_by_how_much() -> None:
    assert bounded("x" * 10, 4) == ("xxxx", 6)
    assert bounded("x", 4) == ("x", 0)
