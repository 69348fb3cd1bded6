"""What a prefix holds, and the version of its keys' layout. A prefix that is empty gets ours."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from mrq_broker_redis.server.connection import Connection
from mrq_core.errors import ConfigError, SchemaTooNew

VERSION = 1


class Contents(Enum):
    """Whole jobs, or entries whose records are in another store. The word stands behind the version."""

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
"""Whose the keys are that somebody else was to use, and what to do."""


class Layout(NamedTuple):
    """What was found under a prefix. Contents of None are of a kind that this version does not know."""

    version: int
    contents: Contents | None


def found(connection: Connection) -> Layout | None:
    """What stands there; None: nothing was stored yet."""
    value = connection.execute("GET", connection.key("layout"))
    if value is None:
        return None
    number, _, word = value.decode().partition(" ")
    kinds = {kind.value: kind for kind in Contents}
    return Layout(int(number), kinds.get(word))


def is_known(layout: Layout) -> bool:
    """Whether this version of mrq can read what is there."""
    return layout.version <= VERSION and layout.contents is not None


def belongings(connection: Connection, contents: Contents) -> tuple[str, str]:
    """Whose the keys are, to one who expected others there, and what to do."""
    whose, advice = _BELONGINGS[contents]
    return f"the keys of the prefix {connection.prefix} at {connection.location.shown} {whose}", advice


def prepare(connection: Connection, contents: Contents) -> None:
    """Writes the layout where there is none. Safe in several processes at once.

    Raises SchemaTooNew, and ConfigError where the prefix holds the other kind of contents.
    """
    value = f"{VERSION} {contents.value}".rstrip()
    connection.execute("SET", connection.key("layout"), value, "NX")
    layout = found(connection)
    if layout is None:
        return
    if not is_known(layout):
        raise SchemaTooNew(
            f"the keys of the prefix {connection.prefix} at {connection.location.shown} have the layout "
            f"{layout.version}, and this version of mrq knows up to {VERSION}: a newer mrq was here; upgrade "
            "this installation, or set REDIS_PREFIX to another name",
            found=layout.version,
            supported=VERSION,
        )
    if layout.contents is not contents and layout.contents is not None:
        raise ConfigError("; ".join(belongings(connection, layout.contents)))


def ensure(connection: Connection, contents: Contents) -> None:
    """Prepares the prefix before something is stored in it that others could not read. A broker looks once.
    Raises what `prepare` raises."""
    if not connection.is_prepared:
        prepare(connection, contents)
        connection.is_prepared = True
