"""`python -m tests.benchmarks.chart FILE.json`: draws the chart that belongs to the figures, as FILE.svg.

Bars of medians, the best first in each panel; a thin line goes from the least value to the most. The colours
follow the reader's light or dark scheme.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

from tests.benchmarks.workloads import DRAIN, IN_BULK, LATENCY, NAPS

WIDTH = 760
LABELS = 190
"""Where the bars begin."""
VALUES = 80
"""What is left free behind the longest bar, for its number."""
ROW = 22
BAR = 14
HEAD = 34
GAP = 18
PANELS = {
    DRAIN: "Jobs that do nothing, one worker: jobs a second",
    IN_BULK: "Enqueueing many jobs: jobs a second",
    NAPS: "Jobs that wait 0.1 s, 100 at a time: jobs a second (1,000 is ideal)",
    LATENCY: "From the enqueue to the start on an idle worker: milliseconds (shorter is better)",
}
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.head { font-weight: 600 }
.ours { fill: #0a6e5c } .peer { fill: #9aa4ae }
.spread { stroke: #24292f; stroke-width: 1 }
@media (prefers-color-scheme: dark) {
  text { fill: #d7dde3 }
  .ours { fill: #35c2a5 } .peer { fill: #6b7683 }
  .spread { stroke: #d7dde3 }
}
"""


class Bar(NamedTuple):
    """One system in one panel."""

    name: str
    is_ours: bool
    values: Sequence[float]

    @property
    def median(self) -> float:
        return statistics.median(self.values)


def drawn(document: Mapping[str, Any]) -> str:
    """The chart of what `--json` wrote, of the systems on Redis: an SVG document."""
    panels = {figure: bars for figure in PANELS if (bars := _bars(document, figure))}
    height = sum(HEAD + ROW * len(bars) + GAP for bars in panels.values())
    fastest = [f"{bars[0].name}: {_shown(bars[0].median)}" for bars in panels.values()]
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}"'
        f' height="{height}" role="img" aria-labelledby="title desc">',
        '<title id="title">mrq beside its peers, on Redis</title>',
        '<desc id="desc">Bar charts with the median of each system. The first bar of each: '
        + escape(
            "; ".join(f"{PANELS[figure]}, {first}" for figure, first in zip(panels, fastest, strict=True))
        )
        + ".</desc>",
        f"<style>{_STYLE}</style>",
    ]
    top = 0
    for figure, bars in panels.items():
        lines.append(f'<text class="head" x="0" y="{top + 20}">{escape(PANELS[figure])}</text>')
        lines += _rows(bars, top + HEAD)
        top += HEAD + ROW * len(bars) + GAP
    return "\n".join([*lines, "</svg>"]) + "\n"


def _bars(document: Mapping[str, Any], figure: str) -> list[Bar]:
    systems = document["systems"]
    values = document["values"].get(figure, {})
    bars = [
        Bar(name, systems[name]["is_ours"], found)
        for name, found in values.items()
        if systems[name]["store"] == "redis"
    ]
    return sorted(bars, key=lambda bar: bar.median, reverse=figure != LATENCY)


def _rows(bars: Sequence[Bar], top: float) -> Iterator[str]:
    scale = (WIDTH - LABELS - VALUES) / max(max(bar.values) for bar in bars)
    for row, bar in enumerate(bars):
        y = top + ROW * row
        middle = y + BAR / 2
        kind = "ours" if bar.is_ours else "peer"
        low, high = (LABELS + scale * value for value in (min(bar.values), max(bar.values)))
        yield f'<text x="{LABELS - 8}" y="{middle + 4.5:g}" text-anchor="end">{escape(bar.name)}</text>'
        yield (
            f'<rect class="{kind}" x="{LABELS}" y="{y}" width="{max(scale * bar.median, 1):.1f}"'
            f' height="{BAR}" rx="2"/>'
        )
        yield f'<path class="spread" d="M{low:.1f} {middle:g}H{high:.1f}"/>'
        yield f'<text x="{max(high, low + 1) + 6:.1f}" y="{middle + 4.5:g}">{_shown(bar.median)}</text>'


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 20 else f"{value:.1f}"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).with_suffix(".svg").write_text(drawn(json.loads(Path(name).read_text())))
