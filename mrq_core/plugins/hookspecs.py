"""Every hook of mrq. A plugin is a module, or an object, with functions of these names marked by
`mrq_core.hookimpl`; it is found through the entry-point group ``mrq``, the setting PLUGINS, or by
standing in the config file. A hook that nobody implements costs nothing per job.
"""

from __future__ import annotations

from collections.abc import Sequence

import pluggy

from mrq_core.contract.codec import JsonValue
from mrq_core.contract.driver import Driver
from mrq_core.contract.messages import Outcome
from mrq_core.contract.record import JobRecord, RetryDecision

hookspec = pluggy.HookspecMarker("mrq")
hookimpl = pluggy.HookimplMarker("mrq")


# --- drivers ---------------------------------------------------------------------------------


@hookspec
def mrq_driver() -> Driver:  # type: ignore[empty-body]
    """Returns a broker driver. The module it stands in must import nothing heavy."""


# --- policy: the first result that is not None wins --------------------------------------------


@hookspec(firstresult=True)
def mrq_before_enqueue(record: JobRecord) -> JobRecord | None:
    """May return a changed copy of a record that is about to be enqueued, or raise to refuse it.

    Runs in the process that enqueues, once per job. The id must stay.
    """


@hookspec(firstresult=True)
def mrq_retry_decision(job: JobRecord, exception: BaseException) -> RetryDecision | None:
    """Decides whether a job whose code raised is retried. None leaves it to the task's own rules.

    Runs in the worker. Not called for timeouts, interrupts, or a retry that the task asked for.
    """


# --- values: one plugin transforms them -------------------------------------------------------


@hookspec(firstresult=True)
def mrq_encode(value: JsonValue) -> JsonValue:
    """Transforms params or a result before it is stored, for instance to encrypt it. Must return a
    JSON value; the params must stay a dict."""


@hookspec(firstresult=True)
def mrq_decode(value: JsonValue) -> JsonValue:
    """Undoes mrq_encode. Must return what it was given if that did not come from mrq_encode."""


# --- observers: batched; an error in one is logged and never fatal ------------------------------


@hookspec
def mrq_jobs_enqueued(records: Sequence[JobRecord]) -> None:
    """These jobs were enqueued by this process: created, not found to be there already."""


@hookspec
def mrq_jobs_started(records: Sequence[JobRecord]) -> None:
    """A worker of this process claimed these jobs and is about to start them."""


@hookspec
def mrq_jobs_settled(settled: Sequence[tuple[JobRecord, Outcome]]) -> None:
    """The outcomes of these jobs were accepted by the broker. The records are as they were claimed."""


@hookspec
def mrq_worker_event(worker: str, event: str) -> None:
    """A worker of this process changed its status: init, wait, spawn, full, join, kill, stop."""
