"""The page of queues."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from mrq_core.operations.queues import list_queues
from mrq_dashboard.visit import Page, Visit


class QueuesInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """The inputs of the page."""

    name: Annotated[str, Meta(max_length=1000, description="The queue or tree to show.")] = ""


def queues(visit: Visit, inputs: QueuesInputs) -> Page:
    """All queues, or one."""
    found = list_queues(visit.broker)
    return Page(template="queues/list.html", title="Queues", context={"found": found, "name": inputs.name})
