"""Versions of stored data: which versions of a driver may work on the data, and how they are upgraded.

A driver numbers the layout of its data, and stores two numbers beside them: the version of the layout, and
the oldest version of the driver that may still work on it. So workers of the version before go on while
the first workers of a new version upgrade the data, unless an upgrade says that they must not.

`prepare()` applies the upgrades that are missing, in order. Each upgrade is idempotent and safe beside
running workers of the version before, because a process may die in the middle and another one may upgrade
at the same moment. The two numbers are written after each upgrade, and never go back.
"""

from __future__ import annotations

from typing import NamedTuple

from mrq_core.errors import SchemaTooNew


class DataVersion(NamedTuple):
    """The two numbers that are stored beside the data."""

    version: int
    oldest: int
    """The oldest version of the driver that may work on the data."""


def missing_upgrades(stored: DataVersion, own: int, *, where: str) -> range:
    """The versions that the data have to be upgraded to, one after the other; empty if there are none.

    `own` is the version that this driver writes, `where` names the data in a message. Raises SchemaTooNew
    where the data may no longer be used by a driver of this version.
    """
    if own < stored.oldest:
        raise SchemaTooNew(
            f"{where} has the data version {stored.version}, which needs at least {stored.oldest}, and this "
            f"mrq works with {own}: upgrade mrq in this environment",
            found=stored.version,
            supported=own,
        )
    return range(stored.version + 1, own + 1)
