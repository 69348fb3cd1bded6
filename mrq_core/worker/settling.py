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

from mrq_core.broker import Broker
from mrq_core.codec import printable
from mrq_core.errors import BrokerError
from mrq_core.job import Outcome, Status
from mrq_core.messages import CHUNK, Note
from mrq_core.plugins import Plugins
from mrq_core.worker.attempts import Attempt, Attempts, take_logs

BATCH = 200
_GATHER = 0.002
"""Seconds for which a first outcome waits for others to share its round trip."""
_BACKOFF_FIRST, _BACKOFF_MOST = 0.05, 2.0

_log = logging.getLogger("mrq.worker")


class Settler:
    """The buffer of outcomes, and the greenlet that empties it."""

    def __init__(
        self,
        broker: Broker,
        plugins: Plugins,
        attempts: Attempts,
        *,
        max_log_size: int,
        on_settled: Callable[[Attempt], None],
    ) -> None:
        self._broker = broker
        self._plugins = plugins
        self._attempts = attempts
        self._max_log_size = max_log_size
        self._on_settled = on_settled
        self._buffer: list[Attempt] = []
        self._filled = Event()
        self._emptied = Event()
        self._emptied.set()

    @property
    def waiting(self) -> int:
        """How many outcomes the broker has not answered for."""
        return len(self._buffer)

    def add(self, attempt: Attempt) -> None:
        """Takes an attempt whose outcome is decided."""
        self._buffer.append(attempt)
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
            if len(self._buffer) < BATCH:
                gevent.sleep(_GATHER)
            batch = self._buffer[:BATCH]
            try:
                self._settle(batch)
            except BrokerError as error:
                _log.error(
                    "settle.failed waiting=%d retry_in=%.2fs error=%s", len(self._buffer), backoff, error
                )
                gevent.sleep(backoff)
                backoff = min(backoff * 2, _BACKOFF_MOST)
                continue
            except Exception:
                _log.exception("settle.broke jobs=%s", [attempt.record.id for attempt in batch])
                self._settle_one_by_one(batch)
            backoff = _BACKOFF_FIRST
            del self._buffer[: len(batch)]
            if not self._buffer:
                self._filled.clear()
                self._emptied.set()

    def flush_running(self) -> None:
        """Stores logs and progress of jobs that still run. Raises BrokerError, and keeps the lines."""
        attempts = self._attempts.undecided()
        self._store_logs(attempts)
        notes = []
        for attempt in attempts:
            progress, attempt.context.progress = attempt.context.progress, None
            if progress is not None:
                notes.append(Note(id=attempt.claim.id, token=attempt.claim.token, progress=progress))
        for start in range(0, len(notes), CHUNK):
            self._broker.annotate(notes[start : start + CHUNK])

    def _settle(self, batch: list[Attempt]) -> None:
        # Logs first: whoever sees that a job has ended can read all it has logged.
        self._store_logs(batch)
        accepted = self._broker.settle([attempt.settlement() for attempt in batch])
        self._attempts.remove(batch)
        is_verbose = _log.isEnabledFor(logging.DEBUG)
        for attempt, taken in zip(batch, accepted, strict=True):
            if taken:
                if is_verbose:
                    _log.debug("job.settled id=%s status=%s", attempt.record.id, _status(attempt))
                self._on_settled(attempt)
            else:
                _log.warning(
                    "claim.lost id=%s status=%s: another worker has claimed the job since, or it was "
                    "removed; this outcome is not stored",
                    attempt.record.id,
                    _status(attempt),
                )
        if self._plugins.implements("mrq_jobs_settled"):
            done = [(a.record, a.outcome) for a, taken in zip(batch, accepted, strict=True) if taken]
            self._plugins.observe("mrq_jobs_settled", settled=done)

    def _settle_one_by_one(self, batch: list[Attempt]) -> None:
        """For a batch that the driver cannot digest: finds the outcome it is about, and fails that job."""
        for attempt in batch:
            try:
                self._settle([attempt])
            except Exception as error:
                _log.exception("settle.broke id=%s", attempt.record.id)
                self._settle_as_failed(attempt, error)

    def _settle_as_failed(self, attempt: Attempt, error: Exception) -> None:
        outcome = Outcome(
            status=Status.FAILED,
            ttl=attempt.outcome.ttl if attempt.outcome else None,
            exception_type=type(error).__name__,
            traceback=printable(f"the outcome of this attempt could not be stored: {error}"),
        )
        try:
            self._broker.settle([replace(attempt.settlement(), outcome=outcome)])
        except Exception:
            # Its lease runs out, and the job is claimed again: nothing is lost.
            _log.exception("settle.given_up id=%s", attempt.record.id)
        self._attempts.remove([attempt])

    def _store_logs(self, attempts: list[Attempt]) -> None:
        lines = take_logs(attempts)
        for start in range(0, len(lines), CHUNK):
            try:
                self._broker.append_logs(lines[start : start + CHUNK], self._max_log_size)
            except BaseException:
                by_job = {attempt.record.id: attempt for attempt in attempts}
                for job_id in dict.fromkeys(line.job_id for line in lines[start:]):
                    rest = [line for line in lines[start:] if line.job_id == job_id]
                    by_job[job_id].context.log.give_back(rest)
                raise


def _status(attempt: Attempt) -> str:
    return str(attempt.outcome.status) if attempt.outcome else "?"
