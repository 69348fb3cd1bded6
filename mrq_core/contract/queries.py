"""What is asked of a broker, and its answers: filters, pages, numbers, positions, logs, findings."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

from msgspec import Struct

from mrq_core.contract.codec import JsonObject
from mrq_core.contract.record import JobRecord, Status


class JobFilter(Struct, frozen=True, kw_only=True):
    """Selects jobs that satisfy every given part. An empty filter selects all jobs.

    A queue name that ends with ``/`` selects its tree, as in `Wanted`. `params` compares top-level values for
    equality, by JSON type. `since` (inclusive) and `until` (exclusive) compare `queued_at`.

    An exception is that of the latest attempt: the full or the short name of its type is one of
    `exception_types`, and the message has all `error_words` (`terms.words_of`) among its first words. Each of
    the `search_keys` must have the given value, by JSON type. An index serves these parts.
    """

    ids: tuple[str, ...] = ()
    statuses: tuple[Status, ...] = ()
    paths: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    workers: tuple[str, ...] = ()
    exception_types: tuple[str, ...] = ()
    error_words: tuple[str, ...] = ()
    error_groups: tuple[str, ...] = ()
    search_keys: JsonObject = {}
    schedules: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    params: JsonObject = {}

    @property
    def is_empty(self) -> bool:
        """Whether this filter selects all jobs."""
        return self == JobFilter()


class Order(StrEnum):
    """The order of jobs by id, which is the order of creation."""

    NEWEST_FIRST = "newest"
    OLDEST_FIRST = "oldest"


class Page(Struct, frozen=True, kw_only=True):
    """A page of matching jobs.

    `cursor` continues after them; None: there are no more jobs. `searched_until`: the id at which a scan
    without an index ran out of time.
    """

    records: tuple[JobRecord, ...]
    cursor: str | None
    searched_until: str | None = None


class Counted(Struct, frozen=True, kw_only=True):
    """The numbers of matching jobs that one call of `count` found.

    `numbers`: by the values of `group_by`, or under ``""``. `cursor` continues after the counted jobs: the
    numbers of all calls add up. None: the count is complete.
    """

    numbers: dict[str, int]
    cursor: str | None = None

    @property
    def number(self) -> int:
        """The number of jobs in all groups."""
        return sum(self.numbers.values())

    @property
    def is_complete(self) -> bool:
        """Whether all matching jobs are counted. If not, there are at least `number`."""
        return self.cursor is None


class QueueCounts(Struct, frozen=True, kw_only=True):
    """The numbers of jobs in a queue.

    `waiting`: jobs that are not claimed, due or not. `due`: jobs that could be claimed now, counted
    up to 10,000. `claimed`: jobs held by workers. `oldest_due`: the due time of the oldest due job.
    """

    queue: str
    waiting: int = 0
    due: int = 0
    claimed: int = 0
    oldest_due: datetime | None = None


class KeyUse(Struct, frozen=True, kw_only=True):
    """The use of a limit key.

    `running` and `parked` are numbers of jobs, `parked` up to MOST_AHEAD. `holders` run, in the order of
    their ids; `waiters` are parked, in the order in which they are let go; up to MOST_NAMED ids each. Where
    more than 10,000 jobs with limits run, some holders may be left out. `even_at`: the time of the next claim
    under the rate of the key if all claims were evenly spaced (see `mrq_core.drivers.limits`); None: no claim
    has used a rate lately.
    """

    key: str
    running: int
    holders: tuple[str, ...]
    parked: int
    waiters: tuple[str, ...]
    even_at: datetime | None = None


class QueuePosition(Struct, frozen=True, kw_only=True):
    """The position of a waiting job in its queue.

    `ahead`: the number of jobs that are claimed before it, without those that become due later. They have a
    larger priority, or the same priority and an earlier due time or a smaller id. Of a parked job, the number
    of jobs that are let go before it. `is_exact` is False if there may be more than `ahead`, which is then
    at least MOST_AHEAD.

    `due_at`: the due time of the entry; None: parked under the limit key `parked_under` since `parked_since`.
    `allowed_at`: the time until which a rate has pushed the job back. `keys`: the use of its limit keys, and
    of the key under which it is parked.
    """

    ahead: int
    is_exact: bool = True
    due_at: datetime | None
    parked_under: str | None = None
    parked_since: datetime | None = None
    allowed_at: datetime | None = None
    keys: tuple[KeyUse, ...] = ()


class Totals(Struct, frozen=True, kw_only=True):
    """The numbers of jobs by queue, path, error group and status, updated with every change.

    `by_error_group` has the jobs whose latest attempt raised, without groups that have no jobs."""

    by_queue: Mapping[str, Mapping[Status, int]]
    by_path: Mapping[str, Mapping[Status, int]]
    by_error_group: Mapping[str, Mapping[Status, int]] = {}

    def by_status(self) -> dict[Status, int]:
        """The totals by status, summed over all queues. Statuses without jobs are left out."""
        sums: dict[Status, int] = {}
        for statuses in self.by_queue.values():
            for status, number in statuses.items():
                if number:
                    sums[status] = sums.get(status, 0) + number
        return sums


class LogLine(Struct, frozen=True, kw_only=True):
    """One line of a job's log. `attempt` is the claim number, `seq` counts within the attempt."""

    job_id: str
    attempt: int
    seq: int
    at: datetime
    level: str
    message: str


class LogPage(Struct, frozen=True, kw_only=True):
    """Log lines in order of attempt and seq. `cursor` continues after them, also after an empty page."""

    lines: tuple[LogLine, ...]
    cursor: str


class RepairResult(Struct, frozen=True, kw_only=True):
    """What one step of `Broker.repair` did: the number of unfinished jobs that it examined, and the ids of
    those that it put back into their queues. `cursor` continues the repair; None: it is complete."""

    examined: int
    repaired: tuple[str, ...] = ()
    cursor: str | None = None


class Finding(Struct, frozen=True, kw_only=True):
    """A result of a check. `level` is ``ok``, ``warning`` or ``error``; `advice` says what to do."""

    level: str
    subject: str
    message: str
    advice: str = ""
