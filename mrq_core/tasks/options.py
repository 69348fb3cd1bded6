"""The options of a task: arguments of `@task`, attributes of a `Task` class, and values of TASKS."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import msgspec

from mrq_core.contract.messages import Limit
from mrq_core.contract.naming import MAX_SECONDS, check_job_queue_name
from mrq_core.contract.plain import has_type, text_of
from mrq_core.contract.record import PRIORITY_MAX, PRIORITY_MIN
from mrq_core.contract.rules import checked_limit
from mrq_core.contract.signal_errors import raised_by_handler
from mrq_core.contract.terms import check_keys
from mrq_core.drivers.limits import rule_of
from mrq_core.errors import ConfigError, Interrupt, InvalidValue, shown
from mrq_core.tasks.limits import params_named


class TaskOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options of a task. None takes the value of the configuration. Durations are seconds.

    A `timeout` of 0 disables the timeout. `retry_on` names the exceptions after which a job is retried.
    A `max_retries` of 0 allows no retry. A TTL of 0 removes the job when it ends.
    An `at_most_once` task is never started twice, even after a lost claim. An `isolate` task runs in a
    separate process. `memory` limits the resident memory of that process and its children, as a number of
    bytes or as text such as ``512MB`` or ``2GiB``; it implies `isolate`. `searchable` names params by whose
    values jobs are found, such as ``user_id``, or ``order.id`` for a value inside a dict. `limits` has the
    limit rules of the jobs, by name: ``{"api": Limit(concurrency=5)}`` counts all jobs of the rule together,
    and ``{"api:{customer}": Limit(rate=10)}`` those of each value of the param `customer`. `every` (seconds)
    or `cron` (an expression) makes a schedule of the task, as an entry of SCHEDULER_TASKS does; `schedule`
    has further keys of that entry. Subclasses do not inherit the three.

    A new option is also an attribute of `Task`, and `loading.resolve_options` gives it its default.
    """

    queue: str | None = None
    priority: int | None = None
    timeout: float | None = None
    max_retries: int | None = None
    retry_delay: float | None = None
    retry_backoff: float | None = None
    retry_max_delay: float | None = None
    retry_jitter: bool | None = None
    retry_on: tuple[type[BaseException], ...] | None = None
    result_ttl: float | None = None
    abort_ttl: float | None = None
    cancel_ttl: float | None = None
    default_ttl: float | None = None
    at_most_once: bool | None = None
    isolate: bool | None = None
    memory: int | str | None = None
    searchable: tuple[str, ...] | None = None
    limits: dict[str, Limit] | None = None
    every: float | None = None
    cron: str | None = None
    schedule: dict[str, Any] | None = None


OPTION_NAMES = TaskOptions.__struct_fields__


def options_from(values: Mapping[str, object], *, where: str) -> TaskOptions:
    """Converts a mapping to options. Raises ConfigError, which names the invalid option."""
    given: dict[str, Any] = {}
    for name, value in values.items():
        text = text_of(name)
        if text is not None and text in OPTION_NAMES:
            given[text] = value
        else:
            near = difflib.get_close_matches(text or "", OPTION_NAMES, n=1)
            raise ConfigError(
                f"{where}: {shown(name)} is not an option of a task"
                + (f"; did you mean {near[0]!r}?" if near else f": expected one of {', '.join(OPTION_NAMES)}")
            )
    retry_on = _retry_on(given.pop("retry_on", None), where)
    every = given.get("every")
    if has_type(every, timedelta):
        given["every"] = timedelta.total_seconds(every)
    try:
        options = msgspec.convert(given, TaskOptions)
    except Exception as error:  # of msgspec, or of a value that msgspec reads by its methods
        if raised_by_handler(error) is not None:
            raise
        raise ConfigError(f"{where}: {_misfit(given, error)}") from error
    for name in ("timeout", "max_retries", "retry_delay", "retry_backoff", "retry_max_delay", "result_ttl",
                 "abort_ttl", "cancel_ttl", "default_ttl"):  # fmt: skip
        number = getattr(options, name)
        if number is not None and not 0 <= number <= MAX_SECONDS:
            raise ConfigError(
                f"{where}: {name} is {shown(number)}: expected a number that is not negative, "
                f"up to {MAX_SECONDS:.0e}"
            )
    _check_delays(options, where)
    if options.priority is not None and not PRIORITY_MIN <= options.priority <= PRIORITY_MAX:
        raise ConfigError(
            f"{where}: priority is {shown(options.priority)}: "
            f"expected {PRIORITY_MIN} to {PRIORITY_MAX}, larger first"
        )
    queue = options.queue
    if queue is not None:
        try:
            queue = check_job_queue_name(queue)
        except InvalidValue as error:
            raise ConfigError(f"{where}: {error}") from error
    if options.memory is not None:
        size_of(options.memory, where=where)
    searchable = (
        None if options.searchable is None else tuple(text_of(name) or "" for name in options.searchable)
    )
    if searchable is not None:
        try:
            check_keys(dict.fromkeys(searchable, ""))
        except InvalidValue as error:
            raise ConfigError(f"{where}: searchable: {error}") from error
    limits: dict[str, Limit] = {}
    try:
        for key, limit in (options.limits or {}).items():
            key = text_of(key) or ""
            limits[key] = checked_limit(rule_of(key), limit)
            params_named(key)
    except InvalidValue as error:
        raise ConfigError(f"{where}: {error}") from error
    _check_schedule(options, where)
    return msgspec.structs.replace(
        options,
        queue=queue,
        searchable=searchable,
        limits=None if options.limits is None else limits,
        retry_on=retry_on,
    )


