"""Settles outcomes in native threads: those that wait for a blocked hub, and all when the worker is given up.

While a job blocks the hub, the settler does not run, or waits for an answer that it cannot read: a batch may
be with the broker or not. Therefore each outcome that waits too long is settled from here, by the same token:
a repeated settle returns its first answer. The first of both that takes the execution from `Executions`, in
the hub, counts and observes its outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mrq_core.clock import monotonic
from mrq_core.contract.broker import Broker
from mrq_core.errors import BrokerError, BrokerUnavailable
from mrq_core.worker.executions import ClaimKind, Execution, batches, outcomes_of, store_logs
from mrq_core.worker.guards.native import Mailbox
from mrq_core.worker.settling import Settler
from mrq_core.worker.worker_state import WorkerState

PATIENCE = 0.2
"""Seconds for which an outcome waits for the settler in the hub."""
_HUB_TIME = 0.05
"""A hub that answers later than this many seconds is blocked, or nearly."""
_RETRY = 0.5

Answer = bool | Exception
"""Whether an outcome was accepted, or why it cannot be stored."""


class NativeSettler:
    """Finds the outcomes that wait while the hub does not respond, and settles them.

    Does nothing while the hub responds: then the settler waits for the broker, and so would this. An outcome
    that cannot be stored is left to the settler.
    """

    def __init__(self, state: WorkerState, settler: Settler) -> None:
        self._executions = state.executions
        self._max_log_size = state.config.max_log_size
        self._settler = settler
        self._waiting_since: dict[Execution, float] = {}
        self._finished: set[Execution] = set()
        """Waiting executions that were settled here, or are left to the settler."""
        self._hub: Mailbox[float] = Mailbox(self._respond)
        self._asked_at = self._answered_at = self._blocked_at = 0.0
        self._retry_at = 0.0

    def close(self) -> None:
        """Wakes the settler no more."""
        self._hub.close()

    def perform(self, now: float, broker: Callable[[], Broker]) -> None:
        """Settles what waits too long. Keeps everything if the broker is away."""
        if not self._executions.unsettled:
            if self._waiting_since:
                self._waiting_since, self._finished = {}, set()
            return
        before = self._waiting_since
        self._waiting_since = {
            execution: before.get(execution, now)
            for execution in self._executions.snapshot()
            if execution.outcome is not None
        }
        self._finished.intersection_update(self._waiting_since)
        self._ask_hub(now)
        if now < self._retry_at:
            return
        # The hub was blocked while they waited.
        latest = min(now - PATIENCE, self._blocked_at)
        due = [e for e, since in self._waiting_since.items() if since <= latest and e not in self._finished]
        try:
            self._settle(due, broker)
        except (BrokerError, OSError):  # the settler meets the same error and logs it
            self._retry_at = monotonic() + _RETRY

    def _settle(self, executions: Sequence[Execution], broker: Callable[[], Broker]) -> None:
        for kind, chunk in batches(executions):
            answers = settle_natively(broker(), kind, chunk, self._max_log_size)
            self._finished.update(chunk)
            self._settler.settled_natively.append(
                [
                    (execution, answer)
                    for execution, answer in zip(chunk, answers, strict=True)
                    if not isinstance(answer, Exception)
                ]
            )
            self._hub.send(monotonic())

    def _ask_hub(self, now: float) -> None:
        """Notes whether the hub is blocked. Asks at most one question at a time."""
        if self._answered_at >= self._asked_at:
            self._asked_at = now
            self._hub.send(now)
        elif now - self._asked_at > _HUB_TIME:
            self._blocked_at = now

    def _respond(self, asked_at: float) -> None:
        """In the hub."""
        self._answered_at = asked_at
        self._settler.wake()


def settle_natively(
    broker: Broker, kind: ClaimKind, executions: Sequence[Execution], max_log_size: int
) -> list[Answer]:
    """Stores the logs of decided executions and settles them; one by one if an outcome makes that impossible.

    Raises BrokerUnavailable, and OSError if no outcome can be stored; the outcomes may then be settled or
    not, and a repetition does no harm.
    """
    try:
        store_logs(broker, executions, max_log_size)
        return list(kind.settle(broker, executions, outcomes_of(executions)))
    except BrokerUnavailable:
        raise
    except Exception as error:
        if len(executions) == 1 and isinstance(error, OSError):
            raise
        if len(executions) == 1:
            return [error]
        answers = [_answer_alone(broker, kind, execution, max_log_size) for execution in executions]
        if all(isinstance(answer, OSError) for answer in answers):
            raise
        return answers


def _answer_alone(broker: Broker, kind: ClaimKind, execution: Execution, max_log_size: int) -> Answer:
    try:
        return settle_natively(broker, kind, [execution], max_log_size)[0]
    except OSError as error:
        return error
