"""Raw queues of a broker that keeps whole jobs: their parameters, and the jobs that are made of them."""

from __future__ import annotations

from collections.abc import Sequence

from mrq_broker_redis import rows
from mrq_broker_redis.changes import Records
from mrq_broker_redis.connection import Connection
from mrq_broker_redis.rawlines import BATCH, RedisRawLine, proof_of
from mrq_core.contract import lifecycle
from mrq_core.contract.broker import RawQueue
from mrq_core.contract.messages import RawClaim, RawItem
from mrq_core.contract.record import JobRecord

_LOOK = 2
"""The script's answer where the record has to be looked at."""


class RedisRawQueue(RawQueue):
    """One raw queue."""

    def __init__(self, name: str, connection: Connection) -> None:
        self._line = RedisRawLine(name, connection)
        self._name = name
        self._connection = connection

    def admit(self, claims: Sequence[tuple[RawClaim, JobRecord]], lease: float) -> list[bool]:
        now, _ = Records(self._connection).read([])
        jobs = []
        for claim, record in claims:
            started = lifecycle.admitted(record, job_id=claim.job_id, token=claim.token, now=now, lease=lease)
            jobs.append([*proof_of(claim), rows.row_of(started), rows.params_of(started)])
        answers: list[int] = []
        for start in range(0, len(jobs), BATCH):
            part = jobs[start : start + BATCH]
            answers += self._connection.run(
                "raw_admit", [self._name, round(lease * 1000), part], repeatable=True
            )
        return self._with_admitted_before([claim for claim, _ in claims], answers)

    def _with_admitted_before(self, claims: Sequence[RawClaim], answers: list[int]) -> list[bool]:
        ids = [claim.job_id for claim, answer in zip(claims, answers, strict=True) if answer == _LOOK]
        stored = dict(zip(ids, Records(self._connection).read(ids)[1], strict=True)) if ids else {}
        return [
            answer == 1
            if answer != _LOOK
            else (found := stored[claim.job_id]) is not None
            and lifecycle.was_admitted_by(found.record, claim.token)
            for claim, answer in zip(claims, answers, strict=True)
        ]

    # --- the parameters ----------------------------------------------------------------------

    def push(self, items: Sequence[RawItem]) -> list[bool]:
        return self._line.push(items)

    def claim(self, limit: int, lease: float, worker: str, pushback: float | None = None) -> list[RawClaim]:
        return self._line.claim(limit, lease, worker, pushback)

    def renew(self, claims: Sequence[RawClaim], lease: float) -> list[bool]:
        return self._line.renew(claims, lease)

    def settle(self, claims: Sequence[RawClaim], due_again: Sequence[float | None]) -> list[bool]:
        return self._line.settle(claims, due_again)

    def peek(self, limit: int, offset: int = 0) -> list[RawItem]:
        return self._line.peek(limit, offset)

    def remove(self, params: Sequence[str]) -> list[bool]:
        return self._line.remove(params)

    def size(self) -> int:
        return self._line.size()

    def histogram(self, start: float, stop: float, buckets: int) -> list[int]:
        return self._line.histogram(start, stop, buckets)
