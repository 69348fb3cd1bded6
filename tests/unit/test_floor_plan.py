"""Every driver keeps to the floor plan of docs/driver.md: the same name holds the same thing in each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DRIVERS = ("mrq_core/embedded", "mrq_broker_redis", "mrq_broker_mongo")
MODEL = "mrq_core/testing/memory"
FOLDERS = ("server", "jobs", "raw", "shared")
HALF = "half"
"""Code that a driver needs only as one half of a pair."""
ABSENT = {("mrq_broker_redis", "jobs", "removing")}
"""Files without contents: a Redis script replaces and removes records alike, see `jobs/changing`."""
SHORTEST = 20


def planned() -> dict[str, set[str]]:
    """The files of each folder, as the page lists them."""
    text = (ROOT / "docs" / "driver.md").read_text(encoding="utf-8")
    section = text.partition("## The floor plan")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (the top|`\w+`) \| (.+) \|$", section, re.M)
    return {folder.strip("`"): set(re.findall(r"`(\w+)`", files)) for folder, files in rows}


def modules(driver: str, folder: str = "") -> set[str]:
    return {path.stem for path in (ROOT / driver / folder).glob("*.py")} - {"__init__"}


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_driver_has_the_folders_and_files_of_the_plan(driver: str) -> None:
    plan = planned()
    assert modules(driver) <= plan["the top"]
    for folder in FOLDERS:
        absent = {name for path, where, name in ABSENT if (path, where) == (driver, folder)}
        assert plan[folder] - modules(driver, folder) == absent, f"{driver}/{folder} lacks files of the plan"
    folders = {path.name for path in (ROOT / driver).iterdir() if (path / "__init__.py").exists()}
    assert folders - {*FOLDERS, HALF} == set()


def test_the_in_memory_broker_keeps_to_the_plan() -> None:
    plan = planned()
    assert modules(MODEL) - plan["the top"] == {"data"}
    absent = plan["jobs"] - modules(MODEL, "jobs")
    assert absent == {"removing", "damaged"}, "MemoryData.delete removes, and objects in memory are whole"
    for folder in ("jobs", "raw", "shared"):
        assert modules(MODEL, folder) - plan[folder] == set()


def test_a_name_stands_in_one_folder() -> None:
    """A file outside the plan must not carry the name of another folder's file."""
    plan = planned()
    homes: dict[str, set[str]] = {}
    for driver in DRIVERS:
        for folder in FOLDERS:
            for name in modules(driver, folder):
                homes.setdefault(name, set()).add(folder)
    shared = {name for name in homes if sum(name in names for names in plan.values()) > 1}
    assert {
        name: sorted(found) for name, found in homes.items() if len(found) > 1 and name not in shared
    } == {}


def test_no_file_of_a_driver_is_a_paragraph_of_another() -> None:
    short = [
        str(path.relative_to(ROOT))
        for driver in (*DRIVERS, MODEL)
        for path in (ROOT / driver).rglob("*.py")
        if path.name != "__init__.py" and len(path.read_text(encoding="utf-8").splitlines()) < SHORTEST
    ]
    assert short == []


def test_lua_scripts_stand_in_the_same_folders() -> None:
    lua = ROOT / "mrq_broker_redis" / "lua"
    assert [path.name for path in lua.glob("*.lua")] == []
    assert {path.name for path in lua.iterdir()} <= {*FOLDERS, HALF}
