"""The schedules that configuration and code define: SCHEDULER_TASKS, the options of tasks, and TASKS."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from mrq_core.config.importing import forgetting_interrupted
from mrq_core.config.settings import Config, default_of
from mrq_core.contract.plain import has_type
from mrq_core.contract.signal_errors import refuse_to_wrap
from mrq_core.errors import ConfigError, Interrupt, InvalidValue, TaskError, shown_error
from mrq_core.scheduler.definitions import Definition, Definitions, definition_from
from mrq_core.tasks.loading import is_task_class, resolve_options
from mrq_core.tasks.options import options_from, schedule_entry
from mrq_core.tasks.task import Task, TaskFunction, path_of

_OPTIONS = ("every", "cron", "schedule")


def schedules_of(config: Config) -> list[Definition]:
    """All definitions of the configuration and of the modules that SCHEDULER_MODULES names.

    Imports these modules; a missing module is skipped, unless it was named. Raises ConfigError for an invalid
    or duplicate definition and for a module whose import fails.
    """
    definitions = Definitions("SCHEDULER_TASKS")
    definitions.add_all(config.scheduler_tasks)
    for path, entry in _entries_of_tasks(config):
        try:
            definition = definition_from(entry)
        except InvalidValue as error:
            raise ConfigError(f"{path}: {error}") from error
        definitions.add(definition, entry, path)
    return definitions.found


def _entries_of_tasks(config: Config) -> Iterator[tuple[str, dict[str, object]]]:
    """The entries that options of tasks mean, with the paths of the tasks: each task once."""
    seen: set[str] = set()
    for name in dict.fromkeys(config.scheduler_modules):
        for path, task_class in _scheduled_tasks(_imported(name, config)):
            if path not in seen:
                seen.add(path)
                options = resolve_options(path, task_class, config)
                entry = schedule_entry(path, options.every, options.cron, options.schedule)
                if entry is not None:
                    yield path, entry
    for path, given in config.tasks.items():
        if path not in seen:
            overrides = options_from(given, where=f"TASKS[{path!r}]")
            entry = schedule_entry(path, overrides.every, overrides.cron, overrides.schedule)
            if entry is not None:
                yield path, entry


def _scheduled_tasks(module: ModuleType | None) -> Iterator[tuple[str, type[Task]]]:
    """The tasks in the namespace of a module that have an option of a schedule themselves."""
    for value in list(vars(module).values()) if module is not None else ():
        task_class = value.task_class if has_type(value, TaskFunction) else value
        if is_task_class(task_class) and any(vars(task_class).get(name) is not None for name in _OPTIONS):
            yield path_of(task_class), task_class


def _imported(name: str, config: Config) -> ModuleType | None:
    """The module. None: the default module does not exist."""
    try:
        with forgetting_interrupted():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name and "SCHEDULER_MODULES" not in config.sources:
            return None
        raise _import_failed(name, config, error) from error
    except (TaskError, Interrupt):
        raise
    except BaseException as error:  # code of the module: SystemExit and the like too
        refuse_to_wrap(error)
        raise _import_failed(name, config, error) from error


def _import_failed(name: str, config: Config, error: BaseException) -> ConfigError:
    usual: Any = default_of("SCHEDULER_MODULES")
    is_default = "SCHEDULER_MODULES" not in config.sources and name in usual
    return ConfigError(
        f"SCHEDULER_MODULES {'is not set, and means' if is_default else 'names'} {name}, which cannot be "
        f"imported: {shown_error(error)}; expected modules whose tasks have `every` or `cron`"
    )
