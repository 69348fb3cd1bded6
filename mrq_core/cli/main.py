"""The entry points. Before gevent has patched the library they import only `interrupts`, `terminal` and
`worker_role`, and no typer.

Only commands that run tasks in this process are patched. Other commands, and programs that import mrq, have
ordinary threads and sockets.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from mrq_core.cli import interrupts, terminal
from mrq_core.drivers import open_files

PATCHED_COMMANDS = frozenset({"worker", "run", "demo"})
_DESCRIPTORS_OF_WORKER, _DESCRIPTORS_OF_OTHERS = 32, 5
"""Free file descriptors that a patched command needs. Without those of its loop, libev aborts the process."""


def main() -> NoReturn:
    """`mrq`."""
    _start(sys.argv[1:])


def main_worker() -> NoReturn:
    """`mrq-worker`, which is `mrq worker`."""
    _start(["worker", *sys.argv[1:]])


def main_run() -> NoReturn:
    """`mrq-run`, which is `mrq run`."""
    _start(["run", *sys.argv[1:]])


def main_dashboard() -> NoReturn:
    """`mrq-dashboard`, which is `mrq dashboard`."""
    _start(["dashboard", *sys.argv[1:]])


def _start(arguments: list[str]) -> NoReturn:
    _refuse_in_job()
    try:
        _run_to_the_end(arguments)
    except KeyboardInterrupt:  # during an import, or between two steps of the end
        interrupts.leave_at_interrupt(interrupts.EXIT_INTERRUPTED)
        sys.exit(interrupts.EXIT_INTERRUPTED)


def _refuse_in_job() -> None:
    """A command has the signals, the standard streams and the exit of its process, which here are those of a
    worker and of its jobs."""
    attempts = sys.modules.get("mrq_core.client.attempt")
    if attempts is not None and attempts.current_attempt.get() is not None:
        sys.exit(
            "mrq: a command of mrq was called by the code of a job, in the process of its worker: start the "
            "command in another process, such as with subprocess.run"
        )


def _run_to_the_end(arguments: list[str]) -> NoReturn:
    interrupts.prepare()
    terminal.protect_streams()
    terminal.forget_odd_width()
    arguments = [_as_utf8(argument) for argument in arguments]
    try:
        with terminal.exit_at_start():
            _run(arguments)
    finally:
        interrupts.leave_at_interrupt(interrupts.EXIT_INTERRUPTED)
        error = terminal.output_error()
        if error is not None:
            terminal.restore_streams()
            print(f"mrq: standard output could not be written ({error}): it is incomplete", file=sys.stderr)
            if not terminal.is_working:  # it shows the help or the version only
                interrupts.leave_at_interrupt(1)
                sys.exit(1)
        interrupts.leave_at_interrupt(interrupts.code_of(sys.exception()))


def _as_utf8(argument: str) -> str:
    """The argument as its sender meant it, also in a locale whose encoding is not UTF-8."""
    try:
        return os.fsencode(argument).decode()
    except UnicodeError:
        return argument


def _run(arguments: list[str]) -> NoReturn:
    if arguments[:1] == ["--version"]:
        from mrq_core import __version__

        print(f"mrq {__version__}")
        sys.exit(0)
    command = next((argument for argument in arguments if not argument.startswith("-")), None)
    if command in PATCHED_COMMANDS:
        _require_descriptors(command)
    terminal.put_working_directory_last()
    is_parent = command == "worker" and _is_parent(arguments)
    if command in PATCHED_COMMANDS and not is_parent:
        from mrq_core.worker.guards.patching import lead_interrupts, patch_all

        patch_all()
        if command != "worker":
            lead_interrupts(is_over=interrupts.is_leaving)
        if command == "run":
            # A module may wait for a child while it is imported, whose end gevent misses now and then. With
            # --async nothing else imports this.
            from mrq_core.worker.guards import children

            children.install()
    if command != "worker":  # which lets them in once it handles them
        interrupts.unblock()
    if command == "worker" and not is_parent:
        from mrq_core.worker.guards.signals import leave_while_starting

        leave_while_starting()
        from mrq_core.worker.solo.fork_server_process import fork_early

        fork_early(then=terminal.put_working_directory_first)
        from mrq_core.worker.guards.own_descriptors import own

        own.add_loop()
    from mrq_core.cli.app import application

    app = application(next(iter(arguments), None))
    terminal.put_working_directory_first()
    app(args=arguments, prog_name="mrq")
    sys.exit(0)


def _require_descriptors(command: str) -> None:
    needed = _DESCRIPTORS_OF_WORKER if command == "worker" else _DESCRIPTORS_OF_OTHERS
    shortage = open_files.shortage(f"mrq {command}", needed)
    if shortage is not None:
        print(f"mrq: {shortage}", file=sys.stderr)
        sys.exit(1)


def _is_parent(arguments: list[str]) -> bool:
    """Whether this process is the parent of several workers, which gevent does not patch."""
    from mrq_core.cli import worker_role

    is_parent = worker_role.choose(arguments)
    if is_parent:
        from mrq_core.worker.processes.signals import leave_while_starting

        leave_while_starting()
    return is_parent
