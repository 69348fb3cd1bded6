"""The parameters of one raw queue: those that wait, and those that are claimed without a job yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from msgspec.structs import replace

from mrq_core.clock import after
from mrq_core.contract.lifecycle import claim_number, make_token
from mrq_core.contract.messages import RawClaim, RawItem
from mrq_core.contract.naming import RawKind
from mrq_core.ids import new_id, new_nonce


@dataclass(slots=True)
class Lease:
    """A claimed parameter, or one that was given back and waits to be claimed again under its job id."""

    claim: RawClaim
    until: datetime
    is_over: bool = False
    """Whether it was given back: then `until` says when it is due."""


class RawItems:
    """What one raw queue holds. A list of items in the order in which they came."""

    def __init__(self, kind: RawKind) -> None:
        self.kind = kind
        self.waiting: list[RawItem] = []
        self.leases: dict[str, Lease] = {}
        """By job id."""
        self.visits: dict[str, RawClaim] = {}
        """By parameter: the latest claim that left it in the set."""
        self.settled: set[RawClaim] = set()
        self.admitted: set[RawClaim] = set()

    @property
    def has_scores(self) -> bool:
        return self.kind in (RawKind.SORTED_SET, RawKind.TIMED_SET)

    def has_due(self, now: datetime) -> bool:
        """Whether a claim would find something."""
        return bool(self._line(now)) or any(lease.until <= now for lease in self.leases.values())

    def push(self, item: RawItem, now: datetime) -> bool:
        """Adds the item; in a set, in place of the one with this parameter."""
        score = item.score
        if not self.has_scores:
            score = None
        elif score is None:
            score = now.timestamp() if self.kind is RawKind.TIMED_SET else 0.0
        item = RawItem(param=item.param, score=score)
        place = self._place(item.param)
        if self.kind is RawKind.LIST or place is None:
            self.waiting.append(item)
            return True
        self.waiting[place] = item
        return False

    def claim(self, limit: int, lease: float, now: datetime) -> list[RawClaim]:
        """Expired leases first, by their end, then what is due; all of it leaves the line."""
        over = sorted(
            (held for held in self.leases.values() if held.until <= now), key=lambda held: held.until
        )
        claims = []
        for held in over[:limit]:
            again = replace(
                held.claim,
                token=make_token(claim_number(held.claim.token) + 1, new_nonce()),
                redelivered=True,
            )
            self.leases[again.job_id] = Lease(again, after(now, lease))
            claims.append(again)
        for item in self._line(now)[: limit - len(claims)]:
            claim = _first_claim(item)
            self.leases[claim.job_id] = Lease(claim, after(now, lease))
            self.waiting.remove(item)
            claims.append(claim)
        return claims

    def visit(self, limit: int, pushback: float, now: datetime) -> list[RawClaim]:
        """What is due; it stays in the set, due again later."""
        claims = []
        for item in self._line(now)[:limit]:
            claim = _first_claim(item)
            before = self.visits.get(item.param)
            if before is not None:
                claim = replace(claim, token=make_token(claim_number(before.token) + 1, new_nonce()))
            self.visits[item.param] = claim
            self._set_score(item.param, after(now, pushback))
            claims.append(claim)
        return claims

    def holds(self, claim: RawClaim) -> bool:
        """Whether the claim is the latest of its parameter, and neither settled nor admitted."""
        if claim in self.settled or claim in self.admitted:
            return False
        held = self.leases.get(claim.job_id)
        if held is not None:
            return held.claim == claim and not held.is_over
        return self.visits.get(claim.param) == claim

    def renew(self, claim: RawClaim, until: datetime) -> bool:
        """Moves the end of the lease; a parameter that stayed in the set is not due before it."""
        if not self.holds(claim):
            return False
        held = self.leases.get(claim.job_id)
        if held is not None:
            held.until = until
            return True
        place = self._place(claim.param)
        if place is None:
            return False
        if (self.waiting[place].score or 0.0) < until.timestamp():
            self._set_score(claim.param, until)
        return True

    def settle(self, claim: RawClaim, due_at: datetime | None) -> bool:
        """Drops the parameter, or lets it wait until it is due again."""
        if claim in self.settled:
            return True
        if not self.holds(claim):
            return False
        self.settled.add(claim)
        if claim.job_id not in self.leases:
            if due_at is None:
                self.remove(claim.param)
            else:
                self._set_score(claim.param, due_at)
        elif due_at is None:
            del self.leases[claim.job_id]
        else:
            self.leases[claim.job_id] = Lease(claim, due_at, is_over=True)
        return True

    def admit(self, claim: RawClaim) -> None:
        """The claim has a job now."""
        self.admitted.add(claim)
        self.leases.pop(claim.job_id, None)

    def remove(self, param: str) -> bool:
        """Takes the first waiting item with the parameter away."""
        place = self._place(param)
        if place is None:
            return False
        del self.waiting[place]
        self.visits.pop(param, None)
        return True

    def in_line(self) -> list[RawItem]:
        """What waits, in the order of claims."""
        if self.has_scores:
            return sorted(self.waiting, key=lambda item: item.score or 0.0)
        return list(self.waiting)

    def histogram(self, start: float, stop: float, buckets: int) -> list[int]:
        """How many scores lie in each part; the end of a part belongs to the next."""
        numbers = [0] * buckets
        for item in self.waiting:
            if item.score is not None and start <= item.score < stop:
                part = int((item.score - start) / (stop - start) * buckets)
                numbers[min(part, buckets - 1)] += 1
        return numbers

    def _line(self, now: datetime) -> Sequence[RawItem]:
        line = self.in_line()
        if self.kind is RawKind.TIMED_SET:
            return [item for item in line if (item.score or 0.0) <= now.timestamp()]
        return line

    def _place(self, param: str) -> int | None:
        return next((place for place, item in enumerate(self.waiting) if item.param == param), None)

    def _set_score(self, param: str, due_at: datetime) -> None:
        place = self._place(param)
        if place is not None:
            self.waiting[place] = RawItem(param=param, score=due_at.timestamp())


def _first_claim(item: RawItem) -> RawClaim:
    return RawClaim(param=item.param, job_id=new_id(), token=make_token(1, new_nonce()), score=item.score)
