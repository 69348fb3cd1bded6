"""mrq: a distributed task queue with gevent workers and pluggable brokers.

The public API is here. It is loaded when it is first used: importing `mrq_core` imports neither
gevent nor a broker's driver.
"""

from __future__ import annotations

import importlib
import sys

try:
    from typing import TYPE_CHECKING

    from mrq_core import errors
    from mrq_core.config.importing import import_whole
    from mrq_core.drivers import forks, open_files  # before other threads import the rest  # noqa: F401
    from mrq_core.errors import MrqError
except Exception as error:
    from mrq_core.config.hidden import hiding

    if (sentence := hiding(error, anywhere=True)) is None:
        raise
    raise ImportError(f"mrq cannot be imported: {sentence}") from error

__version__ = "1.0.0.dev0"

_HOMES = {
    "Task": "mrq_core.tasks.task",
    "task": "mrq_core.tasks.task",
    "Client": "mrq_core.client.client",
    "Job": "mrq_core.client.handles",
    "Limit": "mrq_core.contract.messages",
    "Queue": "mrq_core.client.handles",
    "Schedule": "mrq_core.client.schedules",
    "add_schedule": "mrq_core.client.schedules",
    "configure": "mrq_core.client.ambient",
    "queue_job": "mrq_core.client.ambient",
    "queue_jobs": "mrq_core.client.ambient",
    "get_job_result": "mrq_core.client.ambient",
    "pause_task": "mrq_core.client.handles",
    "resume_task": "mrq_core.client.handles",
    "JobRecord": "mrq_core.contract.record",
    "RetryDecision": "mrq_core.contract.record",
    "Status": "mrq_core.contract.record",
    "hookimpl": "mrq_core.plugins.hookspecs",
    "abort_current_job": "mrq_core.running.context",
    "get_current_config": "mrq_core.running.context",
    "get_current_job": "mrq_core.running.context",
    "get_current_worker": "mrq_core.running.context",
    "log": "mrq_core.running.context",
    "retry_current_job": "mrq_core.running.context",
    "run_task": "mrq_core.running.helpers",
    "set_current_job_progress": "mrq_core.running.context",
    "spawn": "mrq_core.running.helpers",
    "subpool_map": "mrq_core.running.helpers",
}

__all__ = [
    "Client",
    "Job",
    "JobRecord",
    "Limit",
    "MrqError",
    "Queue",
    "RetryDecision",
    "Schedule",
    "Status",
    "Task",
    "abort_current_job",
    "add_schedule",
    "configure",
    "get_current_config",
    "get_current_job",
    "get_current_worker",
    "get_job_result",
    "hookimpl",
    "log",
    "pause_task",
    "queue_job",
    "queue_jobs",
    "resume_task",
    "retry_current_job",
    "run_task",
    "set_current_job_progress",
    "spawn",
    "subpool_map",
    "task",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'mrq_core' has no attribute {name!r}")
    try:
        import_whole(home)
        value: object = getattr(importlib.import_module(home), name)
    except MrqError:
        raise
    except Exception as error:  # of mrq, of a module that replaces another one, or of an import hook
        if _is_of_signal_handler(error):
            raise
        raise _error_of_import(f"mrq_core.{name}", error) from error
    globals()[name] = value
    return value


def _error_of_import(wanted: str, error: Exception) -> MrqError:
    if open_files.are_used_up(error):
        return errors.BrokerUnavailable(f"{wanted} cannot be imported: {open_files.advice()}")
    problem = _problem_of_import() if isinstance(error, AttributeError | ImportError) else None
    if problem is not None:
        return errors.BrokerUnavailable(f"{wanted} cannot be used {problem}: use it once before")
    from mrq_core.config.hidden import explained

    text = f"{wanted} cannot be imported: {errors.shown_error(error)}"
    return errors.ImportFailed(explained(text, error, anywhere=True))


def _is_of_signal_handler(error: Exception) -> bool:
    try:
        from mrq_core.contract.signal_errors import raised_by_handler
    except Exception:  # neither can this be imported
        return False
    return raised_by_handler(error) is not None


def _problem_of_import() -> str | None:
    """Why a module of mrq cannot be imported now, other than a fault in it."""
    finders: object = sys.meta_path
    if finders is None:
        return "for the first time while the interpreter ends"
    ours = (module for name, module in sys.modules.copy().items() if name.startswith("mrq_core."))
    if any(getattr(getattr(module, "__spec__", None), "_initializing", False) for module in ours):
        return "in a signal handler or a finalizer that interrupts the import of mrq"
    return None


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if TYPE_CHECKING:
    from mrq_core.client.ambient import configure, get_job_result, queue_job, queue_jobs
    from mrq_core.client.client import Client
    from mrq_core.client.handles import Job, Queue, pause_task, resume_task
    from mrq_core.client.schedules import Schedule, add_schedule
    from mrq_core.contract.messages import Limit
    from mrq_core.contract.record import JobRecord, RetryDecision, Status
    from mrq_core.plugins.hookspecs import hookimpl
    from mrq_core.running.context import (
        abort_current_job,
        get_current_config,
        get_current_job,
        get_current_worker,
        log,
        retry_current_job,
        set_current_job_progress,
    )
    from mrq_core.running.helpers import run_task, spawn, subpool_map
    from mrq_core.tasks.task import Task, task
