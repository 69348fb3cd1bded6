"""Which versions of a driver may work on stored data, and which upgrades the data lack."""

from __future__ import annotations

import pytest

from mrq_core.drivers.versions import DataVersion, missing_upgrades, read_version
from mrq_core.errors import BrokerCorrupt, SchemaTooNew


@pytest.mark.parametrize(
    ("stored", "own", "missing"),
    [((1, 1), 1, []), ((1, 1), 3, [2, 3]), ((3, 1), 1, []), ((3, 2), 2, []), ((3, 3), 4, [4])],
)
def test_upgrades_lead_from_the_stored_version_to_the_drivers(
    stored: tuple[int, int], own: int, missing: list[int]
) -> None:
    assert list(missing_upgrades(DataVersion(*stored), own, where="x")) == missing


@pytest.mark.parametrize(("stored", "own"), [((3, 3), 2), ((2, 2), 1), ((9, 4), 3)])
def test_a_driver_below_the_oldest_version_is_refused(stored: tuple[int, int], own: int) -> None:
    with pytest.raises(SchemaTooNew, match=r"in the file have version .*: upgrade mrq") as caught:
        missing_upgrades(DataVersion(*stored), own, where="the file")
    assert (caught.value.found, caught.value.supported) == (stored[0], own)


@pytest.mark.parametrize(
    ("stored", "expected"), [((3, 2), (3, 2)), ((3, None), (3, 3)), ((3.0, 1.0), (3, 1))]
)
def test_the_two_numbers_are_read(stored: tuple[object, object], expected: tuple[int, int]) -> None:
    assert read_version(*stored, where="x") == expected


@pytest.mark.parametrize(
    "stored", [("3", 1), (3, "1"), (0, None), (3, 0), (-1, 1), (1.5, 1), (float("inf"), 1), (None, None)]
)
def test_numbers_that_no_driver_wrote_are_named(stored: tuple[object, object]) -> None:
    with pytest.raises(BrokerCorrupt, match=r"the file has the data version .*: expected two positive"):
        read_version(*stored, where="the file")
