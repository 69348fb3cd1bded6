"""Notices that a task has left all file descriptors open, and keeps some for the end of the worker.

A worker without a free descriptor can neither connect to its broker nor read a file: outcomes wait, and each
job fails. It has to stop; the outcomes are stored with the descriptors that it has kept.
"""

from __future__ import annotations

import os
import time

_KEPT = 16
_PATIENCE = 5.0
"""Seconds. A job that opens many descriptors for a while, and closes them, does no harm."""


class DescriptorReserve:
    """Descriptors that are open for nothing until the process needs them."""

    def __init__(self) -> None:
        self._kept: list[int] = []
        self._exhausted_since: float | None = None
        try:
            read, write = os.pipe()
            os.close(write)
            self._kept.append(read)
            self._inode = os.fstat(read).st_ino
            while len(self._kept) < _KEPT:
                self._kept.append(os.dup(read))
        except OSError:
            pass  # the process starts with hardly any: it keeps fewer

    def is_exhausted(self) -> bool:
        """Whether no descriptor has been free for some seconds. Call this about once a second."""
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
            self._exhausted_since = None
        except OSError:
            self._exhausted_since = self._exhausted_since or time.monotonic()
        return self._exhausted_since is not None and time.monotonic() - self._exhausted_since > _PATIENCE

    def release(self) -> None:
        """Closes the descriptors, so that the process can open others."""
        while self._kept:
            descriptor = self._kept.pop()
            try:
                if os.fstat(descriptor).st_ino == self._inode:  # a task may have closed it
                    os.close(descriptor)
            except OSError:
                pass
