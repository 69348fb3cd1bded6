"""Tells the broker how attempts ended, in batches, and stores what running jobs have logged.

An outcome waits here until the broker has answered for it. While the broker is away the outcomes
are kept and tried again; nothing is dropped that could still be settled.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import gevent
from gevent.event import Event
from msgspec.structs import replace

from mrq_core.contract.broker import Broker
from mrq_core.contract.codec import printable
from mrq_core.contract.messages import CHUNK, Note, Outcome
from mrq_core.contract.record import Status
from mrq_core.errors import BrokerUnavailable
from mrq_core.plugins.manager import Plugins
from mrq_core.worker.executions import Execution, Executions, take_logs

BATCH = 200
_GATHER = 0.002
"""Seconds for which a first outcome waits for others to share its round trip."""
_ENOUGH = 32
"""Outcomes that wait for no others: the server had better begin with them than have nothing to do."""
_BACKOFF_FIRST, _BACKOFF_MOST = 0.05, 2.0

_log = logging.getLogger("mrq.worker")


class Settler:
    """The buffer of outcomes, and the greenlet that empties it."""

    def __init__(
        self,
        broker: Broker,
        plugins: Plugins,
        executions: Executions,
        *,
        max_log_size: int,
        on_settled: Callable[[Execution], None],
    ) -> None:
        self._broker = broker
        self._plugins = plugins
        self._executions = executions
        self._max_log_size = max_log_size
        self._on_settled = on_settled
        self._buffer: list[Execution] = []
        self._filled = Event()
        self._emptied = Event()
        self._emptied.set()

    @property
    def waiting(self) -> int:
        """How many outcomes the broker has not answered for."""
        return len(self._buffer)

    def add(self, execution: Execution) -> None:
        """Takes an execution whose outcome is decided."""
        self._buffer.append(execution)
        self._emptied.clear()
        self._filled.set()

    def drain(self, timeout: float | None) -> bool:
        """Waits until the buffer is empty, at most that long."""
        return bool(self._emptied.wait(timeout))

    def run(self) -> None:
        """The greenlet's loop; ends when it is killed."""
        backoff = _BACKOFF_FIRST
        while True:
            self._filled.wait()
            if len(self._buffer) < _ENOUGH:
                gevent.sleep(_GATHER)
            batch = self._buffer[:BATCH]
            try:
                self._settle_all(batch)
            except BrokerUnavailable as error:
                _log.error(
                    "settle.failed waiting=%d retry_in=%.2fs error=%s", len(self._buffer), backoff, error
                )
                gevent.sleep(backoff)
                backoff = min(backoff * 2, _BACKOFF_MOST)
                continue
            backoff = _BACKOFF_FIRST
            del self._buffer[: len(batch)]
            if not self._buffer:
                self._filled.clear()
                self._emptied.set()

    def flush_running(self) -> None:
        """Stores logs and progress of jobs that still run. Raises BrokerError, and keeps the lines."""
        executions = self._executions.undecided()
        self._store_logs(executions)
        notes = []
        for execution in executions:
            progress = execution.context.progress
            if progress is not None and progress != execution.stored_progress:
                note = Note(id=execution.claim.id, token=execution.claim.token, progress=progress)
                notes.append((execution, note))
        for start in range(0, len(notes), CHUNK):
            chunk = notes[start : start + CHUNK]
            self._broker.annotate([note for _, note in chunk])
            for execution, note in chunk:
                execution.stored_progress = note.progress

    def _settle_all(self, batch: list[Execution]) -> None:
        """Settles a batch; where something in it makes that impossible, each for itself.

        Raises BrokerUnavailable; the batch may then be settled or not, and repeating it is harmless.
        """
        try:
            self._settle(batch)
        except BrokerUnavailable:
            raise
        except Exception:
            _log.exception("settle.broke jobs=%s", [execution.record.id for execution in batch])
            for execution in batch:
                self._settle_alone(execution)

    def _settle(self, batch: list[Execution]) -> None:
        # Logs first: whoever sees that a job has ended can read all it has logged.
        self._store_logs(batch)
        accepted = self._broker.settle([execution.settlement() for execution in batch])
        self._executions.remove(batch)
        is_verbose = _log.isEnabledFor(logging.DEBUG)
        for execution, taken in zip(batch, accepted, strict=True):
            if taken:
                if is_verbose:
                    _log.debug("job.settled id=%s status=%s", execution.record.id, _status(execution))
                self._on_settled(execution)
            else:
                _log.warning(
                    "claim.lost id=%s status=%s: another worker has claimed the job since, or it was "
                    "removed; this outcome is not stored",
                    execution.record.id,
                    _status(execution),
                )
        if self._plugins.implements("mrq_jobs_settled"):
            done = [(a.record, a.outcome) for a, taken in zip(batch, accepted, strict=True) if taken]
            self._plugins.observe("mrq_jobs_settled", settled=done)

    def _settle_alone(self, execution: Execution) -> None:
        try:
            self._settle([execution])
        except BrokerUnavailable:
            raise
        except Exception as error:
            _log.exception("settle.broke id=%s", execution.record.id)
            self._settle_as_failed(execution, error)

    def _settle_as_failed(self, execution: Execution, error: Exception) -> None:
        outcome = Outcome(
            status=Status.FAILED,
            ttl=execution.outcome.ttl if execution.outcome else None,
            exception_type=type(error).__name__,
            traceback=printable(f"the outcome of this execution could not be stored: {error}"),
        )
        try:
            self._broker.settle([replace(execution.settlement(), outcome=outcome)])
        except BrokerUnavailable:
            raise
        except Exception:
            # Its lease runs out, and the job is claimed again: nothing is lost.
            _log.exception("settle.given_up id=%s", execution.record.id)
        self._executions.remove([execution])

    def _store_logs(self, executions: list[Execution]) -> None:
        lines = take_logs(executions)
        for start in range(0, len(lines), CHUNK):
            try:
                self._broker.append_logs(lines[start : start + CHUNK], self._max_log_size)
            except BaseException:
                by_job = {execution.record.id: execution for execution in executions}
                for job_id in dict.fromkeys(line.job_id for line in lines[start:]):
                    rest = [line for line in lines[start:] if line.job_id == job_id]
                    by_job[job_id].context.log.give_back(rest)
                raise


def _status(execution: Execution) -> str:
    return str(execution.outcome.status) if execution.outcome else "?"
