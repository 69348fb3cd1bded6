"""The task that changes jobs by a filter, as MRQ 0.9 does."""

from __future__ import annotations

import msgspec

from mrq_core.basetasks.changing import begins_after, change_matching, is_dry, moment_in, refuse_others
from mrq_core.client.ambient import current_client
from mrq_core.contract.codec import JsonObject, JsonValue, parsed
from mrq_core.contract.messages import Action, Cancel, Requeue
from mrq_core.contract.naming import check_job_queue_name, check_served_name
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import JobRecord
from mrq_core.contract.values import check_job_id
from mrq_core.errors import InvalidValue, shown
from mrq_core.operations.queries.filters import statuses_from
from mrq_core.tasks.task import Task

_ACTIONS = ("cancel", "requeue", "requeue_retry")
_FILTERS = ("id", "queue", "status", "worker", "path", "exceptiontype", "params", "dateretry")


class JobAction(Task):
    """Cancels jobs or queues them again, by the filters ``id``, ``queue`` (a name, a list, or a tree),
    ``status``, ``worker``, ``path``, ``exceptiontype``, ``params`` (JSON text or a dict) and ``dateretry``
    (due until this time).

    ``action`` is ``cancel``, ``requeue``, or ``requeue_retry``, which keeps retry_count.
    ``destination_queue`` is the queue of requeued jobs. Acts on jobs that were queued before its own job, or
    in the same millisecond. ``cancel`` marks running jobs and leaves succeeded jobs alone; the other actions
    leave running jobs alone.
    """

    timeout = 0.0

    def run(self, params: JsonObject) -> JsonObject:
        """Returns the numbers of ``requeued`` and ``cancelled``, or with ``dry_run`` those to change."""
        refuse_others(params, *_FILTERS, "action", "destination_queue", "dry_run")
        if not any(params.get(name) is not None for name in _FILTERS):
            raise InvalidValue(f"no filter is given: expected some of {', '.join(_FILTERS)}", path="params")
        wanted = _filter_from(params)
        due_until = moment_in(params, "dateretry")

        def is_meant(record: JobRecord) -> bool:
            return due_until is None or (record.due_at is not None and record.due_at <= due_until)

        action = _action_from(params)
        number = change_matching(wanted, action, is_meant=is_meant, dry_run=is_dry(params))
        is_cancel = isinstance(action, Cancel)
        return {"requeued": 0 if is_cancel else number, "cancelled": number if is_cancel else 0}


def _action_from(params: JsonObject) -> Action:
    action, queue = params.get("action"), params.get("destination_queue")
    if action not in _ACTIONS:
        raise InvalidValue(f"action is {shown(action)}: expected one of {', '.join(_ACTIONS)}", path="action")
    if action == "cancel":
        return Cancel(ttl=current_client().config.default_job_cancel_ttl)
    return Requeue(
        queue=None if queue is None else check_job_queue_name(queue), reset_retries=action == "requeue"
    )


def _filter_from(params: JsonObject) -> JobFilter:
    values = params.get("params")
    if isinstance(values, str):
        values = _parsed(values)
    if values is not None and not (isinstance(values, dict) and values):
        raise InvalidValue(
            f"params is {shown(values)}: expected a JSON object with a value, because an empty one matches "
            "all jobs",
            path="params",
        )
    return JobFilter(
        ids=tuple(map(check_job_id, _texts(params, "id"))),
        queues=tuple(map(check_served_name, _texts(params, "queue"))),
        statuses=statuses_from(_texts(params, "status")),
        workers=_texts(params, "worker"),
        paths=_texts(params, "path"),
        exception_types=_texts(params, "exceptiontype"),
        params=values or {},
        until=begins_after(),
    )


def _parsed(text: str) -> JsonValue:
    try:
        return parsed(text, name="params")
    except msgspec.DecodeError as error:
        raise InvalidValue(
            f"params is {shown(text)}, which is not valid JSON: {error}", path="params"
        ) from error


def _texts(params: JsonObject, name: str) -> tuple[str, ...]:
    """A param that is a text or a list of texts. An empty list would match all jobs, and is refused."""
    value: JsonValue = params.get(name)
    if value is None:
        return ()
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise InvalidValue(f"{name} is {shown(value)}: expected text, or a list of texts", path=name)
    return tuple(map(str, texts))
