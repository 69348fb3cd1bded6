"""Lost claims: started jobs whose lease has expired.

The script of a claim reports them as suspects (`lua/jobs/claiming.lua`, `lua/jobs/claim.lua`), and
`lifecycle.after_lost_claim` says which jobs end. Where the records are in another store, the same is in
`mrq_core/composed/claiming.py`.
"""

from __future__ import annotations

from mrq_broker_redis.jobs.changing import Records
from mrq_broker_redis.jobs.records import Stored
from mrq_broker_redis.server.connection import Connection
from mrq_core.contract import lifecycle
from mrq_core.contract.messages import ClaimRequest
from mrq_core.contract.pair import Replacement, WriteResult
from mrq_core.contract.record import JobRecord
from mrq_core.drivers.limits import rules_of
from mrq_core.ids import new_nonce


class LostClaims:
    """The suspects that one claim has found.

    Each job is written only if it is unchanged since it was read, because another worker may have claimed,
    renewed or settled it meanwhile.
    """

    def __init__(self, connection: Connection, request: ClaimRequest, ids: list[str]) -> None:
        self._records = Records(connection)
        self._request = request
        self._now, stored = self._records.read(ids)
        self._suspects: list[Stored] = []
        self.ended: list[JobRecord] = []
        self._end([one for one in stored if one is not None])

    def _end(self, stored: list[Stored]) -> None:
        """Ends the jobs that must not run again. The others may be claimed."""
        planned = []
        for one in stored:
            if one.record.lease_until is None or one.record.lease_until > self._now:
                continue
            after = lifecycle.after_lost_claim(one.record, self._request, self._now)
            if after is None:
                self._suspects.append(one)
            else:
                planned.append((one, after))
        self.ended = self._write(planned)

    def take(self, most: int) -> list[JobRecord]:
        """Claims up to `most` suspects whose limits have room."""
        taken: list[JobRecord] = []
        while self._suspects and len(taken) < most:
            room = most - len(taken)
            chosen, self._suspects = self._suspects[:room], self._suspects[room:]
            request = self._request
            taken += self._write(
                [
                    (
                        one,
                        lifecycle.claimed(
                            one.record,
                            now=self._now,
                            worker=request.worker,
                            nonce=new_nonce(),
                            lease=request.lease,
                        ),
                    )
                    for one in chosen
                ]
            )
        return taken

    def _write(self, planned: list[tuple[Stored, JobRecord]]) -> list[JobRecord]:
        """Returns the written records."""
        replacements = [Replacement(before, after) for before, after in planned]
        answers = self._records.write(replacements, self._now, rules_of(self._request))
        return [
            after for (_, after), answer in zip(planned, answers, strict=True) if answer is WriteResult.DONE
        ]
