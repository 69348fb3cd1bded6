"""Limit rules as arguments of scripts.

The scripts count slots and keep rates; see lua/jobs/slots.lua and lua/jobs/limits.lua.
"""

from __future__ import annotations

from collections.abc import Mapping

from mrq_core.contract.messages import Limit
from mrq_core.drivers.limits import spacing_of


def limits_as_map(limits: Mapping[str, Limit]) -> dict[str, list[int]]:
    """Limit rules by name, as arguments of a script."""
    return {name: _limit(limit) for name, limit in limits.items()}


def _limit(limit: Limit) -> list[int]:
    """The concurrency, the time between two claims, and how much earlier a burst may come, in
    microseconds."""
    return [-1 if limit.concurrency is None else limit.concurrency, *(spacing_of(limit) or (0, 0))]
