"""Saved views: named queries that all users of a dashboard share."""

from __future__ import annotations

from datetime import datetime

import msgspec

from mrq_core.contract.broker import Broker
from mrq_core.errors import InvalidValue, shown
from mrq_core.operations.queries.query import parse_query

VIEWS_NAMESPACE = "views"
MOST = 100
"""The most saved views."""
_NAME_MAX = 100


class SavedView(msgspec.Struct, frozen=True, kw_only=True):
    """A query under a name. `query` is its canonical text."""

    name: str
    query: str
    saved_at: datetime


def saved_views(broker: Broker) -> list[SavedView]:
    """All saved views, by name. One read."""
    views = []
    for item in broker.state.list(VIEWS_NAMESPACE):
        try:
            views.append(msgspec.convert(item.value, SavedView))
        except msgspec.ValidationError:  # of another version
            continue
    return sorted(views, key=lambda view: view.name.casefold())


def save_view(broker: Broker, name: str, query: str) -> SavedView:
    """Saves a query. A view with this name is replaced; of two people who save one name, the last wins.

    Raises InvalidQuery, and InvalidValue for an invalid name and for more than 100 views.
    """
    name = name.strip()
    if not 0 < len(name) <= _NAME_MAX or not name.isprintable():
        raise InvalidValue(
            f"name is {shown(name)}: expected 1 to {_NAME_MAX} printable characters", path="name"
        )
    parsed = parse_query(broker, query)
    known = {item.name for item in broker.state.list(VIEWS_NAMESPACE)}
    if name not in known and len(known) >= MOST:
        raise InvalidValue(
            f"{len(known)} views are saved: expected at most {MOST}; delete one before you save another",
            path="name",
        )
    view = SavedView(name=name, query=parsed.text, saved_at=broker.now())
    broker.state.put(VIEWS_NAMESPACE, name, msgspec.to_builtins(view))
    return view


def delete_view(broker: Broker, name: str) -> bool:
    """Deletes a saved view. False: there was none with this name."""
    return broker.state.delete(VIEWS_NAMESPACE, [name])[0]
