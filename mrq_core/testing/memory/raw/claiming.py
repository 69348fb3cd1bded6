"""Claims of parameters: their leases, renewal, settling, and admission as jobs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from msgspec.structs import replace

from mrq_core.clock import after
from mrq_core.contract.lifecycle import claim_number, make_token
from mrq_core.contract.messages import RawClaim, RawItem
from mrq_core.contract.naming import RawKind
from mrq_core.ids import new_id, new_nonce
from mrq_core.testing.memory.raw.parameters import RawItems


@dataclass(slots=True)
class Lease:
    """The lease of a claimed parameter, or of a parameter that was given back and keeps its job id."""

    claim: RawClaim
    until: datetime
    is_over: bool = False
    """The parameter was given back, and `until` is the time at which it is due."""


class RawClaims:
    """One raw queue: its waiting parameters, and the claims of parameters without a job."""

    def __init__(self, kind: RawKind) -> None:
        self.items = RawItems(kind)
        self.leases: dict[str, Lease] = {}
        """By job id."""
        self.admitted: set[RawClaim] = set()
        self._settled: set[RawClaim] = set()

    def has_due(self, now: datetime) -> bool:
        """Whether a claim would find a parameter."""
        return bool(self.items.due(now)) or any(lease.until <= now for lease in self.leases.values())

    def claim(self, limit: int, lease: float, now: datetime) -> list[RawClaim]:
        """Claims parameters with expired leases, by the end of the lease, then due parameters, which leave
        the waiting ones."""
        expired = sorted(
            (held for held in self.leases.values() if held.until <= now), key=lambda held: held.until
        )
        claims = []
        for held in expired[:limit]:
            again = replace(held.claim, token=_next_token(held.claim), redelivered=True)
            self.leases[again.job_id] = Lease(again, after(now, lease))
            claims.append(again)
        for item in self.items.due(now)[: limit - len(claims)]:
            claim = _first_claim(item)
            self.leases[claim.job_id] = Lease(claim, after(now, lease))
            self.items.take(item)
            claims.append(claim)
        return claims

    def visit(self, limit: int, pushback: float, now: datetime) -> list[RawClaim]:
        """Claims due parameters, which stay in their set and are due again `pushback` seconds later."""
        claims = []
        for item in self.items.due(now)[:limit]:
            claim = _first_claim(item)
            before = self.items.visits.get(item.param)
            if before is not None:
                claim = replace(claim, token=_next_token(before))
            self.items.visits[item.param] = claim
            self.items.push_back(item.param, after(now, pushback))
            claims.append(claim)
        return claims

    def holds(self, claim: RawClaim) -> bool:
        """Whether the claim is the latest of its parameter, and neither settled nor admitted."""
        if claim in self._settled or claim in self.admitted:
            return False
        held = self.leases.get(claim.job_id)
        if held is not None:
            return held.claim == claim and not held.is_over
        return self.items.visits.get(claim.param) == claim

    def renew(self, claim: RawClaim, until: datetime) -> bool:
        """Extends the lease. A parameter that stayed in its set is not due before `until`."""
        if not self.holds(claim):
            return False
        held = self.leases.get(claim.job_id)
        if held is not None:
            held.until = until
            return True
        due_time = self.items.due_time(claim.param)
        if due_time is None:
            return False
        if due_time < until.timestamp():
            self.items.push_back(claim.param, until)
        return True

    def settle(self, claim: RawClaim, due_at: datetime | None) -> bool:
        """Drops the parameter, or makes it due again at `due_at`."""
        if claim in self._settled:
            return True
        if not self.holds(claim):
            return False
        self._settled.add(claim)
        if claim.job_id not in self.leases:
            if due_at is None:
                self.items.remove(claim.param)
            else:
                self.items.push_back(claim.param, due_at)
        elif due_at is None:
            del self.leases[claim.job_id]
        else:
            self.leases[claim.job_id] = Lease(claim, due_at, is_over=True)
        return True

    def admit(self, claim: RawClaim) -> None:
        """Drops the lease of a claim that becomes a job."""
        self.admitted.add(claim)
        self.leases.pop(claim.job_id, None)


def _first_claim(item: RawItem) -> RawClaim:
    return RawClaim(param=item.param, job_id=new_id(), token=make_token(1, new_nonce()), score=item.score)


def _next_token(before: RawClaim) -> str:
    return make_token(claim_number(before.token) + 1, new_nonce())
