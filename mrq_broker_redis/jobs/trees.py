"""Trees of subqueues: the rotation of claims, and queues and trees as arguments of scripts.

The scripts resolve trees; see lua/jobs/trees.lua.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mrq_core.contract.messages import Wanted


@dataclass(slots=True, kw_only=True)
class Rotation:
    """Where the next claim of this process continues, in trees and among parked jobs. Its loss costs little
    fairness, and only for a short time."""

    trees: dict[str, str] = field(default_factory=dict)
    parked: str = ""
    swept_ms: int = 0

    def note(self, now_ms: int, trees: Sequence[bytes], parked: bytes, swept: int) -> None:
        """Stores the answer of a claim."""
        names = [name.decode() for name in trees]
        self.trees.update(zip(names[::2], names[1::2], strict=True))
        self.parked = parked.decode()
        if swept:
            self.swept_ms = now_ms


def wanted_as_list(wanted: Sequence[Wanted]) -> list[list[object]]:
    """Queues and trees as arguments of a script."""
    return [
        [one.name, -1 if one.quota is None else one.quota, one.reverse, sorted(one.exclude)] for one in wanted
    ]
