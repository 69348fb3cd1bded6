"""What helps to write a query: suggestions."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from mrq_core.contract.codec import JsonObject, JsonValue
from mrq_core.operations.queries.suggestions import suggestions
from mrq_dashboard.inputs import QueryText
from mrq_dashboard.visit import Visit


class SuggestionsInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """The query, and where its writer is."""

    text: QueryText = ""
    position: Annotated[
        int | None, Meta(description="The number of characters before the cursor; the end if left out.")
    ] = None


def suggest(visit: Visit, inputs: SuggestionsInputs) -> JsonObject:
    """Suggests texts for the part at a position of a query: each replaces the characters from `start` to
    `end`."""
    found: list[JsonValue] = [
        {"text": one.text, "kind": one.kind, "detail": one.detail, "start": one.start, "end": one.end}
        for one in suggestions(visit.broker, inputs.text, inputs.position)
    ]
    return {"suggestions": found}
