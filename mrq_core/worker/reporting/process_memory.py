"""The resident memory of processes, read from /proc where it exists: psutil walks all processes to find the
children of one."""

from __future__ import annotations

import os

import psutil

_PAGE = os.sysconf("SC_PAGE_SIZE")
_own_size = 0


def tree_size(pid: int) -> int:
    """The resident memory of the process and all its descendants now, in bytes."""
    total = 0
    left = [pid]
    while left:
        one = left.pop()
        total += _size_of(one)
        left += children_of(one)
    return total


def own_size() -> int:
    """The resident memory of this process, in bytes. Where no file can be opened, because a task has left all
    of them open, what it was the last time."""
    global _own_size
    _own_size = _size_of(os.getpid()) or _own_size
    return _own_size


def _size_of(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError):
        pass
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except (psutil.Error, OSError):
        return 0


def children_of(pid: int) -> list[int]:
    """The ids of the children of the process. Empty: it has none, or is gone."""
    try:
        found: list[int] = []
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", "rb") as file:
                found += map(int, file.read().split())
        return found
    except OSError:
        pass
    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except (psutil.Error, OSError):
        return []