def _retry_on(value: object, where: str) -> tuple[type[BaseException], ...] | None:
    """The exception classes of this value. Raises ConfigError. Calls no method of a subclass."""
    kinds: tuple[object, ...] | None = None
    if value is None:
        return None
    if has_type(value, type):
        kinds = (value,)
    elif has_type(value, tuple):
        kinds = tuple(tuple.__iter__(value))
    elif has_type(value, list):
        kinds = tuple(list.__iter__(value))
    found = [kind for kind in kinds or () if has_type(kind, type) and issubclass(kind, BaseException)]
    if kinds is None or len(found) < len(kinds):
        raise ConfigError(f"{where}: retry_on is {shown(value)}: expected a tuple of exception classes")
    _refuse_interrupts(found, where)
    return tuple(found)


def _refuse_interrupts(retry_on: Iterable[type[BaseException]], where: str) -> None:
    """Raises ConfigError for the interrupts of mrq, after which no job is retried."""
    for kind in retry_on:
        if issubclass(kind, Interrupt) or issubclass(Interrupt, kind):
            what = "includes the interrupts" if kind is BaseException else "is an interrupt"
            raise ConfigError(
                f"{where}: retry_on has {kind.__name__}, which {what} of mrq, and after these no job is "
                "retried: expected Exception, or the classes that the code of the task raises"
            )


def _check_delays(options: TaskOptions, where: str) -> None:
    backoff, delay, most = options.retry_backoff, options.retry_delay, options.retry_max_delay
    if backoff is not None and backoff < 1:
        raise ConfigError(
            f"{where}: retry_backoff is {backoff:g}: expected at least 1, because each retry waits that "
            "many times longer than the one before"
        )
    if most == 0:
        raise ConfigError(
            f"{where}: retry_max_delay is 0: expected a number above 0; retry_delay=0 retries at once"
        )
    if delay is not None and most is not None and delay > most:
        raise ConfigError(
            f"{where}: retry_delay is {delay:g}, and retry_max_delay is {most:g}: expected a delay up to "
            "the longest delay"
        )


def schedule_entry(
    path: str, every: float | None, cron: str | None, schedule: Mapping[str, object] | None
) -> dict[str, object] | None:
    """The entry of SCHEDULER_TASKS that means the same as these options of a task. None: no schedule."""
    if every is None and cron is None and schedule is None:
        return None
    given = {"interval": every, "cron": cron}
    return {
        **(schedule or {}),
        "path": path,
        **{key: value for key, value in given.items() if value is not None},
    }


def _check_schedule(options: TaskOptions, where: str) -> None:
    entry = schedule_entry("tasks.task", options.every, options.cron, options.schedule)
    if entry is not None:
        from mrq_core.scheduler.definitions import definition_from  # loads the zones: only where it is needed

        try:
            definition_from(entry)
        except InvalidValue as error:
            raise ConfigError(f"{where}: {error}") from error


def _misfit(values: Mapping[str, object], error: Exception) -> str:
    """What is wrong with the first option that has another type."""
    for name, value in values.items():
        try:
            msgspec.convert({name: value}, TaskOptions)
        except Exception:
            kind = str(TaskOptions.__annotations__[name]).removesuffix(" | None")
            return f"{name} is {shown(value)}: expected {_EXPECTED[kind]}"
    return str(error)


_MEMORY = "a number of bytes, or text such as '512MB' or '2GiB', of at least 1MB"
_EXPECTED = {
    "int | str": _MEMORY,
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "True or False",
    "tuple[str, ...]": "a tuple of names of params",
    "dict[str, Any]": "a dict with keys of a schedule, such as {'timezone': 'Europe/Berlin'}",
    "dict[str, Limit]": "a dict of limits, such as {'api': Limit(concurrency=5)}",
}


_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kMGT]?)(i?)B?\s*", re.IGNORECASE)
_SMALLEST, _LARGEST = 1_000_000, 2**63 - 1


def size_of(memory: int | str, *, where: str) -> int:
    """The number of bytes that a value of `memory` means. Raises ConfigError."""
    match = _SIZE.fullmatch(memory) if isinstance(memory, str) else None
    if isinstance(memory, int):
        size = memory
    elif match is not None:
        base = 1024 if match[3] else 1000
        size = int(float(match[1]) * base ** " KMGT".index(match[2].upper() or " "))
    else:
        size = 0
    if not _SMALLEST <= size <= _LARGEST:
        raise ConfigError(f"{where}: memory is {shown(memory)}: expected {_MEMORY}")
    return size
