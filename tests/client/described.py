"""Tasks to describe, whose annotations are text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mrq_core import task

if TYPE_CHECKING:
    from decimal import Decimal


@task
def late(number: int, names: list[str] | None = None) -> None:
    """Annotations as text."""


@task
def missing(price: Decimal) -> None:
    """An annotation that does not exist when the task runs."""
