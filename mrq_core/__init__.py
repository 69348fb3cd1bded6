"""mrq: a distributed task queue with gevent workers and pluggable brokers.

The public API is here. It is loaded when it is first used: importing `mrq_core` imports neither
gevent nor a broker's driver.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOMES = {
    "Task": "mrq_core.tasks",
    "task": "mrq_core.tasks",
    "Client": "mrq_core.client",
    "Job": "mrq_core.handles",
    "Queue": "mrq_core.handles",
    "configure": "mrq_core.client",
    "queue_job": "mrq_core.client",
    "queue_jobs": "mrq_core.client",
    "get_job_result": "mrq_core.client",
    "JobRecord": "mrq_core.job",
    "RetryDecision": "mrq_core.job",
    "Status": "mrq_core.job",
    "hookimpl": "mrq_core.hookspecs",
    "MrqError": "mrq_core.errors",
    "abort_current_job": "mrq_core.context",
    "get_current_config": "mrq_core.context",
    "get_current_job": "mrq_core.context",
    "get_current_worker": "mrq_core.context",
    "log": "mrq_core.context",
    "retry_current_job": "mrq_core.context",
    "run_task": "mrq_core.context",
    "set_current_job_progress": "mrq_core.context",
    "spawn": "mrq_core.context",
    "subpool_map": "mrq_core.context",
}

__all__ = [
    "Client",
    "Job",
    "JobRecord",
    "MrqError",
    "Queue",
    "RetryDecision",
    "Status",
    "Task",
    "abort_current_job",
    "configure",
    "get_current_config",
    "get_current_job",
    "get_current_worker",
    "get_job_result",
    "hookimpl",
    "log",
    "queue_job",
    "queue_jobs",
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
    value: object = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if TYPE_CHECKING:
    from mrq_core.client import Client, configure, get_job_result, queue_job, queue_jobs
    from mrq_core.context import (
        abort_current_job,
        get_current_config,
        get_current_job,
        get_current_worker,
        log,
        retry_current_job,
        run_task,
        set_current_job_progress,
        spawn,
        subpool_map,
    )
    from mrq_core.errors import MrqError
    from mrq_core.handles import Job, Queue
    from mrq_core.hookspecs import hookimpl
    from mrq_core.job import JobRecord, RetryDecision, Status
    from mrq_core.tasks import Task, task
