"""How commands end: what they print when something is wrong, and with which exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mrq_core.cli.output import complain, complain_traceback
from mrq_core.errors import ConfigError, InvalidParams, InvalidValue, MrqError

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


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
        complain("\n".join([str(error), *getattr(error, "__notes__", ())]))
        sys.exit(_exit_code(error))
    except OSError as error:
        if debug:
            complain_traceback()
        complain(f"{type(error).__name__}: {error}")
        sys.exit(EXIT_FAILED)
    except Exception as error:
        if debug:
            complain_traceback()
        hint = "This is an error in mrq or in a plugin; --debug prints its traceback"
        complain(f"{type(error).__name__}: {error}\n{hint}")
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def _exit_code(error: MrqError) -> int:
    return EXIT_USAGE if isinstance(error, ConfigError | InvalidValue | InvalidParams) else EXIT_FAILED
