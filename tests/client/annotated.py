"""Tasks whose annotations are harder to resolve."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from mrq_core.tasks.task import task

if TYPE_CHECKING:
    from decimal import Decimal


@dataclasses.dataclass
class Address:
    street: str
    number: int = 1


@task
def rich(
    when: datetime,
    to: Address,
    kind: Literal["a", "b"] = "a",
    *,
    maybe: int | None = None,
    tags: list[str] = [],  # noqa: B006 - the default of the task, which must reach it unchanged
    **more: object,
) -> dict[str, object]:
    return {"day": when.day, "street": to.street, "kind": kind, "maybe": maybe, "more": list(more)}


@task
def unresolvable(amount: Decimal) -> None:
    return None


@task
def returns_unresolvable(amount: int) -> Decimal:
    raise NotImplementedError
