"""The names by which the usual run leaves out tests are names of tests."""

from __future__ import annotations

import re
from pathlib import Path

from tests import brokers, usual_run

ROOT = Path(__file__).parents[2]
FOLDERS = (ROOT / "tests", ROOT / "mrq_core" / "testing")


def test_what_is_left_out_by_name_exists() -> None:
    files = [file for folder in FOLDERS for file in folder.rglob("*.py")]
    defined = {name for file in files for name in re.findall(r"\b(?:def|class) (\w+)", file.read_text())}
    named = {*usual_run._HISTORIES, *usual_run._SAME_CODE, *usual_run._ONE_VARIANT, *usual_run._A_THIRD}
    named |= usual_run._LEFT
    named |= {part for name in usual_run._LONG for part in name.split("::")}
    assert named - defined == set()
    assert {file.stem for file in files} >= brokers._ON_EACH | brokers._ON_FIRST
