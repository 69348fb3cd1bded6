"""Which versions of a driver may work on stored data, and which upgrades the data lack."""

from __future__ import annotations

import pytest

from mrq_core.drivers.versions import DataVersion, missing_upgrades
from mrq_core.errors import SchemaTooNew


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
