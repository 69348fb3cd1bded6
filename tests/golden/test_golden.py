"""Data that earlier versions wrote are opened, read and worked on by this one."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from mrq_core.contract.messages import Outcome, Settlement
from mrq_core.contract.record import Status
from mrq_core.testing.clock import ManualClock
from tests.brokers import check_counters, repair
from tests.golden.stores import ARRANGEMENTS, FOLDER, Store
from tests.golden.story import LEASE, claimed_from, observed, without_gone_fields, work_on
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
def test_a_job_that_an_earlier_version_claimed_alone_is_one_whose_last_claim_was_lost(
    arrangement: str, tmp_path: Path
) -> None:
    [file] = [file for file in map(data_file, EXPECTED) if file.name.rpartition("-1.")[0] in
              (f"{arrangement}", f"{arrangement}-1")]  # fmt: skip
    store = Store(arrangement, tmp_path, tmp_path.name)
    store.load(file)
    expected = file.with_name(file.name.partition(".")[0] + ".expected.json")
    clock = ManualClock(json.loads(expected.read_text(encoding="utf-8"))["now_ms"])
    with closing(store.open(clock)) as broker:
        broker.prepare()
        for losses in (2, 3):
            clock.advance(LEASE)
            [again] = claimed_from(broker, "lost")
            assert (again.claims, again.lost_claims, again.solo_deaths) == (losses + 1, losses, 0)
        settlement = Settlement(id=again.id, token=again.token or "", outcome=Outcome(status=Status.SUCCESS))
        assert broker.settle([settlement]) == [True]
        [ended] = broker.get([again.id])
        assert ended is not None
        assert (ended.lost_claims, [attempt.lost for attempt in ended.attempts]) == (0, [True] * 3 + [False])


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_there_are_golden_data_of_the_present_version(arrangement: str) -> None:
    name = f"{arrangement}-{'-'.join(map(str, VERSIONS[arrangement]))}"
    story = json.loads((FOLDER / f"{name}.expected.json").read_text(encoding="utf-8"))
    assert len(story["commit"]) == 40
