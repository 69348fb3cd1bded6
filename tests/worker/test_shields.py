"""Code that interrupts must not reach."""

from __future__ import annotations

import threading

import pytest

from mrq_core.errors import TimeoutInterrupt
from tests.worker.records import execution


def test_a_shield_holds_an_interrupt_back_until_it_is_left() -> None:
    context = execution().context
    context.in_code = True
    interrupt = TimeoutInterrupt("too long")
    reached: list[str] = []

    def shielded_code() -> None:
        with context.shield():
            with context.shield():
                assert not context.accept(interrupt, threading.get_ident())
            reached.append("left the inner shield")
        reached.append("left the outer shield")

    with pytest.raises(TimeoutInterrupt):
        shielded_code()
    assert reached == ["left the inner shield"]
    assert context.accept(interrupt, threading.get_ident())
    context.in_code = False
    assert not context.accept(interrupt, threading.get_ident())
