"""Checks the configuration, the tasks that it names and the broker, and reports problems with advice."""

from __future__ import annotations

from collections.abc import Callable

from mrq_core.config.settings import Config
from mrq_core.contract.broker import Broker
from mrq_core.contract.queries import Finding
from mrq_core.errors import BrokerError, ConfigError, TaskError
from mrq_core.plugins.manager import Plugins
from mrq_core.tasks.loading import find_task
from mrq_core.tasks.options import options_from
from mrq_core.tasks.scheduled import schedules_of


def check_task_options(config: Config) -> None:
    """Raises ConfigError, with the path of the task, if TASKS holds an invalid option."""
    for path, options in config.tasks.items():
        options_from(options, where=f"TASKS[{path!r}]")


def config_findings(config: Config, plugins: Plugins) -> list[Finding]:
    """The findings about the configuration. Imports the tasks that TASKS names."""
    file = getattr(config.module, "__file__", None)
    findings = [
        Finding(level="ok", subject="config file", message=f"read {file}" if file else "none found"),
        Finding(level="ok", subject="plugins", message=f"loaded {', '.join(plugins.origins) or 'none'}"),
    ]
    try:
        check_task_options(config)
    except ConfigError as error:
        advice = "Correct the option in the config file."
        return [*findings, Finding(level="error", subject="TASKS", message=str(error), advice=advice)]
    findings += [_task_finding(path) for path in config.tasks]
    return findings + _schedule_findings(config)


def broker_findings(broker: Broker) -> list[Finding]:
    """The findings of the broker. A broker that is away is a finding too."""
    try:
        return broker.check()
    except BrokerError as error:
        return [Finding(level="error", subject=broker.name, message=str(error))]


def attempted(subject: str, work: Callable[[], list[Finding] | None]) -> list[Finding]:
    """The findings of a part of a check. If the broker or the configuration refuses the part, that is a
    finding, and the other parts can follow."""
    try:
        return work() or []
    except (BrokerError, ConfigError) as error:
        advice = "Fix the named problem, and check again."
        return [Finding(level="error", subject=subject, message=str(error), advice=advice)]


def uses_scheduler(config: Config) -> bool:
    """Whether settings of the scheduler are given."""
    return bool(config.scheduler or config.scheduler_tasks or "SCHEDULER_MODULES" in config.sources)


def _schedule_findings(config: Config) -> list[Finding]:
    """The findings about schedules, if settings of the scheduler are given. Imports the tasks."""
    subject = "SCHEDULER_TASKS"
    if not uses_scheduler(config):
        return []
    try:
        definitions = schedules_of(config)
    except ConfigError as error:
        advice = "Correct the definition in the config file, or the options of the task."
        return [Finding(level="error", subject=subject, message=str(error), advice=advice)]
    findings = []
    for path in dict.fromkeys(definition.path for definition in definitions):
        try:
            find_task(path)
        except TaskError as error:
            advice = "Correct the path: the jobs of this schedule fail."
            findings.append(Finding(level="warning", subject=subject, message=str(error), advice=advice))
    if definitions and not findings:
        findings.append(
            Finding(level="ok", subject=subject, message=f"all tasks exist; schedules: {len(definitions)}")
        )
    return findings


def _task_finding(path: str) -> Finding:
    try:
        find_task(path)
    except TaskError as error:
        return Finding(
            level="warning",
            subject=f"TASKS[{path!r}]",
            message=str(error),
            advice="Correct the path: these options have no effect on a task with another path.",
        )
    return Finding(level="ok", subject=f"TASKS[{path!r}]", message="the task can be imported")
