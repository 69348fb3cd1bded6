"""What a claim, of jobs or of entries, asks the server for, and where the next one goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mrq_core.contract.messages import ClaimRequest, Limit, Wanted
from mrq_core.drivers.limits import spacing_of

SWEEP_MS = 1000
"""How often a claim that took all that it could looks for parked jobs with room nevertheless."""


@dataclass(slots=True, kw_only=True)
class Turns:
    """Where the next claim goes on, in trees and among parked jobs. A process's own: losing it costs no
    fairness for long."""

    trees: dict[str, str] = field(default_factory=dict)
    parked: str = ""
    swept_ms: int = 0

    def note(self, now_ms: int, trees: Sequence[bytes], parked: bytes, swept: int) -> None:
        """What a claim has answered."""
        names = [name.decode() for name in trees]
        self.trees.update(zip(names[::2], names[1::2], strict=True))
        self.parked = parked.decode()
        if swept:
            self.swept_ms = now_ms


def arguments(
    request: ClaimRequest, turns: Turns, nonce: str, *, limit: int, leave_suspects: bool
) -> list[object]:
    """The arguments of a claim, as lua/claiming.lua lists them."""
    return [
        request.worker,
        limit,
        round(request.lease * 1000),
        request.idle,
        wanted_as_list(request.wanted),
        limits_as_map(request.limits),
        nonce,
        {one.name: turns.trees.get(one.name, "") for one in request.wanted if one.name.endswith("/")},
        turns.parked,
        SWEEP_MS,
        turns.swept_ms,
        leave_suspects,
    ]


def wanted_as_list(wanted: Sequence[Wanted]) -> list[list[object]]:
    """Queues and trees as the scripts take them."""
    return [
        [one.name, -1 if one.quota is None else one.quota, one.reverse, sorted(one.exclude)] for one in wanted
    ]


def limits_as_map(limits: Mapping[str, Limit]) -> dict[str, list[int]]:
    """Rules by their names as the scripts take them."""
    return {name: _limit(limit) for name, limit in limits.items()}


def _limit(limit: Limit) -> list[int]:
    """Concurrency; time between two claims, and how much earlier a burst may come, in microseconds."""
    return [-1 if limit.concurrency is None else limit.concurrency, *(spacing_of(limit) or (0, 0))]
