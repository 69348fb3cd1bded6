"""Values of shared state as drivers store them. They may have been changed by hand.

A value that cannot be read is an item with the value None: the name stays known, and a pause stays a pause.
A version that cannot be read is 0, so that a compare-and-set of a name without a value writes the name anew.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from mrq_core.clock import from_ms
from mrq_core.contract import codec
from mrq_core.contract.codec import JsonValue
from mrq_core.contract.shared_state import StateItem


def item_of(namespace: str, name: str, data: Any, version: Any, expires_ms: Any) -> StateItem:
    """The item of a name. `data`: the value as JSON."""
    return StateItem(
        namespace=namespace,
        name=name,
        value=value_in(data),
        version=version_in(version),
        expires_at=_moment(expires_ms),
    )


def value_in(data: Any) -> JsonValue:
    """The value in JSON. None: the JSON cannot be read."""
    try:
        return codec.decode(data)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):
        return None


def version_in(version: Any) -> int:
    """A version. 0: the version cannot be read."""
    return version if type(version) is int and version > 0 else 0


def _moment(milliseconds: Any) -> datetime | None:
    try:
        return None if milliseconds is None else from_ms(milliseconds)
    except (TypeError, ValueError, OverflowError):
        return None
