"""What another process does between two calls of one, done there and then."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mrq_core import failpoints


def at(monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[], object]) -> None:
    """Acts once, at the place of that name."""
    left = [act]

    def hook(reached: str) -> None:
        if reached == name and left:
            left.pop()()

    monkeypatch.setattr(failpoints, "hook", hook)
