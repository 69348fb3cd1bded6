"""Keeps connections away from the descriptors 0 to 2 of a program that was started with closed ones."""

from __future__ import annotations

import os
from contextlib import suppress

_STANDARD = 3


def reserve_standard_descriptors() -> None:
    """Opens /dev/null at those of the descriptors 0 to 2 that are closed. Call it before a client connects.

    The connection would get the number, and what C code prints there would go to the server as a command.
    """
    with suppress(OSError):  # the process may open nothing more, or there is no /dev/null
        while (found := os.open(os.devnull, os.O_RDWR)) < _STANDARD:
            pass
        os.close(found)
