"""Looks at the configuration, the tasks it names and the broker, and says what is to be mended."""

from __future__ import annotations

from mrq_core.config.settings import Config
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import Finding
from mrq_core.errors import BrokerError, ConfigError, TaskError
from mrq_core.plugins.manager import Plugins
from mrq_core.tasks.loading import find_task
from mrq_core.tasks.options import options_from


def check_task_options(config: Config) -> None:
    """Makes sure that TASKS holds valid options only. Raises ConfigError, which names the task."""
    for path, options in config.tasks.items():
        options_from(options, where=f"TASKS[{path!r}]")


def config_findings(config: Config, plugins: Plugins) -> list[Finding]:
    """What there is to say about the configuration. Imports the tasks that TASKS names."""
    file = getattr(config.module, "__file__", None)
    findings = [
        Finding(level="ok", subject="config file", message=f"read {file}" if file else "there is none"),
        Finding(level="ok", subject="plugins", message=f"loaded {', '.join(plugins.origins) or 'none'}"),
    ]
    try:
        check_task_options(config)
    except ConfigError as error:
        advice = "Correct it in the config file."
        return [*findings, Finding(level="error", subject="TASKS", message=str(error), advice=advice)]
    return findings + [_task_finding(path) for path in config.tasks]


def broker_findings(broker: Broker) -> list[Finding]:
    """What the broker says about itself; that it is away is a finding too."""
    try:
        return broker.check()
    except BrokerError as error:
        return [Finding(level="error", subject=broker.name, message=str(error))]


def _task_finding(path: str) -> Finding:
    try:
        find_task(path)
    except TaskError as error:
        return Finding(
            level="warning",
            subject=f"TASKS[{path!r}]",
            message=str(error),
            advice="The options have no effect on a task of another path.",
        )
    return Finding(level="ok", subject=f"TASKS[{path!r}]", message="the task can be imported")
