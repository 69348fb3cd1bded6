"""How commands end: what they print when something is wrong, and with which exit code; and how they ask."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mrq_core.cli import interrupts
from mrq_core.cli.output import complain, complain_traceback
from mrq_core.cli.terminal import result_output
from mrq_core.config.hidden import hiding
from mrq_core.drivers import open_files
from mrq_core.errors import ConfigError, InvalidParams, InvalidValue, MrqError, ScheduleNotFound, shown_error

_HINT = "This is an error in mrq or in a plugin; --debug prints its traceback"
EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, interrupts.EXIT_INTERRUPTED


class UsageError(ConfigError):
    """The arguments of a command do not make sense as they are."""


class CommandFailed(MrqError):
    """The command did what it could, and it is not all that was asked."""


@contextmanager
def exit_on_error(*, debug: bool) -> Iterator[None]:
    """Turns errors of mrq into a message and an exit code; with `debug` the traceback comes first."""
    try:
        yield
    except MrqError as error:
        if debug:
            complain_traceback()
        complain("\n".join([str(error), *notes_of(error)]))
        sys.exit(exit_code_of(error))
    except KeyboardInterrupt as error:
        sys.exit(exit_code_of(error))
    except SystemExit:
        raise
    except BaseException as error:  # of mrq, or of a plugin; also GreenletExit and the like
        if debug:
            complain_traceback()
        hint, code = "" if issubclass(type(error), OSError) else _HINT, exit_code_of(error)
        if open_files.are_used_up(error):
            hint = open_files.advice()
        elif (is_hidden := hiding(error, anywhere=True)) is not None:
            hint, code = is_hidden, EXIT_USAGE
        complain("\n".join(filter(None, [shown_error(error), *(notes_of(error) or [hint])])))
        sys.exit(code)


@contextmanager
def named_as_typed(**flags: str) -> Iterator[None]:
    """Lets errors name the flag that was typed, instead of the key that programs use. `flags`: by the paths
    of the errors, such as ``interval="--every"``."""
    try:
        yield
    except InvalidValue as error:
        subject, _, rest = str(error).partition(" ")
        if error.path in flags and (subject == error.path or (subject == "queue" and rest.startswith("is "))):
            error.args = (f"{flags[error.path]} {rest}",)
        raise


def notes_of(error: BaseException) -> list[str]:
    """The notes of an error, such as the plugin that raised it."""
    try:
        notes = getattr(error, "__notes__", ())
    except Exception:  # code of the exception
        return []
    return [note for note in notes if isinstance(note, str)] if isinstance(notes, list) else []


def exit_code_of(error: BaseException) -> int:
    """The exit code of a command that ends with this error."""
    if issubclass(type(error), KeyboardInterrupt):
        return EXIT_INTERRUPTED
    if issubclass(type(error), ScheduleNotFound):  # like any other thing that does not exist
        return EXIT_FAILED
    is_usage = issubclass(type(error), (ConfigError, InvalidValue, InvalidParams))
    return EXIT_USAGE if is_usage or not issubclass(type(error), Exception) else EXIT_FAILED


def can_ask() -> bool:
    """Whether a person can read a question and answer it. Elsewhere a change needs no confirmation."""
    is_answered = sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()
    return is_answered and (result_output().isatty() or sys.stderr.isatty())


def ask(question: str) -> bool:
    """Asks on the terminal until the answer is yes or no; an empty answer is no.

    Where standard output is no terminal, the question goes to standard error. Raises CommandFailed at the end
    of the input, and KeyboardInterrupt.
    """
    stream = result_output() if result_output().isatty() else sys.stderr
    while True:
        print(f"{question} [y/N]: ", end="", file=stream, flush=True)
        try:
            line = sys.stdin.readline()
        except KeyboardInterrupt:
            print(file=stream, flush=True)
            raise
        except (OSError, ValueError):  # the terminal is gone; the answer is not text
            line = ""
        if not line:
            print(file=stream, flush=True)
            raise CommandFailed("aborted: the input ended before an answer, and nothing was changed")
        answer = line.strip().lower()
        if answer in ("y", "yes"):
            return True
        if answer in ("", "n", "no"):
            return False
