"""The claims that a worker holds, each from the claim until the broker has the outcome."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mrq_core.clock import monotonic
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import CHUNK, ClaimRef, Note, Outcome, Settlement
from mrq_core.contract.queries import LogLine
from mrq_core.errors import Interrupt
from mrq_core.running.context import JobContext

if TYPE_CHECKING:
    from mrq_core.debug.io_calls import JobIo
    from mrq_core.worker.solo.solo_handle import SoloProcess


_Due = tuple[float, Callable[[], Interrupt]]
"""A monotonic time, and what makes the interrupt."""


class ClaimKind(ABC):
    """How the broker is told about claims of one kind. All executions of a kind share one object.

    Each method makes one call to the broker for at most `CHUNK` executions; `batches` groups them. A broker
    is passed in, because each native thread has its own. Methods raise what the broker raises.
    """

    @abstractmethod
    def renew(self, broker: Broker, executions: Sequence[Execution], lease: float) -> list[bool]:
        """Extends the claims to now + lease seconds. False: the claim is lost."""

    @abstractmethod
    def annotate(self, broker: Broker, executions: Sequence[Execution], progress: Sequence[float]) -> None:
        """Stores the progress of each execution, from 0 to 1."""

    @abstractmethod
    def settle(
        self, broker: Broker, executions: Sequence[Execution], outcomes: Sequence[Outcome]
    ) -> list[bool]:
        """Stores the outcome of each execution. False: refused, because the claim is lost.

        Repeated after an error, it returns the first answers."""


class JobClaims(ClaimKind):
    """Claims of jobs: a record and an entry in a queue. The claim of an execution is a `ClaimRef`."""

    def renew(self, broker: Broker, executions: Sequence[Execution], lease: float) -> list[bool]:
        return broker.renew([execution.claim for execution in executions], lease)

    def annotate(self, broker: Broker, executions: Sequence[Execution], progress: Sequence[float]) -> None:
        broker.annotate(
            [
                Note(id=execution.claim.id, token=execution.claim.token, progress=ratio)
                for execution, ratio in zip(executions, progress, strict=True)
            ]
        )

    def settle(
        self, broker: Broker, executions: Sequence[Execution], outcomes: Sequence[Outcome]
    ) -> list[bool]:
        return broker.settle(
            [
                Settlement(id=execution.claim.id, token=execution.claim.token, outcome=outcome)
                for execution, outcome in zip(executions, outcomes, strict=True)
            ]
        )


JOB_CLAIMS = JobClaims()


class Execution:
    """One claimed job in this worker.

    `kind` is how the broker is told about it, and `claim` what the kind tells the broker: hashable, unique
    in the worker. The outcome is decided once, by the first of the job's code, the worker that must exit
    and the watchdog. `due` is the monotonic time from which the watchdog interrupts the job, and with what.
    """

    __slots__ = (
        "__weakref__", "_decided", "_limit", "_request", "claim", "context", "deadline", "greenlet", "io",
        "kind", "lost", "process", "record", "started", "stored_progress",
    )  # fmt: skip

    def __init__(self, context: JobContext, kind: ClaimKind, claim: Any) -> None:
        self.context = context
        self.record = context.record
        self.kind = kind
        self.claim = claim
        self.greenlet: Any = None
        self.started = monotonic()
        self.deadline: float | None = None
        self._limit: _Due | None = None
        """The end of the time for the import or the code. Only the hub sets it."""
        self._request: _Due | None = None
        """The request to interrupt the job: by a cancel, a stop, or because its claim is lost."""
        self.lost = False
        self.process: SoloProcess | None = None
        """The process in which the job runs solo."""
        self.io: JobIo | None = None
        """The I/O of the job, with TRACE_IO."""
        self.stored_progress: float | None = None
        self._decided: dict[str, Outcome] = {}

    @property
    def outcome(self) -> Outcome | None:
        """How the attempt ended. None: not decided yet."""
        return self._decided.get("outcome")

    def decide(self, outcome: Outcome) -> bool:
        """Sets the outcome. False: another outcome was decided before. Atomic, in any thread."""
        return self._decided.setdefault("outcome", outcome) is outcome

    @property
    def due(self) -> _Due | None:
        """The earliest interrupt. None: there is none."""
        limit, request = self._limit, self._request
        if limit is None or (request is not None and request[0] < limit[0]):
            return request
        return limit

    def interrupt_from(self, moment: float, interrupt: Callable[[], Interrupt]) -> None:
        """Requests an interrupt at that monotonic time, unless an earlier one is requested. In any thread.
        The interrupt is made when it is due, because most jobs end before."""
        request = self._request
        if request is None or moment < request[0]:
            self._request = (moment, interrupt)

    def limit_run(self, moment: float, interrupt: Callable[[], Interrupt]) -> None:
        """Sets the deadline: interrupts the code at that monotonic time."""
        self.deadline = moment
        self._limit = (moment, interrupt)

    def limit_import(self, moment: float, interrupt: Callable[[], Interrupt]) -> None:
        """Interrupts the import at that monotonic time, until `end_import`."""
        self._limit = (moment, interrupt)

    def end_import(self) -> None:
        """Withdraws the interrupt of the import. Requests to interrupt the job stay."""
        self._limit = None

    def postpone(self, seconds: float) -> None:
        """Postpones the timeout or the limit of the import. In a native thread while other code keeps the
        hub, which alone sets these limits."""
        limit = self._limit
        if limit is None:
            return
        self._limit = later, _ = (limit[0] + seconds, limit[1])
        if limit[0] == self.deadline:
            self.deadline = later

    def interrupt_at(self, now: float) -> Interrupt | None:
        """The interrupt that is due at this monotonic time. None: no interrupt is due."""
        due = self.due
        return due[1]() if due is not None and due[0] <= now else None


def job_execution(context: JobContext) -> Execution:
    """The execution of a claimed job."""
    record = context.record
    return Execution(context, JOB_CLAIMS, ClaimRef(id=record.id, token=record.token or ""))


class Executions:
    """The executions of a worker, by claim: jobs that were claimed together may share a token.

    Native threads read snapshots; only the hub's thread changes it.
    """

    def __init__(self) -> None:
        self._held: dict[Any, Execution] = {}
        self.running = 0
        """The number of executions that run code."""
        self._lost_before: set[Execution] = set()
        """The running jobs that had lost their last claim."""

    def __len__(self) -> int:
        return len(self._held)

    @property
    def unsettled(self) -> int:
        """The number of executions whose outcome is decided and not yet with the broker."""
        return len(self._held) - self.running

    def add(self, execution: Execution) -> None:
        """Holds a claim whose code is about to run."""
        self._held[execution.claim] = execution
        self.running += 1
        if execution.record.lost_claims:
            self._lost_before.add(execution)

    def ended(self, execution: Execution) -> None:
        """Counts the code as ended. The claim is held until the broker has the outcome."""
        self.running -= 1
        if execution.record.lost_claims:
            self._lost_before.discard(execution)

    def lost_since(self, moment: float) -> int:
        """How many running jobs that had lost their last claim were started since this monotonic time."""
        return sum(execution.started >= moment for execution in self._lost_before)

    def remove(self, executions: Iterable[Execution]) -> list[bool]:
        """Holds these claims no longer. False: the claim was not held, because its outcome was settled by
        another thread and removed before."""
        pop = self._held.pop
        return [pop(execution.claim, None) is not None for execution in executions]

    def is_held(self, execution: Execution) -> bool:
        """Whether the claim is held."""
        return execution.claim in self._held

    def snapshot(self) -> list[Execution]:
        """All executions, copied atomically."""
        return list(self._held.values())

    def undecided(self) -> list[Execution]:
        """The executions without an outcome."""
        return [execution for execution in self.snapshot() if execution.outcome is None]

    def greenlets(self) -> list[tuple[object, JobContext]]:
        """The greenlets of the jobs without an outcome."""
        return [(execution.greenlet, execution.context) for execution in self.undecided()]


def batches(executions: Sequence[Execution]) -> Iterator[tuple[ClaimKind, Sequence[Execution]]]:
    """Groups executions for calls to the broker: one kind and at most `CHUNK` executions a call."""
    kinds = dict.fromkeys([execution.kind for execution in executions])
    for kind in kinds:
        same = executions if len(kinds) == 1 else [one for one in executions if one.kind is kind]
        for start in range(0, len(same), CHUNK):
            yield kind, same[start : start + CHUNK]


def outcomes_of(executions: Iterable[Execution]) -> list[Outcome]:
    """The outcomes, which must be decided."""
    return [execution._decided["outcome"] for execution in executions]


def store_logs(broker: Broker, executions: Iterable[Execution], max_size: int) -> list[LogLine]:
    """Stores the log lines of these jobs that are not stored yet, and returns them. Safe in any thread: a
    line that two threads store is stored once."""
    lines = [line for execution in executions for line in execution.context.log.lines()]
    for start in range(0, len(lines), CHUNK):
        broker.append_logs(lines[start : start + CHUNK], max_size)
    return lines
