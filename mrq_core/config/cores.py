"""Counts the cores that this process may use: its CPU affinity, and the CPU quotas of its control groups.

A container with a quota sees all cores of its machine. cgroups(7) and proc_pid_mountinfo(5) describe the
files of control groups, version 1 and 2.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

_ESCAPE = re.compile(r"\\([0-7]{3})")


class _Mount(NamedTuple):
    """A mounted hierarchy of control groups. `root` is the group that is visible at `point`."""

    root: str
    point: str
    version: int


def available_cores(root: Path = Path("/")) -> int:
    """The number of cores, at least 1. A quota of 1.5 cores counts as 2. `root`: where /proc and /sys are."""
    cores = float(_affinity())
    for quota in _quotas(root):
        cores = min(cores, quota)
    return max(1, math.ceil(cores))


def _affinity() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    """The quotas of the groups of this process and of their ancestors, in cores."""
    with suppress(OSError, ValueError):
        groups = _groups((root / "proc/self/cgroup").read_text())
        for mount in _mounts((root / "proc/self/mountinfo").read_text()):
            for folder in _folders(mount, groups.get(mount.version, mount.root)):
                read = _quota_of_2 if mount.version == 2 else _quota_of_1
                with suppress(OSError, ValueError, IndexError, ZeroDivisionError):
                    quota = read(root / folder.lstrip("/"))
                    if quota > 0:
                        yield quota


def _groups(text: str) -> dict[int, str]:
    """The paths of the groups that limit the CPU, by the version of their hierarchy."""
    found: dict[int, str] = {}
    for line in text.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            found[2] = path
        elif "cpu" in controllers.split(","):
            found[1] = path
    return found


def _mounts(text: str) -> Iterator[_Mount]:
    for line in text.splitlines():
        mounted, _, described = line.partition(" - ")
        kind, _, options = described.partition(" ")
        root, point = (_ESCAPE.sub(lambda code: chr(int(code[1], 8)), word) for word in mounted.split()[3:5])
        if kind == "cgroup2":
            yield _Mount(root, point, 2)
        elif kind == "cgroup" and "cpu" in options.rpartition(" ")[2].split(","):
            yield _Mount(root, point, 1)


def _folders(mount: _Mount, group: str) -> Iterator[str]:
    """The folders of the group and its ancestors. A group that is not visible counts as the mount's root."""
    path, visible = PurePosixPath(group), PurePosixPath(mount.root)
    inner = path.relative_to(visible) if path.is_relative_to(visible) else PurePosixPath()
    parts = () if ".." in inner.parts else inner.parts
    for length in range(len(parts), -1, -1):
        yield "/".join((mount.point.rstrip("/"), *parts[:length]))


def _quota_of_2(folder: Path) -> float:
    quota, period = (folder / "cpu.max").read_text().split()
    return 0.0 if quota == "max" else int(quota) / int(period)


def _quota_of_1(folder: Path) -> float:
    quota = int((folder / "cpu.cfs_quota_us").read_text())
    return quota / int((folder / "cpu.cfs_period_us").read_text())
