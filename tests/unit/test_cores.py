"""The number of cores that a process may use."""

from __future__ import annotations

from pathlib import Path

import pytest

from mrq_core.config import cores
from mrq_core.config.cores import available_cores

V2 = "30 23 0:26 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "31 23 0:27 {root} /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n"
MEMORY = "32 23 0:28 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n"


@pytest.fixture(autouse=True)
def _sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_affinity", lambda: 16)


def system(folder: Path, groups: str, mounts: str, files: dict[str, str]) -> Path:
    """A folder with the files of /proc and of the control groups."""
    contents = {"proc/self/cgroup": groups, "proc/self/mountinfo": mounts, **files}
    for name, text in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def in_v2(folder: Path, files: dict[str, str], *, group: str = "/", root: str = "/") -> Path:
    files = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    return system(folder, f"0::{group}\n", MEMORY + V2.format(root=root), files)


def in_v1(folder: Path, quota: str, *, group: str, root: str, inner: str = "") -> Path:
    files = {
        f"sys/fs/cgroup/cpu,cpuacct/{inner}cpu.cfs_quota_us": f"{quota}\n",
        f"sys/fs/cgroup/cpu,cpuacct/{inner}cpu.cfs_period_us": "100000\n",
    }
    groups = f"5:memory:/elsewhere\n4:cpu,cpuacct:{group}\n0::/ignored\n"
    return system(folder, groups, MEMORY + V1.format(root=root), files)


def test_without_control_groups_the_affinity_counts(tmp_path: Path) -> None:
    assert available_cores(tmp_path) == 16


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("max 100000", 16),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("5000 100000", 1),
        ("9900000 100000", 16),
    ],
)
def test_the_quota_of_version_2(tmp_path: Path, limit: str, expected: int) -> None:
    assert available_cores(in_v2(tmp_path, {"cpu.max": f"{limit}\n"})) == expected


def test_the_smallest_quota_of_all_ancestors_counts(tmp_path: Path) -> None:
    files = {"cpu.max": "800000 100000\n", "a/cpu.max": "300000 100000\n", "a/b c/cpu.max": "max 100000\n"}
    assert available_cores(in_v2(tmp_path, files, group="/a/b c")) == 3


@pytest.mark.parametrize("group", ["/../../outside", "/gone", "/"])
def test_a_group_that_cannot_be_seen_counts_as_the_root_of_the_container(tmp_path: Path, group: str) -> None:
    assert available_cores(in_v2(tmp_path, {"cpu.max": "400000 100000\n"}, group=group)) == 4


@pytest.mark.parametrize(("quota", "expected"), [("-1", 16), ("350000", 4)])
def test_the_quota_of_version_1_in_a_container(tmp_path: Path, quota: str, expected: int) -> None:
    assert available_cores(in_v1(tmp_path, quota, group="/docker/abc", root="/docker/abc")) == expected


def test_the_quota_of_version_1_on_the_machine(tmp_path: Path) -> None:
    inner = "system.slice/mrq/"
    assert available_cores(in_v1(tmp_path, "700000", group="/system.slice/mrq", root="/", inner=inner)) == 7


@pytest.mark.parametrize("text", ["", "200000", "many 100000", "100000 0", "\0"])
def test_a_limit_that_cannot_be_read_is_left_out(tmp_path: Path, text: str) -> None:
    assert available_cores(in_v2(tmp_path, {"cpu.max": text})) == 16


def test_this_machine_can_be_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 1 <= available_cores() <= cores._affinity()
