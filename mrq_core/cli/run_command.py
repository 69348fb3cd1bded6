"""`mrq run`: one task, here and now, or queued for a worker."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Annotated, Any

import msgspec
import typer

from mrq_core.cli.errors import EXIT_INTERRUPTED, CommandFailed, UsageError, named_as_typed
from mrq_core.cli.options import Given, command
from mrq_core.cli.output import note, print_json, safe
from mrq_core.cli.terminal import (
    flush_result,
    is_output_gone,
    output_error,
    restore_errors,
    restore_streams,
    result_output,
)
from mrq_core.client.ambient import set_process_client
from mrq_core.client.client import Client
from mrq_core.config.secrets import hide_secrets
from mrq_core.config.settings import Config
from mrq_core.contract.codec import JsonObject, fault_in, parsed, storable_params
from mrq_core.contract.messages import Outcome
from mrq_core.contract.plain_tracebacks import repr_of_error
from mrq_core.contract.record import Status
from mrq_core.contract.signal_errors import is_ctrl_c
from mrq_core.contract.values import check_path
from mrq_core.errors import TaskError, shown

_NOT_REACHED = frozenset(f"mrq_core.errors.{name}" for name in ("TaskNotFound", "NotATask", "InvalidParams"))
"""Errors before any code of the task ran: their message says it all."""
_OWN_WISHES = frozenset(f"mrq_core.errors.{name}" for name in ("RetryInterrupt", "AbortInterrupt"))
_EXPECTED = "expected one JSON object, such as '{\"n\": 1}', or pairs of key and value, such as n 1"


@command("broker", "tasks", "logs", "plugins")
def run(
    given: Given,
    task: Annotated[str, typer.Argument(metavar="TASK", help="The task's path: module.Name.")],
    params: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="JSON | KEY VALUE",
            help="The params: one JSON object, or keys and values; such values are strings.",
            show_default=False,
        ),
    ] = None,
    queue: Annotated[
        str | None, typer.Option("--queue", metavar="QUEUE", help="Queue it there instead.")
    ] = None,
    later: Annotated[bool, typer.Option("--async", help="Queue it on the task's own queue instead.")] = False,
    key: Annotated[
        str | None,
        typer.Option(
            "--idempotency-key",
            metavar="TEXT",
            help="Queue it once: while a job with this key is stored, print the id of that job instead.",
        ),
    ] = None,
) -> None:
    """Runs a task here and prints its result as JSON; logs go to standard error.

    With --queue or --async it queues a job instead, and prints its id.

    Examples: `mrq run tasks.Add '{"a": 1}'`, `mrq run tasks.Greet name Anna --queue high`.

    What a task and the programs that it starts print goes to standard error as well. Write -- in front of
    params that begin with a dash.
    """
    from mrq_core.operations.checking.checks import check_task_options
    from mrq_core.operations.hidden_params import params_with_secrets
    from mrq_core.running.logs import logging_kept, set_up_logging

    check_path(task)
    values = params_with_secrets(params_from(params or ()), {})
    if key is not None and not later and queue is None:
        raise UsageError("--idempotency-key is for a queued job: add --async, or --queue with a queue")
    config = given.config()
    check_task_options(config)
    set_up_logging(config)
    with logging_kept():
        client = set_process_client(Client(config))
    restore_streams()
    try:
        if later or queue is not None:
            _enqueue(client, task, values, queue, key)
        else:
            _run_here(client, config, task, values)
    finally:
        client.close()


def params_from(words: Sequence[str]) -> JsonObject:
    """The params that these arguments mean. Raises UsageError."""
    if not words:
        return {}
    first = words[0].lstrip()
    if len(words) == 1 or first.startswith("{"):
        return _from_json(words)
    if len(words) % 2:
        raise UsageError(
            f"the params are {len(words)} words, and {_named(words[-1])} has no value: {_EXPECTED}"
        )
    params: JsonObject = {}
    for key, value in zip(words[::2], words[1::2], strict=True):
        if key in params:
            raise UsageError(f"the params name {shown(key)} twice: expected each key once")
        params[key] = value
    return params


def _from_json(words: Sequence[str]) -> JsonObject:
    text = words[0]
    try:
        value = parsed(text, name="params")
    except msgspec.DecodeError as error:
        if text.lstrip().startswith(("{", "[")):
            raise UsageError(
                f"the params are not valid JSON: {fault_in(text, error)}; {_EXPECTED}"
            ) from error
        raise UsageError(f"the params are only {_named(text)}, a key without a value: {_EXPECTED}") from error
    if len(words) > 1:
        raise UsageError(f"{_named(words[1])} follows the JSON of the params: {_EXPECTED}")
    if not isinstance(value, dict):
        raise UsageError(f"the params {shown(hide_secrets('', value))} are JSON, and no object: {_EXPECTED}")
    return value


def _named(word: str) -> str:
    """The word, if it may be a key; others may have secrets, as `password=hush` has."""
    return shown(word) if word.isidentifier() else "one word"


def _enqueue(client: Client, task: str, params: JsonObject, queue: str | None, key: str | None) -> None:
    from mrq_core.tasks.loading import find_task

    problem = None
    try:
        find_task(task)
    except TaskError as error:
        problem = error
    with named_as_typed(queue="--queue", idempotency_key="--idempotency-key"):
        job_id = client.queue_job(task, params, queue=queue, idempotency_key=key)
    if problem is not None:
        note(f"mrq: queued all the same, as a worker may find it elsewhere: {problem}")
    print(job_id, file=result_output(), flush=True)
    if is_output_gone() or output_error() is not None:
        note(f"mrq: the job {job_id} is queued; standard output did not take its id")


def _run_here(client: Client, config: Config, task: str, params: JsonObject) -> None:
    checked = storable_params(params, max_size=config.max_params_size)
    outcome = _run_synchronously(client, config, task, client.plugins.encode_params(checked))
    if outcome.status is Status.SUCCESS:
        print_json(client.plugins.decode(outcome.result))
        flush_result()
        return
    kind, text = outcome.exception_type or "", (outcome.traceback or "").rstrip()
    if kind in _NOT_REACHED:
        raise CommandFailed(text.rpartition(f"{kind}: ")[2])
    if kind not in _OWN_WISHES:
        print(safe(text), file=sys.stderr)
    raise CommandFailed(_explained(task, outcome))


def _run_synchronously(client: Client, config: Config, task: str, params: JsonObject) -> Outcome:
    """Runs the task in a new context, for a job that no broker knows, without timeouts."""
    import gevent

    from mrq_core.client.ambient import ambient_client
    from mrq_core.clock import SystemClock, from_ms
    from mrq_core.contract.record import JobRecord
    from mrq_core.ids import new_id
    from mrq_core.running.context import JobContext, current_context
    from mrq_core.running.job_log import JobLog, current_log
    from mrq_core.worker.executing import Runner
    from mrq_core.worker.guards import forking
    from mrq_core.worker.guards.logging_lock import guard_logging_locks

    now = from_ms(SystemClock().now_ms())
    record = JobRecord(
        id=new_id(),
        path=task,
        params=params,
        queue="default",
        status=Status.STARTED,
        queued_at=now,
        updated_at=now,
        started_at=now,
        worker=config.worker_name(os.getpid()),
        claims=1,
    )
    # Otherwise gevent prints something at Ctrl-C, before it raises KeyboardInterrupt in the task.
    hub = gevent.get_hub()
    hub.NOT_ERROR = (*hub.NOT_ERROR, KeyboardInterrupt)
    setattr(hub, "handle_system_error", partial(_end_greenlet, hub.handle_system_error))  # noqa: B010
    context = JobContext(record, client, JobLog(record.id, 1, max_size=0))
    tokens = (current_context.set(context), current_log.set(context.log), ambient_client.set(client))
    errors = sys.stderr
    guard_logging_locks()  # a child that a log handler forks raises the handler's error, not one of its lock
    gevent.sleep(0)  # a native thread that forks while the loop starts would break the loop of the child
    forking.enter_worker()
    try:
        outcome = Runner(config, client.plugins).run(context)
        if context.error is not None and is_ctrl_c(context.error):
            sys.exit(EXIT_INTERRUPTED)
        return outcome
    finally:
        _end_timers()
        forking.leave_worker()
        restore_errors(errors)
        current_context.reset(tokens[0])
        current_log.reset(tokens[1])
        ambient_client.reset(tokens[2])


def _end_timers() -> None:
    """Ends what would end the command after its task, before the result is printed."""
    for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        signal.setitimer(timer, 0)
    faulthandler.cancel_dump_traceback_later()


def _end_greenlet(
    raise_in_main: Callable[..., None], kind: object, value: Any, frames: object = None
) -> None:
    """Takes what ends another greenlet or a callback of the task. gevent would raise it in the main greenlet,
    which is right for a Ctrl-C only."""
    if issubclass(type(value), SystemError) or is_ctrl_c(value):
        raise_in_main(kind, value, frames)
        return
    line = safe(f"mrq: {repr_of_error(value)} has ended a greenlet of the task, and not the task")
    with suppress(OSError):
        os.write(2, f"{line}\n".encode(errors="backslashreplace"))  # the hub may wait for no lock


def _explained(task: str, outcome: Outcome) -> str:
    match outcome.status:
        case Status.RETRY | Status.QUEUED:
            return f"{task} asked to be retried after {outcome.delay or 0:g} s, which only a worker does"
        case Status.MAXRETRIES:
            return f"{task} asked to be retried, and may not be"
        case Status.ABORT:
            return f"{task} aborted itself"
        case _:
            return f"{task} failed with {outcome.exception_type}"
