"""The options of an enqueue: declared, checked and resolved in one place for every call that queues jobs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from datetime import datetime
from typing import TypedDict

from mrq_core.clock import from_ms, now_ms
from mrq_core.contract.naming import check_job_queue_name, check_times
from mrq_core.contract.record import JobRecord
from mrq_core.contract.values import check_idempotency_key, check_new_id, check_priority
from mrq_core.errors import shown
from mrq_core.tasks.loading import LoadedTask
from mrq_core.tasks.options import TaskOptions


class EnqueueOptions(TypedDict, total=False):
    """The options of all jobs of one enqueue. None means the default, like a missing option.

    - `priority`: -4 to 4; a worker claims larger priorities first. Default: the priority of the task, or 0.
    - `delay`: seconds until the job is due, by the broker's clock; 0 to 1e9. Default: due at once.
    - `at`: the time at which the job is due, an aware datetime with millisecond resolution. Excludes `delay`.

    The queue is not among the options: every call takes `queue` as an argument before them, because MRQ 0.9
    takes the queue by position.
    """

    priority: int | None
    delay: float | None
    at: datetime | None


class SingleEnqueueOptions(EnqueueOptions, total=False):
    """The options of an enqueue of one job: `EnqueueOptions`, and options that two jobs cannot share.

    - `idempotency_key`: text of 1 to 255 characters that queues a job once. While a job with this key is
      stored, no second job is queued and the call returns the id of the first, which stays unchanged even if
      task, params, queue or options differ. Default: no key.
    - `job_id`: the id of the job, made within a day: 24 hex digits in lower case. A job that has this id
      already stays unchanged, so a call can be repeated. Default: a new id.
    """

    idempotency_key: str | None
    job_id: str | None


_OPTIONS_OF_CALL = {
    "queue_job": SingleEnqueueOptions.__optional_keys__,
    "queue_jobs": EnqueueOptions.__optional_keys__,
}
_ARGUMENTS_OF_CALL = {
    "queue_job": ("task", "params", "queue"),
    "queue_jobs": ("task", "params_list", "queue", "batch_size"),
}


def record_template(
    call: str,
    path: str,
    queue: str | None,
    options: EnqueueOptions | SingleEnqueueOptions,
    defaults: LoadedTask | TaskOptions,
) -> JobRecord:
    """Returns the record that the jobs of one call share: without params, and without an id unless `job_id`
    gives it. `call` is the name of the called function. `delay` is checked, but is not part of a record.

    Raises InvalidValue for a value that makes no sense, and TypeError for an option that the call does
    not take.
    """
    if not _OPTIONS_OF_CALL[call].issuperset(options):
        raise TypeError(_unknown_option(call, options))
    priority, job_id, key = options.get("priority"), options.get("job_id"), options.get("idempotency_key")
    now = from_ms(now_ms())
    return JobRecord(
        id=check_new_id(job_id) if job_id is not None else "",
        path=path,
        params={},
        queue=check_job_queue_name(queue if queue is not None else defaults.queue or "default"),
        priority=check_priority(priority if priority is not None else defaults.priority or 0),
        queued_at=now,
        updated_at=now,
        due_at=check_times(options.get("delay"), options.get("at")),
        at_most_once=bool(defaults.at_most_once),
        unique_key=None if key is None else check_idempotency_key(key),
    )


def is_decided(
    overrides: TaskOptions, queue: str | None, options: EnqueueOptions | SingleEnqueueOptions
) -> bool:
    """Whether the call and TASKS set all options of a task that a new job needs, so that its code is not
    needed."""
    return (
        overrides.at_most_once is not None
        and overrides.searchable is not None
        and overrides.limits is not None
        and (queue is not None or overrides.queue is not None)
        and (options.get("priority") is not None or overrides.priority is not None)
    )


def _unknown_option(call: str, options: Iterable[str]) -> str:
    """Names the first option that the call does not take, and the option that its caller may mean."""
    known = sorted(_OPTIONS_OF_CALL[call])
    unknown = next(name for name in options if name not in known)
    for other, names in _OPTIONS_OF_CALL.items():
        if unknown in names:
            return f"{call}() has no option {shown(unknown)}: it is an option of {other}()"
    near = difflib.get_close_matches(unknown, [*known, *_ARGUMENTS_OF_CALL[call]], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f": expected {', '.join(known)}; params are a dict"
    return f"{call}() has no option {shown(unknown)}{hint}"
