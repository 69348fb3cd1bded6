"""Keeps Python code from opening the files of a database in a process that uses it.

When a process closes any descriptor of a file, the system drops all locks of the process on it, also those of
SQLite (sqlite.org/howtocorrupt.html, "POSIX advisory locks canceled by a separate thread doing close()").
Another process would write at the same time. Files of a path that code in C opens by itself are not noticed.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from mrq_core.embedded.server.files import Identity, identity

_WITHOUT_LOCKS: int = getattr(os, "O_PATH", 0)
"""Closing such a descriptor drops no locks."""

File = Identity | str
"""What an open names: a file, or the name of one in a folder that is not known (`dir_fd`)."""

_is_in_use: Callable[[File], bool] | None = None


def refuse_where(is_in_use: Callable[[File], bool]) -> None:
    """From now on, `open` and `os.open` raise PermissionError for files of which this is true."""
    global _is_in_use
    if _is_in_use is None:
        with suppress(Exception):  # another hook of the process refuses it
            sys.addaudithook(_notice)
    _is_in_use = is_in_use


def _notice(event: str, arguments: tuple[Any, ...]) -> None:
    """Runs for each event of the interpreter, also while it ends: then its globals are None."""
    if event == "open" and _is_in_use is not None:
        path, _, flags = arguments
        if isinstance(path, int) or flags & _WITHOUT_LOCKS:
            return
        if _is_in_use(identity(path) or _name(path, flags)):
            raise PermissionError(
                errno.EPERM,
                "this process uses the SQLite database of jobs, and closing one of its files here would drop "
                "its locks: read it through the module sqlite3, or in another process",
                path,
            )


def _name(path: Any, flags: int) -> str | None:
    """The name of a file that has to be there already. None: the path has folders, or makes a new file."""
    try:
        text = os.fsdecode(path)
    except (TypeError, ValueError):
        return None
    return None if flags & os.O_CREAT or os.path.dirname(text) else text
