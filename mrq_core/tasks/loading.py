"""Imports a task by its path, and resolves its options."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Mapping
from functools import partial
from typing import Any, TypeGuard

import msgspec

from mrq_core.config.hidden import explained
from mrq_core.config.importing import forgetting_interrupted
from mrq_core.config.settings import Config
from mrq_core.contract.exception_fields import frames_of, module_of
from mrq_core.contract.messages import Limit
from mrq_core.contract.module_fields import fields_of_module
from mrq_core.contract.plain import from_other_copy, has_type, text_of
from mrq_core.contract.signal_errors import refuse_to_wrap
from mrq_core.contract.values import check_path, is_path
from mrq_core.errors import (
    Interrupt,
    InvalidValue,
    NotATask,
    TaskError,
    TaskImportFailed,
    TaskNotFound,
    shown,
    shown_error,
    type_name,
)
from mrq_core.tasks.import_waits import ImportWaits, wait_for_import
from mrq_core.tasks.options import OPTION_NAMES, options_from, size_of
from mrq_core.tasks.retry import LONGEST_DELAY, RetryRule
from mrq_core.tasks.task import Task, TaskFunction, TaskLike, names_of, path_of

_SCRIPTS = frozenset({"__main__", "__mp_main__"})
"""The modules of the script that is running: in its own process, and in those that multiprocessing spawns."""


class LoadedTask(msgspec.Struct, frozen=True, kw_only=True):
    """An imported task with its resolved options."""

    path: str
    task_class: type[Task]
    queue: str
    priority: int
    timeout: float
    retry: RetryRule
    result_ttl: float
    abort_ttl: float
    cancel_ttl: float
    default_ttl: float
    at_most_once: bool
    isolate: bool
    memory: int
    """The limit of the memory of an isolated job in bytes. 0: no limit."""
    searchable: tuple[str, ...]
    limits: Mapping[str, Limit]
    """By limit key, which may have the name of a param in braces."""
    every: float | None = None
    cron: str | None = None
    schedule: Mapping[str, Any] | None = None


def load_task(path: str, config: Config, *, gives_up: bool = False) -> LoadedTask:
    """Imports a task by its path; `gives_up` as in `find_task`. Raises TaskNotFound, TaskImportFailed,
    NotATask or ConfigError."""
    return resolve_options(path, find_task(path, gives_up=gives_up), config)


def resolve_options(path: str, task_class: type[Task], config: Config) -> LoadedTask:
    """Resolves the options of a task: TASKS, then the options of the task, then the defaults of the
    configuration."""
    given = {name: _attribute(path, task_class, name) for name in OPTION_NAMES}
    own = options_from({name: value for name, value in given.items() if value is not None}, where=path)
    override = options_from(config.tasks.get(path, {}), where=f"TASKS[{path!r}]")

    def pick(name: str, default: Any) -> Any:
        for source in (override, own):
            value = getattr(source, name)
            if value is not None:
                return value
        return default

    at_most_once = pick("at_most_once", False)
    memory = pick("memory", None)
    delay = pick("retry_delay", config.default_job_retry_delay)
    rule = RetryRule(
        # A retry would be a second start.
        max_retries=0 if at_most_once else pick("max_retries", config.default_job_max_retries),
        delay=delay,
        backoff=pick("retry_backoff", 1.0),
        max_delay=pick("retry_max_delay", max(LONGEST_DELAY, delay)),
        jitter=pick("retry_jitter", False),
        retry_on=pick("retry_on", ()),
    )
    return LoadedTask(
        path=path,
        task_class=task_class,
        queue=pick("queue", "default"),
        priority=pick("priority", 0),
        timeout=pick("timeout", config.default_job_timeout),
        retry=rule,
        result_ttl=pick("result_ttl", config.default_job_result_ttl),
        abort_ttl=pick("abort_ttl", config.default_job_abort_ttl),
        cancel_ttl=pick("cancel_ttl", config.default_job_cancel_ttl),
        default_ttl=pick("default_ttl", config.default_job_ttl),
        at_most_once=at_most_once,
        isolate=pick("isolate", memory is not None),
        memory=0 if memory is None else size_of(memory, where=path),
        searchable=pick("searchable", ()),
        limits=pick("limits", {}),
        every=pick("every", None),
        cron=pick("cron", None),
        schedule=pick("schedule", None),
    )


def check_reachable(task: TaskLike) -> str:
    """Returns the path of a task. Raises InvalidValue unless a worker finds this task object there.

    Of a path given as text only the form is checked, because the enqueuer need not have the code.
    """
    text = text_of(task)
    if text is not None:
        path = check_path(text)
        _refuse_script(path, path.partition(".")[0])
        return path
    if not has_type(task, TaskFunction) and not is_task_class(task):
        raise no_task(task)
    path = path_of(task)
    module_name, qualified = names_of(task)
    _refuse_script(path, module_name)
    found: object = sys.modules.get(module_name)
    try:
        for name in qualified.split("."):
            found = getattr(found, name, None)
    except BaseException as error:  # code of the module
        refuse_to_wrap(error)
        found = None
    if found is not task:
        raise InvalidValue(
            f"{path} does not lead to this task, so no worker can find it: a task has to stand in its module "
            "under its own name",
            path="task",
        )
    return path


def _refuse_script(path: str, module_name: str) -> None:
    if module_name in _SCRIPTS:
        raise InvalidValue(
            f"{path} is defined in the script that is running, where a worker cannot import it: "
            "move it to a module",
            path="task",
        )


def no_task(task: object) -> InvalidValue:
    """The error for a value that is no task and no path of one."""
    hint = "; pass the class itself" if is_task_class(type(task)) else ""
    return InvalidValue(
        f"task is {shown(task)}: expected a path, a subclass of mrq_core.Task or a function decorated with "
        f"@task{hint}{from_other_copy(task, Task, TaskFunction)}",
        path="task",
    )


def is_task_class(found: object) -> TypeGuard[type[Task]]:
    """Whether this is a subclass of Task, and not Task itself."""
    return has_type(found, type) and issubclass(found, Task) and found is not Task


def find_task(path: str, *, gives_up: bool = False) -> type[Task]:
    """The class behind a path. Raises TaskNotFound, TaskImportFailed or NotATask.

    Waits while another thread imports the module, unless that import waits for the caller. `gives_up`: the
    wait ends after some time, if the import only seems to wait, or has defined the task already."""
    found, module_name, names = _import_longest(path, gives_up)
    for index, name in enumerate(names):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            inside = ".".join([module_name, *names[:index]])
            text = f"{path} does not exist: {inside} has no {name!r}"
            raise TaskNotFound(explained(text, error), path=path) from None
        except (TaskError, Interrupt):
            raise
        except BaseException as error:  # code of the module: its `__getattr__`
            raise _import_failed(path, ".".join([module_name, *names[: index + 1]]), error) from error
    if has_type(found, TaskFunction):
        return found.task_class
    if is_task_class(found):
        return found
    raise NotATask(
        f"{path} is not a task but {_describe(found)}: expected a subclass of mrq_core.Task "
        f"or a function decorated with @task{from_other_copy(found, Task, TaskFunction)}",
        path=path,
    )


def _attribute(path: str, task_class: type[Task], name: str) -> object:
    """An attribute of the task. None: there is none. Raises TaskImportFailed if its metaclass raises."""
    try:
        return getattr(task_class, name, None)
    except (TaskError, Interrupt):
        raise
    except BaseException as error:
        raise _import_failed(path, f"{path}.{name}", error) from error


def _import_longest(path: str, gives_up: bool) -> tuple[object, str, list[str]]:
    """Imports the longest part of the path that is a module. Returns what stands for it in `sys.modules`, its
    name, and the other parts, which are names in it."""
    parts = path.split(".")
    if not is_path(path):
        raise TaskNotFound(f"{shown(path)} is no path of a task: expected module.Name", path=path)
    for length in range(len(parts) - 1, 0, -1):
        module_name = ".".join(parts[:length])
        if sys.is_finalizing() and module_name not in sys.modules:
            continue  # a thread that was stopped in an import holds its lock for ever
        waits = wait_for_import(module_name, has_task=partial(_has_task, path) if gives_up else None)
        if waits is not None:
            return _unfinished(path, waits)
        try:
            with forgetting_interrupted():
                module: object = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            missing = module_of(error)
            if type(missing) is str and f"{module_name}.".startswith(f"{missing}."):
                continue
            raise _import_failed(path, module_name, error) from error
        except (TaskError, Interrupt):
            raise
        except BaseException as error:
            # SystemExit and the like too: a module that exits must not take the worker along.
            raise _import_failed(path, module_name, error) from error
        return module, module_name, parts[length:]
    raise TaskNotFound(
        f"{path} cannot be found: there is no module {parts[0]!r}. The worker looks in its working directory "
        f"and in what is installed beside it{_but_not_in_unreadable_folders()}",
        path=path,
    )


def _but_not_in_unreadable_folders() -> str:
    """The end of a sentence that names the first folder in which Python could not look for modules: one that
    may be searched, but not read, is one without modules to it. Empty: there is none."""
    for name in sys.path or ():  # None: the interpreter ends
        try:
            with os.scandir(name or "."):
                pass
        except PermissionError:
            return f", but this user may not read the folder {shown(name or '.')}"
        except (OSError, ValueError, TypeError):  # no folder: an archive, or what other code has put there
            continue
    return ""


def _unfinished(path: str, waits: ImportWaits) -> tuple[object, str, list[str]]:
    """The unfinished module, whose import waits for the caller. Raises TaskImportFailed if it does not
    have the task yet."""
    if not _has_task(path):
        raise TaskImportFailed(
            f"{path} cannot be imported: {waits}. Call mrq in a function that is called later, such as a "
            "task, or make the call after the task is defined",
            path=path,
        ) from waits
    return _longest_imported(path)


def _longest_imported(path: str) -> tuple[object, str, list[str]]:
    """Of the parts of the path that are in `sys.modules`, the longest, as in `_import_longest`."""
    parts = path.split(".")
    lengths = range(len(parts) - 1, 0, -1)
    length = next((one for one in lengths if ".".join(parts[:one]) in sys.modules), 1)
    name = ".".join(parts[:length])
    return sys.modules.get(name), name, parts[length:]


def _has_task(path: str) -> bool:
    """Whether the module of the path, whose import need not have ended, has defined the task, or the class
    in which it stands."""
    module, _, names = _longest_imported(path)
    found = fields_of_module(module).get(names[0])
    return has_type(found, TaskFunction) or has_type(found, type)


def _import_failed(path: str, module_name: str, error: BaseException) -> TaskImportFailed:
    frames = traceback.extract_tb(frames_of(error))
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    text = f"{path} cannot be imported: importing {module_name} raised {shown_error(error)}{where}"
    return TaskImportFailed(explained(text, error), path=path)


def _describe(found: object) -> str:
    if found is Task:
        return "the base class Task itself"
    kind = type_name(type(found))
    if kind == "type":
        return "a class that is no Task"
    return f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}"
