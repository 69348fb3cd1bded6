"""What a worker says of its claims: renew and settle. Both are guarded by the token, in each half."""

from __future__ import annotations

from collections.abc import Sequence

from mrq_core import failpoints
from mrq_core.composed import tickets
from mrq_core.composed.jobs import Jobs
from mrq_core.contract.lifecycle import claim_number
from mrq_core.contract.messages import ClaimRef, Settlement
from mrq_core.contract.pair import Removal
from mrq_core.contract.record import Status
from mrq_core.drivers import replacing
from mrq_core.drivers.encoding import is_plain_success


def renew(jobs: Jobs, claims: Sequence[ClaimRef], lease: float) -> list[bool]:
    """See `Broker.renew`. The store knows the latest claim. A queue that has lost the entry of a running job,
    or has one of an older version, which starts nothing, is told."""
    answers = jobs.queue.renew(claims, lease)
    denied = [index for index, answer in enumerate(answers) if not answer]
    if denied:
        ids = [claims[index].id for index in denied]
        entries = jobs.queue.entries(ids)
        for index, stored, entry in zip(denied, jobs.store.read(ids), entries, strict=True):
            if entry is not None and claim_number(entry.token or "") > claim_number(claims[index].token):
                continue  # another worker is taking the job: the store is told of it next
            if stored is None or stored.record.status is not Status.STARTED:
                continue
            if stored.record.token == claims[index].token:
                [answers[index]] = jobs.queue.push([tickets.claimed_entry_of(stored)], lease)
    return [bool(answer) for answer in answers]


def settle(jobs: Jobs, settlements: Sequence[Settlement]) -> list[bool]:
    """See `Broker.settle`. Successes that concern nothing but the job in one call to each half; the others
    are read and written."""
    answers = [True] * len(settlements)
    simple: dict[str, int] = {}
    others: list[int] = []
    for index, settlement in enumerate(settlements):
        outcome = settlement.outcome
        if is_plain_success(outcome) and not outcome.followups and settlement.id not in simple:
            simple[settlement.id] = index
        else:
            others.append(index)
    if simple:
        others += _succeed(jobs, settlements, list(simple.values()))
    if others:
        others.sort()
        settled = replacing.settle(jobs, [settlements[index] for index in others])
        for index, accepted in zip(others, settled, strict=True):
            answers[index] = accepted
    return answers


def _succeed(jobs: Jobs, settlements: Sequence[Settlement], chosen: Sequence[int]) -> list[int]:
    """Writes what it may; answers with the places of the others."""
    written = jobs.store.succeed([settlements[index] for index in chosen], jobs.queue.now())
    failpoints.reach("composed.succeeded")
    done = [index for index, is_written in zip(chosen, written, strict=True) if is_written]
    if done:
        jobs.queue.remove(
            [Removal(id=settlements[index].id, token=settlements[index].token) for index in done]
        )
    return [index for index, is_written in zip(chosen, written, strict=True) if not is_written]
