"""The contents of a prefix, and the version of its data.

The key `layout` holds the two numbers of `mrq_core.drivers.versions`, and the contents: ``2 2`` or ``2 2
queue``.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

from mrq_broker_redis.server import upgrades
from mrq_broker_redis.server.connection import Connection
from mrq_core.drivers.versions import DataVersion, Upgrade, Upgrades, missing_upgrades, read_version
from mrq_core.errors import BrokerCorrupt, ConfigError, SchemaTooNew

VERSION = 2
"""The version of the data that this driver writes."""
OLDEST = 2
"""The oldest version of the driver that may work on these data."""
UPGRADES: Upgrades[Connection] = {2: Upgrade(upgrades.add_exceptions, oldest=2)}
"""Workers of version 1 have to be stopped before the upgrade to version 2."""
_LAYOUT = re.compile(r"(\d+)(?: (\d+))?(?: (\D.*))?\Z")


class Contents(Enum):
    """Whole jobs, or entries whose records are in another store. The word follows the version."""

    JOBS = ""
    ENTRIES = "queue"


_BELONGINGS = {
    Contents.JOBS: (
        "hold the records of their jobs too: they belong to the broker redis without a store",
        "leave STORE out, or set REDIS_PREFIX to another name",
    ),
    Contents.ENTRIES: (
        "hold a queue whose records are in another store",
        "name that store in STORE, or set REDIS_PREFIX to another name",
    ),
}
"""The owner of keys that another arrangement was going to use, and advice."""


class Layout(NamedTuple):
    """The layout of a prefix. Contents of None are of a kind that this version does not know."""

    version: DataVersion
    contents: Contents | None


def found(connection: Connection) -> Layout | None:
    """The layout of the prefix. None: nothing was stored yet. Raises BrokerCorrupt."""
    value = connection.execute("GET", connection.key("layout"))
    if value is None:
        return None
    numbers = _LAYOUT.match(value.decode())
    if numbers is None:
        raise BrokerCorrupt(
            f"the key {connection.key('layout')} is {value.decode()!r}: expected two numbers, and `queue` "
            "where the records are in another store"
        )
    version, oldest, word = numbers.groups()
    kinds = {kind.value: kind for kind in Contents}
    stored = read_version(int(version), oldest and int(oldest), where=f"the key {connection.key('layout')}")
    return Layout(stored, kinds.get(word or ""))


def belongings(connection: Connection, contents: Contents) -> tuple[str, str]:
    """The owner of the keys, for a caller that expected other contents, and advice."""
    whose, advice = _BELONGINGS[contents]
    return f"the keys of {_where(connection)} {whose}", advice


def unknown(connection: Connection) -> str:
    """What is wrong with keys whose contents are of a kind that this version does not know."""
    return f"the keys of {_where(connection)} hold contents of a kind that this mrq does not know"


def missing(connection: Connection, layout: Layout) -> range:
    """The upgrades that the data lack. Raises SchemaTooNew, also for contents of an unknown kind."""
    if layout.contents is None:
        raise SchemaTooNew(
            f"{unknown(connection)}: upgrade mrq in this environment, or set REDIS_PREFIX to another name",
            found=layout.version.version,
            supported=VERSION,
        )
    return missing_upgrades(layout.version, VERSION, where=_where(connection))


def _where(connection: Connection) -> str:
    return f"the prefix {connection.prefix} at {connection.location.shown}"


def prepare(connection: Connection, contents: Contents) -> None:
    """Writes the layout of an empty prefix, or upgrades the data. Safe in several processes at once.

    Raises SchemaTooNew, and ConfigError where the prefix holds the other kind of contents.
    """
    layout = found(connection)
    if layout is None:  # otherwise nothing is set: a server without free memory refuses each SET
        value = f"{VERSION} {OLDEST} {contents.value}".rstrip()
        connection.execute("SET", connection.key("layout"), value, "NX")
        layout = found(connection)
    if layout is None:
        return
    versions = missing(connection, layout)
    if layout.contents is not contents and layout.contents is not None:
        raise ConfigError("; ".join(belongings(connection, layout.contents)))
    for version in versions:
        upgrade = UPGRADES[version]
        upgrade.apply(connection)
        connection.run("raise_version", [version, upgrade.oldest], repeatable=True)


def ensure(connection: Connection, contents: Contents) -> None:
    """Prepares the prefix before the first write of a broker, which asks the server once.

    Raises what `prepare` raises.
    """
    if not connection.is_prepared:
        prepare(connection, contents)
        connection.is_prepared = True
