"""The folders that relative paths of the configuration start from."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import NamedTuple


class Folders(NamedTuple):
    """The folders of a moment. A broker may be opened again later, for another thread, while a task has
    changed the working directory or HOME."""

    working: str
    """The working directory. Empty: it was deleted already."""
    home: str

    @classmethod
    def now(cls) -> Folders:
        """Those of this moment."""
        working = ""
        with suppress(OSError):
            working = os.getcwd()
        return cls(working, os.path.expanduser("~"))

    def absolute(self, path: str) -> str:
        """The absolute path of a path that may be relative, or begin with ``~``. Raises OSError if the path
        is relative, and the working directory was deleted already."""
        if path == "~" or path.startswith("~/"):
            path = self.home + path[1:]
        return os.path.abspath(os.path.join(self.working, os.path.expanduser(path)))
