"""The record of a job, and the table of legal status changes.

This module does no I/O. The functions that turn one record into the next are in `lifecycle`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final

import msgspec

from mrq_core.contract.codec import JsonObject, JsonValue

PRIORITY_MIN, PRIORITY_MAX = -4, 4
HISTORY_LIMIT = 10
"""The number of earlier attempts that a record keeps; the oldest are dropped first."""


class Status(StrEnum):
    """The status of a job. Statuses print as lower-case words."""

    QUEUED = "queued"
    STARTED = "started"
    SUCCESS = "success"
    FAILED = "failed"
    CANCEL = "cancel"
    ABORT = "abort"
    INTERRUPT = "interrupt"
    TIMEOUT = "timeout"
    RETRY = "retry"
    MAXRETRIES = "maxretries"

    @property
    def is_waiting(self) -> bool:
        """Whether a job with this status has a waiting entry in its queue."""
        return self in WAITING

    @property
    def is_ended(self) -> bool:
        """Whether a job with this status has ended and runs again only after a requeue.

        An interrupted at_most_once job has ended too, although its status is `interrupt`. Use
        `JobRecord.is_ended` where a record is available.
        """
        return self in ENDED


_S = Status
WAITING: Final = frozenset({_S.QUEUED, _S.RETRY, _S.INTERRUPT})
UNFINISHED: Final = (*sorted(WAITING), _S.STARTED)
ENDED: Final = frozenset({_S.SUCCESS, _S.FAILED, _S.CANCEL, _S.ABORT, _S.TIMEOUT, _S.MAXRETRIES})

TRANSITIONS: Final[Mapping[Status | None, frozenset[Status]]] = MappingProxyType(
    {
        # None: the job does not exist yet; it is enqueued, or admitted from a raw queue.
        None: frozenset({_S.QUEUED, _S.STARTED}),
        _S.QUEUED: frozenset({_S.STARTED, _S.CANCEL}),
        _S.RETRY: frozenset({_S.STARTED, _S.CANCEL, _S.QUEUED}),
        _S.INTERRUPT: frozenset({_S.STARTED, _S.CANCEL, _S.QUEUED}),
        # started -> started is a new claim after the lease of the old claim expired;
        # started -> queued is a retry without delay, or a claim given back unstarted.
        _S.STARTED: frozenset(
            {
                _S.SUCCESS,
                _S.FAILED,
                _S.ABORT,
                _S.TIMEOUT,
                _S.RETRY,
                _S.MAXRETRIES,
                _S.INTERRUPT,
                _S.QUEUED,
                _S.STARTED,
                _S.CANCEL,
            }
        ),
        _S.SUCCESS: frozenset({_S.QUEUED}),
        _S.CANCEL: frozenset({_S.QUEUED}),
        _S.FAILED: frozenset({_S.QUEUED, _S.CANCEL}),
        _S.TIMEOUT: frozenset({_S.QUEUED, _S.CANCEL}),
        _S.MAXRETRIES: frozenset({_S.QUEUED, _S.CANCEL}),
        _S.ABORT: frozenset({_S.QUEUED, _S.CANCEL}),
    }
)


CANCELLABLE: Final = frozenset(
    status
    for status, following in TRANSITIONS.items()
    if status not in (None, _S.STARTED) and _S.CANCEL in following
)
"""Statuses in which a cancel ends a job at once. A started job is only marked."""


def is_legal(before: Status | None, now: Status) -> bool:
    """Whether a job may change from status `before` to status `now`."""
    return now in TRANSITIONS[before]


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An attempt that is over, with the status in which it ended.

    A lost claim has `lost` set. Its status is `started` if its lease expired, because no worker reported its
    end. If its worker reported that the job's own process died, the status is that of the job after it:
    `queued`, or `cancel` if a cancel was requested.
    """

    claim: int
    token: str
    started_at: datetime
    ended_at: datetime
    worker: str
    status: Status
    lost: bool = False
    exception_type: str | None = None
    traceback: str | None = None
    original_traceback: str | None = None


class JobRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The data of a job. Frozen: a broker makes every change, on the server.

    The fields from `started_at` to `memory_diff` describe the latest attempt; `history` holds
    the earlier attempts. Durations are seconds.
    """

    id: str
    path: str
    params: JsonObject
    queue: str
    raw_queue: str | None = None
    status: Status = Status.QUEUED
    priority: int = 0
    queued_at: datetime
    due_at: datetime | None = None
    """The due time of the entry; for a started job, the end of its lease. None: parked or ended."""
    waits_from: datetime | None = None
    """The time from which the job waits for its next attempt: when a delayed job, or a retry, is first due.
    None: `queued_at`."""
    updated_at: datetime
    ended_at: datetime | None = None
    expires_at: datetime | None = None
    at_most_once: bool = False

    started_at: datetime | None = None
    worker: str | None = None
    token: str | None = None
    lease_until: datetime | None = None
    progress: float = 0.0
    result: JsonValue = None
    exception_type: str | None = None
    exception_message: str | None = None
    """The first characters of the message; see `terms.MESSAGE_LIMIT`."""
    error_group: str | None = None
    """The task, the type and the raising frame; see `terms.error_group`."""
    traceback: str | None = None
    original_traceback: str | None = None
    """The traceback of the exception that caused a retry or a second exception."""
    total_time: float | None = None
    greenlet_time: float | None = None
    switches: int | None = None
    memory_diff: int | None = None

    claims: int = 0
    lost_claims: int = 0
    """The number of claims lost in a row. A finished attempt and a requeue set it to 0."""
    solo_deaths: int = 0
    """How many of these claims were lost because the job's own process died."""
    retry_count: int = 0
    history: tuple[Attempt, ...] = ()
    edits: int = 0
    """The number of edits. Together with `claims` it guards the next edit."""

    unique_key: str | None = None
    limit_keys: tuple[str, ...] = ()
    cancel_requested: bool = False
    schedule: str | None = None
    parents: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    meta: JsonObject = {}
    search_keys: JsonObject = {}
    """The search keys, taken from the params before they were encoded; see `mrq_core.contract.terms`."""

    @property
    def is_ended(self) -> bool:
        """Whether the job has ended and runs again only after a requeue."""
        return self.ended_at is not None

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The attempts that are over, oldest first, including the latest attempt once it is over."""
        if self.started_at is None or self.status is Status.STARTED:
            return self.history
        latest = Attempt(
            claim=self.claims,
            token=self.token or "",
            started_at=self.started_at,
            ended_at=self.ended_at or self.updated_at,
            worker=self.worker or "",
            status=self.status,
            exception_type=self.exception_type,
            traceback=self.traceback,
            original_traceback=self.original_traceback,
        )
        return (*self.history, latest)


class RetryDecision(msgspec.Struct, frozen=True, kw_only=True):
    """Whether to retry, and after how many seconds (None: as the retry rule says)."""

    retry: bool
    delay: float | None = None
