"""Versions of stored data: which versions of a driver may work on the data, and how they are upgraded.

A driver numbers the layout of its data, and stores two numbers beside them: the version of the layout, and
the oldest version of the driver that may still work on it. So workers of the version before go on while
the first workers of a new version upgrade the data, unless an upgrade says that they must not.

`prepare()` applies the upgrades that are missing, in order. Each upgrade is idempotent and safe beside
running workers of the version before, because a process may die in the middle and another one may upgrade
at the same moment. The two numbers are written after each upgrade, and never go back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, NamedTuple, TypeVar

from mrq_core.errors import BrokerCorrupt, SchemaTooNew

C = TypeVar("C")


class DataVersion(NamedTuple):
    """The two numbers that are stored beside the data."""

    version: int
    oldest: int
    """The oldest version of the driver that may work on the data."""

    def __str__(self) -> str:
        return f"version {self.version}, for drivers of version {self.oldest} and later"


class Upgrade(NamedTuple, Generic[C]):
    """The step to one version. `apply` is idempotent, and safe beside workers of the version before.

    `oldest`: the oldest version of the driver that may work on the data afterwards.
    """

    apply: Callable[[C], None]
    oldest: int


Upgrades = Mapping[int, Upgrade[C]]
"""The upgrades of a driver by the version that they lead to."""


def read_version(version: object, oldest: object, *, where: str) -> DataVersion:
    """The two stored numbers. `oldest` of None stands for the version: it allows no earlier driver.

    `where` names the stored numbers in a message. Raises BrokerCorrupt for anything but positive integers.
    """
    if oldest is None:
        oldest = version
    numbers = [
        int(n) for n in (version, oldest) if isinstance(n, int | float) and float(n).is_integer() and n > 0
    ]
    if len(numbers) != 2:
        raise BrokerCorrupt(
            f"{where} has the data version {version!r}, for drivers of {oldest!r} and later: expected "
            "two positive integers"
        )
    return DataVersion(*numbers)


def missing_upgrades(stored: DataVersion, own: int, *, where: str) -> range:
    """The versions that the data have to be upgraded to, in order; empty if there are none.

    `own` is the version that this driver writes, `where` names the data in a message. Raises SchemaTooNew
    where the data may no longer be used by a driver of this version.
    """
    if own < stored.oldest:
        raise SchemaTooNew(
            f"the data in {where} have {stored}, and this mrq works with version {own}: upgrade mrq in this "
            "environment, or use another place for its data",
            found=stored.version,
            supported=own,
        )
    return range(stored.version + 1, own + 1)
