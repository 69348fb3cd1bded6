"""The version of the keys' layout that a prefix has. A prefix that is empty gets ours."""

from __future__ import annotations

from mrq_broker_redis.connection import Connection
from mrq_core.errors import SchemaTooNew

VERSION = 1


def version_of(connection: Connection) -> int | None:
    """The version that stands there; None: nothing was stored yet."""
    found = connection.execute("GET", connection.key("layout"))
    return None if found is None else int(found)


def prepare(connection: Connection) -> None:
    """Writes the version where there is none. Raises SchemaTooNew. Safe in several processes at once."""
    connection.execute("SET", connection.key("layout"), VERSION, "NX")
    found = version_of(connection)
    if found is not None and found > VERSION:
        raise SchemaTooNew(
            f"the keys of the prefix {connection.prefix} at {connection.location.shown} have the layout "
            f"{found}, and this version of mrq knows up to {VERSION}: a newer mrq was here; upgrade this "
            "installation, or set REDIS_PREFIX to another name",
            found=found,
            supported=VERSION,
        )
