"""How commands end: what they print when something is wrong, and with which exit code."""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from mrq_core.cli.output import complain
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
            traceback.print_exc()
        complain("\n".join([str(error), *getattr(error, "__notes__", ())]))
        sys.exit(_exit_code(error))
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise
        if debug:
            traceback.print_exc()
        complain(f"{type(error).__name__}: {error}")
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def _exit_code(error: MrqError) -> int:
    return EXIT_USAGE if isinstance(error, ConfigError | InvalidValue | InvalidParams) else EXIT_FAILED
