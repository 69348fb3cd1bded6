"""The colors of pages have the contrast of WCAG 2.2 AA, light and dark."""

from __future__ import annotations

import re
from importlib import resources

import pytest

_STYLES = resources.files("mrq_dashboard").joinpath("static/style.css").read_text()
_LIGHT, _DARK = re.findall(r":root \{(.*?)\}", _STYLES, re.DOTALL)[:2]
_TEXTS = ("text", "muted", "accent", "good", "bad", "warn")
_GROUNDS = ("ground", "surface", "raised")


def colors(part: str) -> dict[str, str]:
    found = re.findall(r"--([\w-]+): (#[0-9a-f]+)", part)
    return {
        name: color if len(color) == 7 else "#" + "".join(2 * one for one in color[1:])
        for name, color in found
    }


def luminance(color: str) -> float:
    """The relative luminance of WCAG 2."""
    parts = [int(color[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("part", [_LIGHT, _DARK], ids=["light", "dark"])
def test_text_has_contrast(part: str) -> None:
    known = colors(part)
    pairs = [(text, ground) for text in _TEXTS for ground in _GROUNDS]
    pairs += [
        (text, f"{tone}-soft") for tone in ("bad", "warn", "accent") for text in ("text", "muted", "accent")
    ]
    pairs += [("bad", "bad-soft"), ("warn", "warn-soft"), ("on-accent", "accent")]
    low = {pair: round(contrast(known[pair[0]], known[pair[1]]), 2) for pair in pairs}
    assert {pair: value for pair, value in low.items() if value < 4.5} == {}


@pytest.mark.parametrize("part", [_LIGHT, _DARK], ids=["light", "dark"])
def test_charts_and_icons_have_contrast(part: str) -> None:
    known = colors(part)
    for color in ("chart-1", "chart-2", "chart-3", "good", "bad", "warn"):
        assert contrast(known[color], known["surface"]) >= 3, color


def test_animations_are_only_for_people_who_want_them() -> None:
    moving = re.sub(r"@media \(prefers-reduced-motion: no-preference\) \{.*?\} \}", "", _STYLES)
    assert "transition" not in moving
    assert "animation" not in moving
