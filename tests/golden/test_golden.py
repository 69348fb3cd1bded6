"""Data that earlier versions wrote are opened, read and worked on by this one."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from mrq_core.testing.clock import ManualClock
from tests.brokers import check_counters, repair
from tests.golden.stores import ARRANGEMENTS, FOLDER, Store
from tests.golden.story import observed, without_gone_fields, work_on
from tests.golden.write import VERSIONS

EXPECTED = sorted(FOLDER.glob("*.expected.json"))


def data_file(expected: Path) -> Path:
    name = expected.name.removesuffix(".expected.json")
    [file] = [FOLDER / f"{name}{ending}" for ending in (".sqlite3", ".data.json")
              if (FOLDER / f"{name}{ending}").exists()]  # fmt: skip
    return file


@pytest.mark.parametrize("expected", EXPECTED, ids=lambda path: path.name.removesuffix(".expected.json"))
def test_golden_data_are_read_and_worked_on(expected: Path, tmp_path: Path) -> None:
    story = json.loads(expected.read_text(encoding="utf-8"))
    store = Store(story["arrangement"], tmp_path, tmp_path.name)
    store.load(data_file(expected))
    clock = ManualClock(story["now_ms"])
    with closing(store.open(clock)) as broker:
        broker.prepare()
        expected_now = without_gone_fields(story["observed"])
        assert json.loads(json.dumps(observed(broker, clock))) == expected_now
        assert [finding for finding in broker.check() if finding.level == "error"] == []
        work_on(broker, clock)
        repair(broker)
        check_counters(story["arrangement"], broker, tmp_path)


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_there_are_golden_data_of_the_present_version(arrangement: str) -> None:
    name = f"{arrangement}-{'-'.join(map(str, VERSIONS[arrangement]))}"
    story = json.loads((FOLDER / f"{name}.expected.json").read_text(encoding="utf-8"))
    assert len(story["commit"]) == 40
