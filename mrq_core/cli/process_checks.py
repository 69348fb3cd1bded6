"""What `mrq check` examines beside the broker: settings that keep a worker or the dashboard from starting."""

from __future__ import annotations

import importlib
import os
import socket
from collections.abc import Callable
from functools import partial

from mrq_core.cli.dashboard_command import missing_library
from mrq_core.config.settings import Config
from mrq_core.contract.broker import Broker
from mrq_core.contract.queries import Finding
from mrq_core.errors import ConfigError, InvalidValue, shown
from mrq_core.running.log_handlers import check_log_file
from mrq_core.running.log_lines import checked_formatter
from mrq_core.worker.guards.patching import check_all_variables
from mrq_core.worker.processes.parent import check_number
from mrq_core.worker.reporting.report_file import ReportFile
from mrq_core.worker.strategy import CHOOSING_TASKS, Strategy, check_chosen_tasks

_IDLE_LEAST = 50.0
"""MB that an idle worker takes, at least. Below, a worker does not start, or has room for hardly any job."""


def process_findings(config: Config, broker: Broker) -> list[Finding]:
    """The errors in the settings of workers and of the dashboard, and a warning about MAX_MEMORY. Makes no
    file, and opens no port."""
    checks: list[tuple[str, Callable[[], object]]] = [
        ("DEQUEUE_STRATEGY", lambda: Strategy(config.dequeue_strategy, ["default"])),
        ("QUEUES", lambda: Strategy("sequential", config.queues)),
        *((name, partial(check_chosen_tasks, config, broker, [name])) for name in CHOOSING_TASKS),
        ("LOG_FORMAT", lambda: checked_formatter(config.log_format, "")),
    ]
    if config.log_file:
        checks.append(("LOG_FILE", lambda: check_log_file(config.log_file)))
    if config.report_file:
        checks.append(("REPORT_FILE", lambda: _check_report_file(config.report_file)))
    if config.processes:
        checks.append(("PROCESSES", lambda: check_number(config.processes)))
    if config.admin_port:
        checks.append(("ADMIN_IP", partial(_check_address, "ADMIN_IP", config.admin_ip)))
    if any(name.startswith("GEVENT") for name in os.environ):  # gevent takes long to import
        checks.append(("gevent", check_all_variables))
    if missing_library() is None:
        checks.append(("dashboard", lambda: _check_dashboard(config)))
        checks.append(("DASHBOARD_IP", partial(_check_address, "DASHBOARD_IP", config.dashboard_ip)))
    errors = [finding for subject, check in checks for finding in _found(subject, check)]
    return errors + _memory_findings(config.max_memory) + _address_findings(config)


def _found(subject: str, check: Callable[[], object]) -> list[Finding]:
    try:
        check()
    except (ConfigError, InvalidValue) as error:
        advice = "Correct the setting: the process that needs it does not start."
        return [Finding(level="error", subject=subject, message=str(error), advice=advice)]
    return []


def _memory_findings(max_memory: float) -> list[Finding]:
    if not 0 < max_memory < _IDLE_LEAST:
        return []
    message = f"MAX_MEMORY is {max_memory:g} MB, and an idle worker takes {_IDLE_LEAST:g} to 60 MB"
    advice = "Set a larger number of MB. A worker that exceeds it before its first job does not start."
    return [Finding(level="warning", subject="MAX_MEMORY", message=message, advice=advice)]


def _address_findings(config: Config) -> list[Finding]:
    if missing_library() is not None:
        return []
    message = importlib.import_module("mrq_dashboard.serving").open_address(config)
    if message is None:
        return []
    advice = "Until then, `mrq dashboard` does not start without --insecure."
    return [Finding(level="warning", subject="DASHBOARD_IP", message=message, advice=advice)]


def _check_address(setting: str, address: str) -> None:
    """Raises ConfigError for what is neither an address nor the name of a machine. Which machine it is does
    not matter: workers and dashboard may run on others."""
    try:
        socket.getaddrinfo(address, None)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{setting} is {shown(address)} ({why}): expected an address of the machine"
        ) from error


def _check_report_file(path: str) -> None:
    ReportFile(path, "").check_folder()


def _check_dashboard(config: Config) -> None:
    importlib.import_module("mrq_dashboard.serving").check_settings(config)
