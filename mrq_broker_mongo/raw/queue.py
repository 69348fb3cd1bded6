"""Raw queues. `parameters` describes their documents."""

from __future__ import annotations

from collections.abc import Sequence

from mrq_broker_mongo.raw import claiming, parameters
from mrq_broker_mongo.server.connection import Connection
from mrq_core.contract.messages import RawClaim, RawItem
from mrq_core.contract.raw import RawQueue
from mrq_core.contract.record import JobRecord
from mrq_core.drivers.answers import names_unreadable_answers
from mrq_core.drivers.raw_arguments import checks_raw_arguments


@checks_raw_arguments
@names_unreadable_answers()
class MongoRawQueue(RawQueue):
    """One raw queue. A plain set returns its parameters in the order of their arrival."""

    def __init__(self, name: str, connection: Connection) -> None:
        super().__init__(name)
        self._connection = connection

    def push(self, items: Sequence[RawItem]) -> list[bool]:
        return parameters.push(self._connection, self.name, self.kind, items)

    def claim(self, limit: int, lease: float, worker: str, pushback: float | None = None) -> list[RawClaim]:
        return claiming.claim(self._connection, self.name, self.kind, limit, lease, pushback)

    def admit(self, claims: Sequence[tuple[RawClaim, JobRecord]], lease: float) -> list[bool]:
        return claiming.admit(self._connection, self.name, claims, lease)

    def renew(self, claims: Sequence[RawClaim], lease: float) -> list[bool]:
        return claiming.renew(self._connection, self.name, claims, lease)

    def settle(self, claims: Sequence[RawClaim], due_again: Sequence[float | None]) -> list[bool]:
        return claiming.settle(self._connection, self.name, claims, due_again)

    def peek(self, limit: int, offset: int = 0) -> list[RawItem]:
        return parameters.peek(self._connection, self.name, self.kind, limit, offset)

    def remove(self, params: Sequence[str]) -> list[bool]:
        return parameters.remove(self._connection, self.name, self.kind, params)

    def size(self) -> int:
        return parameters.size(self._connection, self.name)

    def histogram(self, start: float, stop: float, buckets: int) -> list[int]:
        return parameters.histogram(self._connection, self.name, self.kind, start, stop, buckets)
