"""The state machine with raw queues: pushes, claims, admits, settles and crashes between them."""

from __future__ import annotations

from typing import Any, NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, multiple, rule
from msgspec.structs import replace

from mrq_core.contract.lifecycle import claim_number
from mrq_core.contract.messages import RawClaim, RawItem
from mrq_core.testing.conformance.machine import JobMachine
from mrq_core.testing.conformance.machine_kit import LEASE, WORKERS, Pair

RAW_QUEUES = ("r_raw", "r_set", "r_sorted_set", "r_timed_set")


class RawPair(NamedTuple):
    """One claim of one parameter, as the driver gave it and as the model did."""

    queue: str
    ours: RawClaim
    models: RawClaim


class RawMachine(JobMachine):
    """Adds parameters and their claims to the history. The jobs made of them are in the queue ``jobs``."""

    raw_claims: Bundle[RawPair] = Bundle("raw_claims")

    @rule(
        queue=st.sampled_from(RAW_QUEUES),
        params=st.lists(st.sampled_from(["p", "q", "r"]), min_size=1, max_size=3),
        seconds=st.sampled_from([-10, 0, 20]),
    )
    def push_raw(self, queue: str, params: list[str], seconds: int) -> None:
        items = []
        for param in params:
            self.number += 1
            # Scores differ from each other: which of two equal ones comes first is the driver's choice.
            score = self.clock.now_ms() / 1000 + seconds - 1 + self.number / 100_000
            if queue == "r_raw":
                param = f"{param}{self.number}"
            items.append(RawItem(param=param, score=score))
        self.same(lambda broker: broker.raw(queue).push(items))

    @rule(target=raw_claims, queue=st.sampled_from(RAW_QUEUES), worker=st.sampled_from(WORKERS))
    def claim_raw(self, queue: str, worker: str) -> Any:
        # All that is due: which parameter of a set comes first is the driver's choice.
        claims = [broker.raw(queue).claim(100, LEASE, worker) for broker in (self.driver, self.model)]
        ours, models = (sorted(claimed, key=_shown) for claimed in claims)
        assert list(map(_shown, ours)) == list(map(_shown, models))
        return multiple(*[RawPair(queue, *pair) for pair in zip(ours, models, strict=True)])

    @rule(target=JobMachine.claims, queue=st.sampled_from(["r_raw", "r_timed_set"]))
    def claim_and_admit_raw(self, queue: str) -> Any:
        """What a worker does; a crash may follow, or the settle of the job."""
        # First all that is due: of leases that have ended at one time, either may come first.
        self.claim_raw(queue=queue, worker="w2")
        item = RawItem(param=f"new {self.number}", score=0.0)
        self.same(lambda broker: broker.raw(queue).push([item]))
        claims = [broker.raw(queue).claim(1, LEASE, "w1") for broker in (self.driver, self.model)]
        assert list(map(_shown, claims[0])) == list(map(_shown, claims[1]))
        return self.admit_raw(RawPair(queue, claims[0][0], claims[1][0]), "w1")

    @rule(target=JobMachine.claims, pair=raw_claims, worker=st.sampled_from(WORKERS))
    def admit_raw(self, pair: RawPair, worker: str) -> Any:
        record = self.new_record("jobs", worker=worker, raw_queue=pair.queue)
        answers = []
        for broker, claim in ((self.driver, pair.ours), (self.model, pair.models)):
            answers += broker.raw(pair.queue).admit([(claim, replace(record, id=claim.job_id))], LEASE)
        assert answers[0] == answers[1]
        if not answers[0]:
            return multiple()
        self.note(pair.models.job_id, pair.ours.job_id)
        [ours], [models] = self.driver.get([pair.ours.job_id]), self.model.get([pair.models.job_id])
        if ours is None or models is None:
            assert ours is models
            return multiple()
        assert self.plain(ours) == self.plain(models)
        return Pair(ours, models)

    @rule(pair=raw_claims, how=st.sampled_from([None, 0.0, 15.0, "renew", "remove"]))
    def settle_or_renew_raw(self, pair: RawPair, how: Any) -> None:
        ours, models = self.driver.raw(pair.queue), self.model.raw(pair.queue)
        if how == "renew":
            assert ours.renew([pair.ours], LEASE) == models.renew([pair.models], LEASE)
        elif how == "remove":
            assert ours.remove([pair.ours.param]) == models.remove([pair.models.param])
        else:
            assert ours.settle([pair.ours], [how]) == models.settle([pair.models], [how])


def _shown(claim: RawClaim) -> tuple[str, int, bool]:
    """What the contract says of a claim: not its id and nonce."""
    return claim.param, claim_number(claim.token), claim.redelivered
