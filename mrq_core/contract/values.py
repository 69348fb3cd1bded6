"""Valid values of a new job, for values that users give and for records that plugins change."""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec.structs import replace

from mrq_core.clock import now_ms
from mrq_core.contract.codec import JsonObject, storable, storable_params
from mrq_core.contract.naming import check_job_queue_name, check_time
from mrq_core.contract.plain import has_type, is_utf8, text_of, whole_of
from mrq_core.contract.record import PRIORITY_MAX, PRIORITY_MIN, JobRecord
from mrq_core.contract.terms import check_keys
from mrq_core.errors import InvalidValue, shown
from mrq_core.ids import is_id, seconds_of

_PATH_MAX = 500
_KEY_MAX = 200
_IDEMPOTENCY_KEY_MAX = 255
_ID_MAX_AGE = 86_400.0
"""The most seconds between the time of a given id and the client's time."""


def check_job_id(job_id: object) -> str:
    """Returns the id of a job as plain text. Raises InvalidValue."""
    text = text_of(job_id)
    if not is_id(text):
        raise InvalidValue(
            f"job_id is {shown(job_id)}: expected 24 hex digits in lower case, such as queue_job returns",
            path="job_id",
        )
    return text


def check_new_id(job_id: object) -> str:
    """Returns the id for a new job as plain text. Raises InvalidValue, also for an id that was made more than
    a day ago or from now: ids order jobs by the time of their creation."""
    of_time = ""
    text = text_of(job_id)
    if is_id(text):
        made_at = seconds_of(text)
        if abs(now_ms() / 1000 - made_at) <= _ID_MAX_AGE:
            return text
        of_time = f", an id of {datetime.fromtimestamp(made_at, UTC):%Y-%m-%d %H:%M:%S} UTC"
    raise InvalidValue(
        f"job_id is {shown(job_id)}{of_time}: expected 24 hex digits of a new id, made within a day by "
        "mrq_core.ids.new_id(); idempotency_key takes any text and queues a job once",
        path="job_id",
    )


def check_idempotency_key(key: object) -> str:
    """Returns an idempotency key as plain text. Raises InvalidValue unless the key is text of 1 to 255
    characters that UTF-8 can hold."""
    text = text_of(key)
    if text and len(text) <= _IDEMPOTENCY_KEY_MAX and is_utf8(text):
        return text
    raise InvalidValue(
        f"idempotency_key is {shown(key)}: expected text of 1 to {_IDEMPOTENCY_KEY_MAX} characters that "
        "UTF-8 can hold",
        path="idempotency_key",
    )


def check_path(path: object) -> str:
    """Returns the path of a task as plain text. Raises InvalidValue unless it has the form ``module.Name``;
    the code of the task need not exist here."""
    text = text_of(path) or ""
    if not is_path(text):
        raise InvalidValue(
            f"task is {shown(path)}: expected a path such as 'module.Name', of at most {_PATH_MAX} "
            "characters",
            path="task",
        )
    return text


def is_path(text: str) -> bool:
    """Whether the text has the form ``module.Name`` and at most 500 characters."""
    parts = text.split(".") if len(text) <= _PATH_MAX else ()
    return len(parts) >= 2 and all(part.isidentifier() for part in parts)


def is_task_pattern(text: str) -> bool:
    """Whether the text is a pattern of `naming.is_task_in`: a path, or ``module.*``."""
    return is_path(f"{text[:-1]}x" if text.endswith(".*") else text)


def check_priority(priority: object) -> int:
    """Returns the priority of a job as a plain int. Raises InvalidValue."""
    number = whole_of(priority)
    if number is not None and PRIORITY_MIN <= number <= PRIORITY_MAX:
        return number
    raise InvalidValue(
        f"priority is {shown(priority)}: expected {PRIORITY_MIN} to {PRIORITY_MAX}, larger first",
        path="priority",
    )


def check_changes(before: JobRecord, after: JobRecord, *, max_params_size: int) -> JobRecord:
    """Returns the record `after`, which a plugin made of the new record `before`, with plain values. Params
    and meta are copies, which the plugin cannot change later.

    Raises InvalidValue for a value that a new job cannot have, and for a change of another field than path,
    params, queue, priority, due_at, at_most_once, limit_keys, search_keys and meta.
    """
    for name in _FIXED:
        value, expected = getattr(after, name), getattr(before, name)
        if value is not expected and (type(value) is not type(expected) or value != expected):
            raise InvalidValue(
                f"{name} is {shown(value)}: expected it unchanged ({shown(expected)}); a new job may have "
                f"other values of {', '.join(sorted(_CHANGEABLE))}",
                path=name,
            )
    if type(after.at_most_once) is not bool:
        raise InvalidValue(
            f"at_most_once is {shown(after.at_most_once)}: expected True or False", path="at_most_once"
        )
    return replace(
        after,
        path=after.path if after.path is before.path else check_path(after.path),
        params=storable_params(after.params, max_size=max_params_size),
        queue=check_job_queue_name(after.queue),
        priority=check_priority(after.priority),
        due_at=None if after.due_at is None else check_time(after.due_at, "due_at"),
        limit_keys=_checked_keys(after.limit_keys),
        search_keys=after.search_keys and check_keys(after.search_keys),
        meta=_checked_meta(after.meta, max_params_size),
    )


_CHANGEABLE = frozenset(
    {"path", "params", "queue", "priority", "due_at", "at_most_once", "limit_keys", "search_keys", "meta"}
)
_FIXED = tuple(name for name in JobRecord.__struct_fields__ if name not in _CHANGEABLE)


def _checked_keys(keys: object) -> tuple[str, ...]:
    is_list = has_type(keys, tuple) or has_type(keys, list)
    texts = [text_of(key) or "" for key in keys] if is_list else [""]  # type: ignore[attr-defined]
    if not all(0 < len(text) <= _KEY_MAX and text.isprintable() for text in texts):
        raise InvalidValue(
            f"limit_keys is {shown(keys)}: expected a tuple of printable names of 1 to {_KEY_MAX} characters",
            path="limit_keys",
        )
    return tuple(texts)


def _checked_meta(meta: object, max_size: int) -> JsonObject:
    if not has_type(meta, dict):
        raise InvalidValue(f"meta is {shown(meta)}: expected a dict of named values", path="meta")
    checked = storable(meta, name="meta", max_size=max_size)
    assert isinstance(checked, dict)
    return checked
