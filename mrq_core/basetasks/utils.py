"""The task that changes jobs by a filter, as MRQ 0.9 does."""

from __future__ import annotations

from mrq_core.basetasks.changing import begins_after, change_matching
from mrq_core.basetasks.params import (
    is_dry,
    moment_in,
    object_in,
    reading_params,
    refuse_others,
    texts_in,
)
from mrq_core.client.ambient import current_client
from mrq_core.contract.codec import JsonObject
from mrq_core.contract.messages import Action, Cancel, Requeue
from mrq_core.contract.naming import check_job_queue_name, check_served_name
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import JobRecord
from mrq_core.errors import InvalidParams, InvalidValue, shown
from mrq_core.ids import is_id
from mrq_core.operations.queries.filters import queue_names_from, statuses_from
from mrq_core.tasks.task import Task

_ACTIONS = ("cancel", "requeue", "requeue_retry")
_FILTERS = ("id", "queue", "status", "worker", "path", "exceptiontype", "params", "dateretry")


class JobAction(Task):
    """Cancels jobs or queues them again, by the filters ``id``, ``queue`` (a queue or a tree), ``status``,
    ``worker``, ``path``, ``exceptiontype``, ``params`` (JSON text or a dict) and ``dateretry`` (due until
    this time). The first six take a text, whose values commas separate, or a list.

    ``action`` is ``cancel``, ``requeue``, or ``requeue_retry``, which keeps retry_count.
    ``destination_queue`` is the queue of requeued jobs. Acts on jobs that were queued before its own job, or
    in the same millisecond. ``cancel`` marks running jobs and leaves succeeded jobs alone; the other actions
    leave running jobs alone.
    """

    timeout = 0.0

    def run(self, params: JsonObject) -> JsonObject:
        """Returns the numbers of ``requeued`` and ``cancelled``, or with ``dry_run`` those to change."""
        refuse_others(params, *_FILTERS, "action", "destination_queue", "dry_run")
        with reading_params():
            action = _action_from(params)
            if not any(params.get(name) is not None for name in _FILTERS):
                raise InvalidParams(f"no filter is given: expected some of {', '.join(_FILTERS)}")
            wanted = _filter_from(params)
            due_until, dry_run = moment_in(params, "dateretry"), is_dry(params)

        def is_meant(record: JobRecord) -> bool:
            return due_until is None or (record.due_at is not None and record.due_at <= due_until)

        number = change_matching(wanted, action, is_meant=is_meant, dry_run=dry_run)
        is_cancel = isinstance(action, Cancel)
        return {"requeued": 0 if is_cancel else number, "cancelled": number if is_cancel else 0}


def _action_from(params: JsonObject) -> Action:
    action, queue = params.get("action"), params.get("destination_queue")
    if action not in _ACTIONS:
        found = "no action is given" if action is None else f"action is {shown(action)}"
        raise InvalidParams(f"{found}: expected one of {', '.join(_ACTIONS)}")
    if action == "cancel":
        return Cancel(ttl=current_client().config.default_job_cancel_ttl)
    try:
        queue = None if queue is None else check_job_queue_name(queue)
    except InvalidValue as error:
        raise InvalidParams(f"destination_queue is invalid: {error}") from error
    return Requeue(queue=queue, reset_retries=action == "requeue")


def _filter_from(params: JsonObject) -> JobFilter:
    return JobFilter(
        ids=tuple(map(_checked_id, texts_in(params, "id"))),
        queues=_queues_in(params),
        statuses=statuses_from(texts_in(params, "status")),
        workers=texts_in(params, "worker"),
        paths=texts_in(params, "path"),
        exception_types=texts_in(params, "exceptiontype"),
        params=object_in(params, "params"),
        until=begins_after(),
    )


def _checked_id(text: str) -> str:
    if not is_id(text):
        raise InvalidParams(f"id is {shown(text)}: expected 24 hex digits in lower case")
    return text


def _queues_in(params: JsonObject) -> tuple[str, ...]:
    """The names of queues and trees. In a text, a name with commas has quotes, as on the command line."""
    given = params.get("queue")
    if isinstance(given, str) and given:
        return queue_names_from([given])
    return tuple(map(check_served_name, texts_in(params, "queue")))
