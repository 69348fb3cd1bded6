"""Stores the outcomes of attempts in batches, and the logs and progress of running jobs.

An outcome waits here until the broker has answered. While the broker is away, outcomes are kept and retried;
no outcome is dropped that could still be settled.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence

import gevent
from gevent.event import Event

from mrq_core.clock import monotonic
from mrq_core.contract.messages import Outcome
from mrq_core.errors import (
    BrokerError,
    BrokerUnavailable,
    shown_error,
)
from mrq_core.worker.ended_lines import EndedLines
from mrq_core.worker.executions import ClaimKind, Execution, batches, outcomes_of, store_logs
from mrq_core.worker.guards.guarded_log import GuardedLog
from mrq_core.worker.refused_outcomes import KEPT_FOR, RefusedOutcomes, may_pass, unstorable
from mrq_core.worker.worker_state import WorkerState

BATCH = 200
_GATHER = 0.002
"""Seconds for which the first outcome waits for others, to share one call to the broker."""
_ENOUGH = 32
"""With this many outcomes the settler waits no longer: the server would be idle meanwhile."""
_BACKOFF_FIRST, _BACKOFF_MOST = 0.05, 2.0
_BACKOFF_ALONE = 0.3
"""Seconds between two tries while the broker accepts other outcomes: these may not wait for a bad one."""
_TOLD_AGAIN = 10.0
"""Seconds after which an error that goes on is logged again."""

_log = GuardedLog("mrq.worker")


class Settler:
    """The decided executions, by the kind of their claims, and the greenlet that settles them.

    While a job blocks the hub, `NativeSettler` settles them (`native_settling.py`). It appends the executions
    and whether their outcomes were accepted to `settled_natively`, and the greenlet does the rest.
    """

    def __init__(self, state: WorkerState) -> None:
        self._state = state
        self._executions = state.executions
        self._ended_lines = EndedLines(state.config)
        self._waiting: dict[ClaimKind, list[Execution]] = {}
        self.settled_natively: deque[list[tuple[Execution, bool]]] = deque()
        self._filled = Event()
        self._emptied = Event()
        self._emptied.set()
        self._is_over = False
        self._errors = 0
        """The errors in a row of batches."""
        self._refused = RefusedOutcomes(state)
        self._told = ("", 0.0)
        """The error that was logged last, and the monotonic time."""

    def add(self, execution: Execution) -> None:
        """Takes an execution whose outcome is decided."""
        waiting = self._waiting.get(execution.kind)
        if waiting is None:
            waiting = self._waiting[execution.kind] = []
        waiting.append(execution)
        self._emptied.clear()
        self._filled.set()

    def wake(self) -> None:
        """Finishes what was settled natively."""
        if self.settled_natively:
            self._filled.set()

    def drain(self, timeout: float | None) -> bool:
        """Waits until nothing is left to settle. False: the timeout, in seconds, ended first."""
        return bool(self._emptied.wait(timeout))

    def stop(self) -> None:
        """Ends the loop. Outcomes that wait stay unsettled."""
        self._is_over = True
        self._filled.set()

    def run(self) -> None:
        """The greenlet's loop, until `stop`."""
        backoff = _BACKOFF_FIRST
        outage = self._state.outage
        while not self._is_over:
            self._filled.wait()
            if not outage.may_call("settle"):
                outage.wait()
                continue
            if self._executions.unsettled < _ENOUGH:
                gevent.sleep(_GATHER)
            try:
                if self.settled_natively:
                    self._finish_natively_settled()
                    self._leave_out_finished()
                for kind, waiting in list(self._waiting.items()):
                    batch = waiting[:BATCH]
                    self._settle_all(kind, batch)
                    del waiting[: len(batch)]
                    if not waiting:
                        del self._waiting[kind]
            except BrokerUnavailable as error:
                outage.failed("settle", error)
                continue
            except Exception as error:
                if self._refused.errors:
                    backoff = min(backoff, _BACKOFF_ALONE)
                self._tell(error, backoff)
                gevent.sleep(backoff)
                backoff = min(backoff * 2, _BACKOFF_MOST)
                continue
            backoff = _BACKOFF_FIRST
            if outage.steps:
                outage.worked("settle")
            if not self._waiting:
                self._filled.clear()
                self._emptied.set()

    def _tell(self, error: Exception, backoff: float) -> None:
        """Logs an error, unless it was logged just now."""
        text, now = shown_error(error), monotonic()
        if text == self._told[0] and now < self._told[1] + _TOLD_AGAIN:
            return
        self._told = (text, now)
        _log.error(
            "settle.failed waiting=%d retry_in=%.2fs error=%s",
            self._executions.unsettled, backoff, error, exc_info=error,
        )  # fmt: skip

    def flush_running(self) -> None:
        """Stores progress and logs of running jobs. Raises BrokerError, and keeps the lines."""
        executions = self._executions.undecided()
        try:
            self._store_progress(executions)
        finally:  # a broker may refuse one of the two
            self.store_lines(executions)

    def _store_progress(self, executions: Sequence[Execution]) -> None:
        changed = [
            execution
            for execution in executions
            if execution.context.progress is not None
            and execution.context.progress != execution.stored_progress
        ]
        for kind, chunk in batches(changed):
            progress = [execution.context.progress or 0.0 for execution in chunk]
            kind.annotate(self._state.broker, chunk, progress)
            for execution, ratio in zip(chunk, progress, strict=True):
                execution.stored_progress = ratio

    def _settle_all(self, kind: ClaimKind, batch: Sequence[Execution]) -> None:
        """Settles a batch; one by one if an outcome in it makes that impossible, or after a second error.

        Raises BrokerUnavailable, and what may be over at the next try; the batch may then be settled or not,
        and a repetition does no harm.
        """
        try:
            self._settle(kind, batch)
            self._errors = 0
        except BrokerUnavailable:
            raise
        except Exception as error:
            if may_pass(error):
                self._errors += 1
                if self._errors == 1:
                    raise
            elif len(batch) > 1:
                _log.warning("settle.failed waiting=%d: they are settled alone error=%s", len(batch), error)
            self._settle_each(batch)

    def _settle(self, kind: ClaimKind, batch: Sequence[Execution]) -> None:
        state = self._state
        # Logs first: a reader that sees the end of a job sees its whole log.
        self.store_lines(batch)
        outcomes = outcomes_of(batch)
        accepted = kind.settle(state.broker, batch, outcomes)
        if self.settled_natively:  # its answers are the first ones
            self._finish_natively_settled()
        self._finish(batch, outcomes, accepted)

    def _finish_natively_settled(self) -> None:
        while self.settled_natively:
            settled = self.settled_natively.popleft()
            batch = [execution for execution, _ in settled]
            try:
                self._finish(batch, outcomes_of(batch), [accepted for _, accepted in settled])
            except Exception:
                _log.exception("settle.broke jobs=%s", [execution.record.id for execution in batch])

    def _leave_out_finished(self) -> None:
        for kind, waiting in list(self._waiting.items()):
            waiting[:] = [execution for execution in waiting if self._executions.is_held(execution)]
            if not waiting:
                del self._waiting[kind]

    def _finish(
        self, batch: Sequence[Execution], outcomes: Sequence[Outcome], accepted: Sequence[bool]
    ) -> None:
        """Ends the executions whose outcomes the broker has, and counts and observes the accepted outcomes;
        each execution once, however often it was settled."""
        state = self._state
        removed = self._executions.remove(batch)
        if not all(removed):
            left = [index for index, was_held in enumerate(removed) if was_held]
            if not left:
                return
            batch = [batch[index] for index in left]
            outcomes = [outcomes[index] for index in left]
            accepted = [accepted[index] for index in left]
        state.metrics.ended(batch, outcomes, accepted)
        is_verbose = _log.logger.isEnabledFor(logging.DEBUG)
        for execution, outcome, is_accepted in zip(batch, outcomes, accepted, strict=True):
            if is_accepted:
                if is_verbose:
                    _log.debug("job.settled id=%s status=%s", execution.record.id, outcome.status)
                state.counts[outcome.status.value] += 1
                if state.on_settled is not None:
                    state.on_settled(execution)
            else:
                _log.warning(
                    "claim.lost id=%s status=%s: another worker has claimed the job since, or it was "
                    "removed; this outcome is not stored",
                    execution.record.id,
                    outcome.status,
                )
        state.wake.set()
        if state.plugins.implements("mrq_jobs_settled"):
            settled = [
                (execution.record, outcome)
                for execution, outcome, is_accepted in zip(batch, outcomes, accepted, strict=True)
                if is_accepted
            ]
            state.observers.call("mrq_jobs_settled", settled=settled)

    def _settle_each(self, batch: Sequence[Execution]) -> None:
        """Settles one by one, and keeps those whose error may pass. Raises the last such error."""
        last: Exception | None = None
        for execution in batch:
            try:
                self._settle(execution.kind, [execution])
            except BrokerUnavailable:
                raise
            except Exception as error:
                if not self._is_settled_as_failed(execution, error):
                    last = error
                    if self._refused.tries_of(execution):
                        continue
                    break  # the broker cannot settle now, so no other outcome either
            self._refused.errors.pop(execution, None)
        if last is not None:
            self._leave_out_finished()
            raise last
        self._errors = 0
        self._refused.errors.clear()

    def _is_settled_as_failed(self, execution: Execution, error: Exception) -> bool:
        """Settles as failed what cannot be stored, though the broker can settle. False: the error may pass,
        so the execution is kept, and tried again later. Raises BrokerUnavailable."""
        is_final = self._refused.is_final(execution, error)
        if self._refused.tries_of(execution) == 1:
            _log.error(
                "settle.failed id=%s: the outcome of this job cannot be stored now error=%s",
                *(execution.record.id, shown_error(error)),
            )
        if not is_final:
            return False
        if not isinstance(error, BrokerError | OSError):  # a traceback helps its author
            _log.error("settle.broke id=%s", execution.record.id, exc_info=error)
        outcome = unstorable(execution, error)
        try:
            accepted = execution.kind.settle(self._state.broker, [execution], [outcome])
        except BrokerUnavailable:
            raise
        except Exception:  # also one of values: these are small, so the error is not about them
            if not self._refused.has_lasted(execution, 2 * KEPT_FOR):
                return False
            # The lease expires and the job is claimed again: nothing is lost.
            _log.exception("settle.given_up id=%s", execution.record.id)
            self._executions.remove([execution])
            return True
        if all(accepted):
            execution.context.error = error
            self._ended_lines.log(execution.context, outcome)
        self._finish([execution], [outcome], accepted)
        return True

    def store_lines(self, executions: Sequence[Execution]) -> None:
        """Stores the log lines of these jobs that are not stored yet. Raises BrokerError, and keeps them."""
        lines = store_logs(self._state.broker, executions, self._state.config.max_log_size)
        if lines:
            stored = {(line.job_id, line.attempt): line.seq for line in lines}
            for execution in executions:
                record = execution.record
                execution.context.log.drop(stored.get((record.id, record.claims), 0))
