"""Every error that mrq raises, in one tree.

A message says what was found, what was expected and what to do; the facts are
attributes as well. `MrqError` is what a caller catches. The interrupts below it
are not errors: they end the code of a running task, and derive from
`BaseException` so that a task's ``except Exception`` does not swallow them.
"""

from __future__ import annotations


class MrqError(Exception):
    """The root of all errors of mrq."""


# --- configuration -----------------------------------------------------------------------


class ConfigError(MrqError):
    """The configuration cannot be used as it is. The command line exits with 2."""


class DriverNotFound(ConfigError):
    """No installed driver has the name, or opens the URL, that was asked for."""

    def __init__(self, message: str, *, wanted: str, installed: tuple[str, ...]) -> None:
        super().__init__(message)
        self.wanted = wanted
        self.installed = installed


# --- values ------------------------------------------------------------------------------


class InvalidValue(MrqError, ValueError):
    """A value cannot be stored; `path` names the place inside it, such as ``params.users[3]``."""

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path


class ValueTooLarge(InvalidValue):
    """A value is larger, once encoded, than its limit. Sizes are bytes."""

    def __init__(self, message: str, *, path: str, size: int, limit: int) -> None:
        super().__init__(message, path=path)
        self.size = size
        self.limit = limit


class InvalidParams(MrqError, ValueError):
    """The params do not fit the arguments of the task."""


# --- tasks -------------------------------------------------------------------------------


class TaskError(MrqError):
    """A job's path does not lead to a task. Nothing of the task ran."""

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path


class TaskNotFound(TaskError):
    """The module, or the name inside the module, does not exist."""


class TaskImportFailed(TaskError):
    """The module exists, and importing it raised."""


class NotATask(TaskError):
    """The path leads to something that is neither a Task subclass nor a decorated function."""


# --- jobs --------------------------------------------------------------------------------


class JobError(MrqError):
    """Something asked of one job cannot be done."""

    def __init__(self, message: str, *, job_id: str) -> None:
        super().__init__(message)
        self.job_id = job_id


class JobNotFound(JobError):
    """No job has this id: it never existed, was removed, or has expired."""

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"no job has the id {job_id!r}: it never existed, was removed, or has expired", job_id=job_id
        )


class ChangeRefused(JobError):
    """The job's status does not allow this change."""


class WaitTimeout(JobError, TimeoutError):
    """The job had not ended when the time to wait for it was over."""


class ClaimLost(JobError):
    """A claim ran out while its job was running, and the job may not be run again."""


class NoCurrentJob(MrqError):
    """Code that only a running job may call was called outside of one."""


# --- brokers -----------------------------------------------------------------------------


class BrokerError(MrqError):
    """The broker could not do what was asked."""


class BrokerUnavailable(BrokerError):
    """The broker is away, locked, full or read-only. The call may be repeated later as it was."""


class BrokerCorrupt(BrokerError):
    """What the broker holds cannot be read. Repeating the call does not help; a person must look."""


class SchemaTooNew(BrokerError):
    """The broker's data were written by a newer version of mrq."""

    def __init__(self, message: str, *, found: int, supported: int) -> None:
        super().__init__(message)
        self.found = found
        self.supported = supported


class NotSupported(BrokerError):
    """The configured driver does not offer this part of the contract."""


# --- interrupts --------------------------------------------------------------------------


class Interrupt(BaseException):
    """Ends the code of a running task from the outside, or at its own wish."""


class TimeoutInterrupt(Interrupt):
    """The job ran longer than its timeout."""


class JobInterrupt(Interrupt):
    """The worker has to stop."""


class CancelInterrupt(Interrupt):
    """Somebody cancelled the job and asked to interrupt it."""


class AbortInterrupt(Interrupt):
    """The task called abort_current_job()."""


class RetryInterrupt(Interrupt):
    """The task called retry_current_job(). None means: as the task's options say. Delays are seconds."""

    def __init__(
        self, *, delay: float | None = None, max_retries: int | None = None, queue: str | None = None
    ) -> None:
        super().__init__("the task asked to be retried")
        self.delay = delay
        self.max_retries = max_retries
        self.queue = queue
