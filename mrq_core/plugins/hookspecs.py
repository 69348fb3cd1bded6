"""Every hook of mrq. A plugin is a module, or an object, with functions of these names marked with
`mrq_core.hookimpl`. mrq finds plugins through the entry-point group ``mrq``, the setting PLUGINS, and in the
config file. A hook without an implementation costs nothing per job.

mrq calls plugins in the order of pluggy: the last one loaded first. Installed plugins are loaded first, then
those of PLUGINS in their order, then the config file. ``@hookimpl(tryfirst=True)`` goes before, and
``trylast=True`` after the others. Wrappers of `mrq_around_job` alone nest in the order of loading.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Final

import pluggy
from msgspec.structs import replace

from mrq_core.contract.codec import JsonValue, copied
from mrq_core.contract.driver import Driver
from mrq_core.contract.messages import Outcome
from mrq_core.contract.record import JobRecord, RetryDecision

hookspec = pluggy.HookspecMarker("mrq")
hookimpl = pluggy.HookimplMarker("mrq")


# --- drivers ---------------------------------------------------------------------------------
# Called in plugins/manager.py.


@hookspec
def mrq_driver() -> Driver:  # type: ignore[empty-body]
    """Returns a broker driver. The module of the function must import nothing heavy."""


# --- policy ----------------------------------------------------------------------------------
# Called in plugins/manager.py for client/client.py (before_enqueue), and in worker/outcomes.py
# (retry_decision).


@hookspec
def mrq_before_enqueue(record: JobRecord) -> JobRecord | None:
    """Returns a changed copy of a record before it is enqueued, or None to leave it unchanged. Raises to
    refuse the job.

    Plugins form a chain: each gets the record that the plugin before it returned. A plugin may change path,
    params, queue, priority, due_at, at_most_once, limit_keys and meta. Other changes, and values that
    `queue_job` refuses, raise ConfigError. A changed due_at replaces the delay of the call. A plugin may also
    change the params and the meta of the record in place: they belong to this job alone, and are checked like
    those of a returned record.
    Runs in the process that enqueues, once per job. The params are as stored, after `mrq_encode`.
    """


@hookspec(firstresult=True)
def mrq_retry_decision(job: JobRecord, exception: BaseException) -> RetryDecision | None:
    """Decides whether a job whose code raised is retried. None leaves the decision to the next plugin, and at
    last to the options of the task.

    Runs in the worker. Not called for timeouts, interrupts, or a retry that the task asked for. If a plugin
    raises, returns another value or is interrupted, the options of the task decide, and the traceback of the
    job names the error.
    """


# --- around a job: a wrapper of its code ---------------------------------------------------------
# Called in worker/around.py.


class AttemptContext:
    """The attempt that a wrapper runs around. Each wrapper gets a separate object."""

    __slots__ = ("_job", "_outcome", "_record")

    def __init__(self, record: JobRecord) -> None:
        self._record = record
        self._job: JobRecord | None = None
        self._outcome: Outcome | None = None

    @property
    def job(self) -> JobRecord:
        """A copy of the record as it was claimed. Changes of its params reach neither the task nor other
        wrappers."""
        if self._job is None:
            record = self._record
            self._job = replace(record, params=copied(record.params), meta=copied(record.meta))
        return self._job

    @property
    def path(self) -> str:
        """The path of the task."""
        return self._record.path

    @property
    def attempt(self) -> int:
        """The number of the claim: 1 for the first attempt."""
        return self._record.claims

    @property
    def outcome(self) -> Outcome | None:
        """A copy of the outcome that is stored for this attempt. None: the code has not ended yet."""
        return self._outcome


@hookspec
def mrq_around_job(context: AttemptContext) -> Generator[None, Outcome, None]:
    """Runs around each attempt of a job: a generator, marked ``@hookimpl(wrapper=True)``, that yields once.

    At its `yield`, the params are decoded and the task's code runs. The `yield` then returns the Outcome of
    code that returned, or raises the exception that ended the attempt; a task that cannot be imported ends
    its attempt there too. Code that swallowed a timeout or a cancel has returned; its Outcome has the status.

    `context` has the record as it was claimed (`job`, with the params as they are stored), the path of the
    task (`path`), the number of the attempt (`attempt`), and from the `yield` on a copy of the Outcome
    (`outcome`).

    The wrapper runs in the worker and in `mrq run`, in the greenlet and the context of the job: the task's
    code sees the context variables that the wrapper sets, and the wrapper can use `get_current_job()` and
    `log`. Wrappers nest in the order in which plugins are loaded, the first outermost, with `tryfirst` before
    and `trylast` after the others. The job's timeout includes them, and interrupts reach them like the task's
    code.

    A wrapper does not change the outcome of code that ran:

    - It raises before its `yield`, or ends without a `yield`: the code does not run, and the attempt ends
      as if the code had raised the exception. An interrupt there ends the attempt as timeout, cancel or
      interrupt.
    - It raises after its `yield`, is interrupted there, or yields again: the error is logged with the job's
      id, and the outcome of the code is stored.
    - It swallows the exception of the code, or returns a value: this has no effect.

    Each wrapper sees how the code ended, whatever other wrappers did. Use `mrq_retry_decision` to decide
    about retries. Put work whose failure must fail the job, such as a commit, into the task's code or into
    the `run_wrapped` of a base class.
    """
    yield


# --- values ----------------------------------------------------------------------------------
# Called in plugins/manager.py: encode for client/client.py and worker/outcomes.py, decode for
# client/client.py and worker/executing.py.


@hookspec(firstresult=True)
def mrq_encode(value: JsonValue) -> JsonValue:
    """Transforms params or a result before they are stored, for instance to encrypt them. Must return a
    JSON value; the params must stay a dict, within MAX_PARAMS_SIZE. The encoded result takes at most twice
    MAX_RESULT_SIZE. A job whose result cannot be encoded fails.

    Runs in the worker for results; the timeout of the job includes it there."""


@hookspec(firstresult=True)
def mrq_decode(value: JsonValue) -> JsonValue:
    """Reverses `mrq_encode`. Must return a value unchanged that `mrq_encode` did not make.

    Runs in the worker for params; the timeout of the job includes it there. Records that the hook reads, such
    as that of the current job, have params and result as they are stored."""


# --- observers: batched; an error in one is logged and never fatal ------------------------------
# Called in plugins/manager.py (observe) for client/client.py (enqueued), worker/executing.py (started),
# worker/settling.py (settled), worker/worker_state.py (worker_event). A worker waits up to 5 s for them:
# worker/observers.py.


@hookspec
def mrq_jobs_enqueued(records: Sequence[JobRecord]) -> None:
    """This process enqueued these jobs. Jobs that existed already are left out, and jobs that an observer of
    this hook queues."""


@hookspec
def mrq_jobs_started(records: Sequence[JobRecord]) -> None:
    """A worker of this process claimed these jobs and is about to start them."""


@hookspec
def mrq_jobs_settled(settled: Sequence[tuple[JobRecord, Outcome]]) -> None:
    """The broker accepted the outcomes of these jobs. The records are as they were claimed."""


@hookspec
def mrq_worker_event(worker: str, event: str) -> None:
    """A worker of this process changed its status: init, wait, spawn, full, join, kill, stop."""


# --- the implementations that mrq calls ----------------------------------------------------------

FUNCTION: Final = "function"
WRAPPER: Final = "wrapper"
"""A generator function marked with ``@hookimpl(wrapper=True)``."""

KINDS: Final[Mapping[str, frozenset[str]]] = {
    "mrq_driver": frozenset({FUNCTION}),
    "mrq_before_enqueue": frozenset({FUNCTION}),
    "mrq_retry_decision": frozenset({FUNCTION, WRAPPER}),
    "mrq_around_job": frozenset({WRAPPER}),
    "mrq_encode": frozenset({FUNCTION, WRAPPER}),
    "mrq_decode": frozenset({FUNCTION, WRAPPER}),
    "mrq_jobs_enqueued": frozenset({FUNCTION}),
    "mrq_jobs_started": frozenset({FUNCTION}),
    "mrq_jobs_settled": frozenset({FUNCTION}),
    "mrq_worker_event": frozenset({FUNCTION}),
}
"""The kinds of implementations that mrq calls, by hook. Other implementations are refused at start."""
