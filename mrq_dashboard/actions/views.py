"""Saves and deletes views: queries with names."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from mrq_core.operations.queries.saved_views import delete_view, save_view
from mrq_core.operations.views import struct_view
from mrq_dashboard.inputs import QueryText
from mrq_dashboard.visit import Done, NotFound, Visit

Name = Annotated[str, Meta(min_length=1, max_length=100, description="The name of the view.")]


class ViewInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """A view to save."""

    name: Name
    query: QueryText = ""


class ViewName(Struct, frozen=True, forbid_unknown_fields=True):
    """A view to delete."""

    name: Name


def save(visit: Visit, inputs: ViewInputs) -> Done:
    """Saves a query under a name, for all visitors. Replaces a view with this name."""
    view = save_view(visit.broker, inputs.name, inputs.query)
    text = f"The query is saved as {view.name}"
    url = visit.url("/jobs", q=view.query)
    return Done(action="save view", target=view.name, text=text, value=struct_view(view), url=url)


def delete(visit: Visit, inputs: ViewName) -> Done:
    """Deletes a saved view."""
    if not delete_view(visit.broker, inputs.name):
        raise NotFound(f"there is no saved view {inputs.name}")
    text = f"The view {inputs.name} is deleted"
    return Done(action="delete view", target=inputs.name, text=text, value={"deleted": inputs.name})
