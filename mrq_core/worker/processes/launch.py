"""The state of the parent before the config file ran. Imports little: it is noted before gevent patches."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple


class Launch(NamedTuple):
    """The working directory, the environment and the search path, all of which the config file may change.
    Workers start from these. `folder` is None if it was deleted."""

    folder: str | None
    environ: Mapping[str, str]
    path: tuple[str, ...]

    @classmethod
    def now(cls) -> Launch:
        """The present state of this process."""
        folder = None
        with suppress(OSError):
            folder = os.getcwd()
        return cls(folder, dict(os.environ), tuple(sys.path))

    def return_to_folder(self) -> None:
        """Changes to the folder, if it still exists."""
        if self.folder is not None:
            with suppress(OSError):
                os.chdir(self.folder)
