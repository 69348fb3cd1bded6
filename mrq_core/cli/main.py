"""The entry points. They import nothing else of mrq, and no typer, before gevent has patched the library.

Only commands that run tasks in this process are patched. Other commands, and programs that import mrq, have
ordinary threads and sockets.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

PATCHED_COMMANDS = frozenset({"worker", "run", "demo"})


def main() -> NoReturn:
    """`mrq`."""
    _start(sys.argv[1:])


def main_worker() -> NoReturn:
    """`mrq-worker`, which is `mrq worker`."""
    _start(["worker", *sys.argv[1:]])


def main_run() -> NoReturn:
    """`mrq-run`, which is `mrq run`."""
    _start(["run", *sys.argv[1:]])


def _start(arguments: list[str]) -> NoReturn:
    try:
        _run(arguments)
    except KeyboardInterrupt:  # during an import
        sys.exit(130)
    finally:
        _flush()


def _run(arguments: list[str]) -> NoReturn:
    if arguments[:1] == ["--version"]:
        from mrq_core import __version__

        print(f"mrq {__version__}")
        sys.exit(0)
    command = next((argument for argument in arguments if not argument.startswith("-")), None)
    if command in PATCHED_COMMANDS:
        from mrq_core.patching import patch_all

        patch_all()
    _put_working_directory_first()
    if command == "worker":
        from mrq_core.worker.signals import leave_while_starting

        leave_while_starting()
        from mrq_core.worker.fork_server_process import fork_early

        fork_early()
    from mrq_core.cli.app import app

    app(args=arguments, prog_name="mrq")
    sys.exit(0)


def _put_working_directory_first() -> None:
    """Python finds tasks, plugins and the imports of the config file in the working directory first."""
    here = os.getcwd()
    if sys.path[:1] not in ([here], [""]):
        sys.path.insert(0, here)


def _flush() -> None:
    """Flushes the standard streams. A closed pipe, as after `head`, or a closed terminal is no error, nor are
    streams that a task has closed or replaced."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        except BaseException:
            setattr(sys, name, None)  # the interpreter flushes it once more, and changes the exit code
