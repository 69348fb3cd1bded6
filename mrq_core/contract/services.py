"""The contract of shared state, queries, logs, metrics and notifications, which brokers and stores offer.

The rules of `mrq_core.contract.broker` hold for every method.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime

from mrq_core.contract import rules
from mrq_core.contract.codec import JsonValue
from mrq_core.contract.metrics import Metric, Resolution
from mrq_core.contract.queries import Counted, Finding, JobFilter, LogLine, LogPage, Order, Page, Totals
from mrq_core.contract.shared_state import PollResult, Rules, StateItem, Versions


class SharedState(ABC):
    """Small named values that every process sees: workers, schedules, pauses, limit rules.

    Each name belongs to a namespace. Values are JSON values of at most a few kilobytes. A write to one of
    `rules.NAMESPACES` also raises the version of the rules that `poll` compares, together with the value or
    after it.

    A value that was changed by hand and cannot be read is an item with the value None, and can be written and
    deleted like any other; see `mrq_core.drivers.state_items`.
    """

    @abstractmethod
    def get(self, namespace: str, name: str) -> StateItem | None:
        """The value. None: the name has no value, or the value has expired."""

    @abstractmethod
    def put(self, namespace: str, name: str, value: JsonValue, ttl: float | None = None) -> StateItem:
        """Writes the value unconditionally. `ttl`: seconds until the value expires."""

    @abstractmethod
    def compare_and_set(
        self, namespace: str, name: str, value: JsonValue, *, version: int, ttl: float | None = None
    ) -> StateItem | None:
        """Writes the value if the name still has this version (0: the name has no value). None: not
        written."""

    @abstractmethod
    def add(self, namespace: str, name: str, amount: int, ttl: float | None = None) -> int:
        """Adds to a counter, which starts at 0, and returns the new count. `ttl` counts from the first
        addition; later additions do not extend it."""

    @abstractmethod
    def delete(self, namespace: str, names: Sequence[str]) -> list[bool]:
        """Deletes values. False: the name had no value."""

    @abstractmethod
    def list(self, namespace: str) -> list[StateItem]:
        """All values of the namespace, by name. Grows with their number."""


class StoreServices(ABC):
    """Queries, logs, metrics and notifications, shared by Broker and JobStore."""

    @property
    @abstractmethod
    def state(self) -> SharedState:
        """The values that all processes share."""

    # --- queries -----------------------------------------------------------------------------

    @abstractmethod
    def now(self) -> datetime:
        """The time of the broker's clock, by which jobs are due and leases end."""

    @abstractmethod
    def find(
        self,
        wanted: JobFilter,
        *,
        order: Order = Order.NEWEST_FIRST,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page:
        """A page of matching jobs, ordered by id.

        Paging by cursor shows each job that matches throughout exactly once, even while other jobs
        change. A filter that no index serves scans for at most 250 ms; the page says how far the scan got.
        Statuses, paths, queues, schedules, and the terms of `mrq_core.contract.terms` have an index, which
        holds what is true of the job now.
        """

    @abstractmethod
    def count(self, wanted: JobFilter, group_by: str | None = None, *, cursor: str | None = None) -> Counted:
        """The number of matching jobs for each value of `group_by` (status, path, queue, worker,
        exception_type, error_group), or under the key ``""`` without `group_by`. Jobs without a value are
        left out.

        Totals answer for statuses combined with one of queues, trees, paths, exception types and error
        groups, grouped by one of the two, at once and completely. Other jobs are counted one by one, in the
        order of ids, from the index with the fewest entries, for at most 250 ms; `cursor` of the answer
        continues the count. Over all calls, a job that matches throughout is counted once. Reads no
        consistent state. Raises InvalidValue for another `group_by`, and for a malformed cursor.
        """

    @abstractmethod
    def totals(self) -> Totals:
        """The numbers of jobs by queue, path, error group and status, which change together with the jobs.
        The cost grows with the number of queues, paths and groups. Expired jobs count until they are
        pruned."""

    @abstractmethod
    def queue_names(self, prefix: str = "", after: str = "", limit: int = 1000) -> list[str]:
        """The names of queues that hold jobs or parameters, in alphabetical order, after the name `after`.

        A name whose jobs and parameters are all gone is forgotten by one of the next calls of `prune`, a
        bounded number of names each. A name stays while a job of any status has it, expired jobs included.
        No crash and no job that is enqueued meanwhile makes `prune` forget a queue that holds jobs. A pause
        outlives the name.
        """

    # --- workers -----------------------------------------------------------------------------

    @abstractmethod
    def poll(self, worker: str, versions: Versions) -> PollResult:
        """The changes for a worker since these versions: pauses and limit rules, jobs of the worker to
        interrupt, and requests to the worker. O(1) without changes. Each process polls once a second.

        A pause that ends by itself is a change at its end.
        """

    def pause(self, queues: Sequence[str], until: datetime | None = None) -> None:
        """Pauses queues and trees (names that end with ``/``): workers claim nothing from them until
        `until`, by the broker's clock, or until `resume`. Running jobs go on.

        Replaces earlier pauses of these names, unless `until` is not in the future. Atomic for each name.
        """
        self._pause(rules.PAUSED_QUEUES, queues, until)

    def resume(self, queues: Sequence[str]) -> None:
        """Resumes paused queues and trees. A queue that is not paused is left unchanged."""
        self.state.delete(rules.PAUSED_QUEUES, queues)

    def paused(self) -> frozenset[str]:
        """The paused queues and trees."""
        return frozenset(item.name for item in self.state.list(rules.PAUSED_QUEUES))

    def pause_tasks(self, paths: Sequence[str], until: datetime | None = None) -> None:
        """Pauses tasks: a claim parks their jobs and claims none of them. Otherwise as `pause`."""
        self._pause(rules.PAUSED_TASKS, paths, until)

    def resume_tasks(self, paths: Sequence[str]) -> None:
        """Resumes paused tasks. Later claims let their parked jobs go, a bounded number each."""
        self.state.delete(rules.PAUSED_TASKS, paths)

    def rules(self) -> Rules:
        """All pauses, with their times, and all limit rules. Grows with their number."""
        return rules.read(self.state.list)

    def _pause(self, namespace: str, names: Sequence[str], until: datetime | None) -> None:
        now = self.now()
        if until is None or until > now:
            ttl = None if until is None else (until - now).total_seconds()
            for name in dict.fromkeys(names):
                self.state.put(namespace, name, rules.pause_value(now, until), ttl=ttl)

    # --- logs and metrics --------------------------------------------------------------------

    @abstractmethod
    def append_logs(self, lines: Sequence[LogLine], max_size: int) -> None:
        """Stores log lines of jobs. Idempotent by (job, attempt, seq).

        A job's log keeps about its first `max_size` bytes. A notice replaces the first line that no longer
        fits, and later lines are dropped. Lines of unknown jobs are dropped.
        """

    @abstractmethod
    def read_logs(self, job_id: str, cursor: str | None = None, limit: int = 1000) -> LogPage:
        """The lines after the cursor, in order of attempt and seq. Raises JobNotFound."""

    @abstractmethod
    def record_metrics(self, metrics: Sequence[Metric]) -> None:
        """Adds metrics to the roll-ups of their minute and of their hour.

        Atomic for each roll-up of a metric: no addition of another process is lost. Not idempotent: a
        repeated call counts twice. The metrics may be lost with a crash of the server. The cost grows with
        the number of metrics and their buckets. Raises InvalidValue, before anything is stored, for a metric
        that `mrq_core.contract.metrics.check_metrics` refuses.
        """

    @abstractmethod
    def read_metrics(
        self,
        names: Sequence[str],
        since: datetime,
        until: datetime,
        resolution: Resolution = Resolution.MINUTE,
    ) -> list[Metric]:
        """The roll-ups of these names that begin at `since` or later and before `until`: a metric for each
        set of tags and each minute or hour, by name, and oldest first within a name. Empty where `since` is
        not before `until`. The cost grows with the number of roll-ups in the answer."""

    # --- maintenance -------------------------------------------------------------------------

    @abstractmethod
    def check(self) -> list[Finding]:
        """Reports problems of the server, its settings and its schema, and how to fix them."""

    @abstractmethod
    def prepare(self) -> None:
        """Creates missing schema, indexes and scripts, and upgrades data of earlier versions.

        Idempotent, safe in several processes at once and beside running workers of the version before.
        Raises SchemaTooNew where the data may no longer be used by this version; see
        `mrq_core.drivers.versions`."""

    def repair_totals(self) -> int:
        """Corrects the totals that differ from the stored jobs, and returns their number. Safe beside running
        workers. The cost grows with the number of jobs.

        A broker that changes a job and its totals in one operation has nothing to repair, as here.
        """
        return 0

    @abstractmethod
    def close(self) -> None:
        """Closes all connections. Calls in progress fail; using the broker afterwards is an error."""
