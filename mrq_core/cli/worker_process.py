"""Runs a worker in this process: that of `mrq worker`, or a process that its parent has started.

The latter gets the parsed command line from its parent, and needs no typer.
"""

from __future__ import annotations

import fcntl
import os
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from mrq_core.cli import terminal

if TYPE_CHECKING:
    from mrq_core.config.settings import Config
    from mrq_core.worker.parent_link import ParentLink
    from mrq_core.worker.processes.messages import Start

_LOWEST_DESCRIPTOR = 10
"""The pipes are moved above the numbers that the fork server uses."""


def main(commands: int, reports: int) -> NoReturn:
    """A worker with a parent, whose pipes have these descriptors."""
    terminal.protect_streams()
    terminal.put_working_directory_last()
    terminal.is_working = True
    with terminal.exit_at_start():
        _start(_moved(commands), _moved(reports))


def _start(commands: int, reports: int) -> NoReturn:
    from mrq_core.worker.guards.patching import patch_all

    patch_all()
    from mrq_core.worker.guards.own_descriptors import own
    from mrq_core.worker.guards.signals import leave_while_starting
    from mrq_core.worker.parent_link import ParentLink
    from mrq_core.worker.processes.messages import read_start

    leave_while_starting()
    start = read_start(commands)
    parent = ParentLink(commands, reports)
    parent.start()
    from mrq_core.worker.solo.fork_server_process import fork_early

    fork_early(grandparent=commands, then=terminal.put_working_directory_first)
    own.add_loop()
    from mrq_core.cli.errors import exit_on_error

    terminal.put_working_directory_first()
    with exit_on_error(debug=start.debug):
        run_worker(_config_of(start), parent)


def run_worker(config: Config, parent: ParentLink | None = None) -> NoReturn:
    """Works until the worker stops, and ends the process. Raises what keeps the worker from starting."""
    from mrq_core.cli.errors import exit_code_of
    from mrq_core.operations.checking.checks import check_task_options
    from mrq_core.plugins.manager import Plugins
    from mrq_core.running.logs import logging_kept, set_up_logging
    from mrq_core.worker.guards.called_code import guard_called_code
    from mrq_core.worker.guards.lasting import keep_hub
    from mrq_core.worker.guards.process_end import keep_exit_code
    from mrq_core.worker.guards.signals import end_after_work, leave_after_work
    from mrq_core.worker.worker import Worker

    keep_exit_code()
    keep_hub()  # the config file or a plugin may have started greenlets
    check_task_options(config)
    guard_called_code()
    set_up_logging(config, follows_file=parent is not None)
    try:
        with logging_kept():
            plugins = Plugins(config)
        code = Worker(config, plugins, parent=parent).run(exits_after=True)
    except BaseException as error:
        leave_after_work(exit_code_of(error))
        raise
    end_after_work(code)


def with_burst(config: Config) -> Config:
    """The configuration of a worker that stops when nothing is due."""
    words = [word.strip() for word in config.dequeue_strategy.split(",")]
    if "burst" in words:
        return config
    return replace(config, dequeue_strategy=",".join([*words, "burst"]))


def _config_of(start: Start) -> Config:
    """The configuration of a worker with a parent, which has shown the warnings. Raises ConfigError."""
    from mrq_core.client.ambient import reading_config
    from mrq_core.config.source_file import ConfigFile
    from mrq_core.config.sources import load_config

    file: str | ConfigFile | None = start.file
    if start.file is not None and start.source is not None:
        file = ConfigFile(start.file, start.source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with reading_config() as take:
            config = load_config(start.overrides, file=file)
            take(config)
    terminal.restore_streams()
    if config.report_file:
        config = replace(config, report_file=f"{config.report_file}.{start.number}")
    if config.admin_port:
        from mrq_core.worker.reporting.admin import admin_port

        config = replace(config, admin_port=admin_port(config, start.number - 1))
    return with_burst(config) if start.is_burst else config


def _moved(descriptor: int) -> int:
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _LOWEST_DESCRIPTOR)
    os.close(descriptor)
    return moved
