"""The contract of raw queues. The rules of `mrq_core.contract.broker` hold for every method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from mrq_core.contract.messages import RawClaim, RawItem
from mrq_core.contract.naming import check_raw_queue_name
from mrq_core.contract.record import JobRecord


class RawParameters(ABC):
    """The parameters of a raw queue, which holds parameters instead of jobs. A job exists from the claim on.

    The suffix of the queue's root name gives the kind: a list (``_raw``), a set (``_set``:
    each parameter once), a set ordered by score (``_sorted_set``), or a set ordered by the Unix time from
    which a parameter is due (``_timed_set``). A score is a finite number, and in a timed set a time of the
    years 1 to 9999.

    Every method raises InvalidValue for a value that it cannot use, before it changes anything: drivers take
    the checks from `mrq_core.drivers.raw_arguments`. Seconds are 0 to 1e9, a `limit` is 0 to `CHUNK`.
    """

    def __init__(self, name: str) -> None:
        self.name, self.kind = check_raw_queue_name(name)

    @abstractmethod
    def push(self, items: Sequence[RawItem]) -> list[bool]:
        """Adds parameters. False: the set already holds the parameter; its score is updated.

        Atomic for each item. Repeating a push to a list adds the items again.
        """

    @abstractmethod
    def claim(self, limit: int, lease: float, worker: str, pushback: float | None = None) -> list[RawClaim]:
        """Claims up to `limit` due parameters: from the head of a list, in any fair order from a set, by
        score from a sorted set, and only parameters whose time has come from a timed set.

        Without `pushback`, the parameter moves to the leased set of the queue together with the id of its
        future job. Parameters with expired leases are claimed first and keep their job id, so a crash
        between claim and admit neither loses a parameter nor doubles a job. With `pushback` (timed
        sets), the parameter stays in the set and is due again that many seconds later.
        """

    @abstractmethod
    def renew(self, claims: Sequence[RawClaim], lease: float) -> list[bool]:
        """Extends the leases of parameters without a record. False: the parameter was claimed again,
        admitted, settled or removed."""

    @abstractmethod
    def settle(self, claims: Sequence[RawClaim], due_again: Sequence[float | None]) -> list[bool]:
        """Ends claims without a record. None drops the parameter; a number makes it due again that
        many seconds later. Guarded by the token; a repeated call returns its first answer."""

    @abstractmethod
    def peek(self, limit: int, offset: int = 0) -> list[RawItem]:
        """The waiting parameters in claim order, without claimed parameters. Costs offset + limit."""

    @abstractmethod
    def remove(self, params: Sequence[str]) -> list[bool]:
        """Removes waiting parameters. False: the parameter was not found. A list loses the first equal
        item."""

    @abstractmethod
    def size(self) -> int:
        """The number of waiting parameters, without claimed parameters. O(1), or O(log n) for due
        parameters."""

    @abstractmethod
    def histogram(self, start: float, stop: float, buckets: int) -> list[int]:
        """The number of scores in each of `buckets` equal intervals between start and stop. O(buckets log
        n)."""


class RawQueue(RawParameters):
    """A raw queue of a broker, which turns its parameters into jobs."""

    @abstractmethod
    def admit(self, claims: Sequence[tuple[RawClaim, JobRecord]], lease: float) -> list[bool]:
        """Turns claimed parameters into jobs: inserts the started record with its claimed entry and
        drops the parameter's lease, in one atomic step for each parameter.

        The record takes its id, token and claim number from the claim, and its times and lease from the
        moment of the call; the other fields stay as given. True also if this claim was admitted before.
        False: another worker has claimed the parameter since.
        """
