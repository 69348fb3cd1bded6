"""The findings of `mrq check` about the server and the data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mrq_broker_mongo.server import layout
from mrq_broker_mongo.server.connection import Connection
from mrq_broker_mongo.server.location import Doc
from mrq_core.contract.naming import shown_names
from mrq_core.contract.queries import Finding
from mrq_core.drivers.answers import UNREADABLE
from mrq_core.drivers.checks import tried_write
from mrq_core.errors import BrokerError, CallRefused, SchemaTooNew

OLDEST = (5, 0)
_ACTIONS = ("find", "insert", "update", "remove", "createIndex")
_OF_STORE = ("jobs", "totals", "logs", "metrics", "state", "meta")
_OF_QUEUE = ("keys", "limits", "raw", "wake")
"""Collections, and the actions that mrq needs on each."""


def check(connection: Connection) -> list[Finding]:
    """See `Broker.check`. An unreachable server is a finding."""
    found: list[Finding] = []
    try:
        found.extend(_examine(connection))
    except (BrokerError, *UNREADABLE) as error:
        if not isinstance(error, BrokerError):
            error = connection.unreadable(error)
        advice = "fix the named problem, and check again"
        found.append(Finding(level="error", subject="server", message=str(error), advice=advice))
    return found


def _examine(connection: Connection) -> Iterator[Finding]:
    told = connection.on_database(lambda database: database.command("hello"))
    info = connection.on_database(lambda database: database.command("buildInfo"))
    version = str(info.get("version", "0"))
    where = f"MongoDB {version} at {connection.location.shown}"
    if _numbers(version) < OLDEST:
        yield Finding(
            level="error",
            subject="version",
            message=f"{where}; expected 5.0 or later",
            advice="upgrade the server: this one does not store params whose names have dots or dollars",
        )
    else:
        yield Finding(level="ok", subject="version", message=where)
    yield _deployment(told)
    yield _safety(connection, told)
    if connection.location.overridden:
        names = ", ".join(connection.location.overridden)
        yield Finding(
            level="warning",
            subject="options",
            message=f"in the URL, {names} has no effect: mrq reads from the primary",
            advice="leave them out of the URL",
        )
    stored = layout.found(connection)
    yield _layout(connection, stored)
    if layout.other_use(connection, stored) is None:
        yield _indexes(connection, stored)
        if told.get("isWritablePrimary", True):
            yield _writes(connection)
            yield from _damaged_parameters(connection)


def _check_rights(connection: Connection) -> None:
    """Raises CallRefused with the actions that mrq needs and that the roles of the user do not have."""
    name, told = connection.on_database(
        lambda database: (database.name, database.command("connectionStatus", showPrivileges=True))
    )
    told = told["authInfo"]
    if not told.get("authenticatedUsers"):
        return  # a server without users
    granted = told.get("authenticatedUserPrivileges", ())
    has_queue = connection.arrangement.has_queue
    needed = [
        (action, connection.name(collection))
        for collection in (*_OF_STORE, *(_OF_QUEUE if has_queue else ()))
        for action in _ACTIONS
    ]
    if has_queue:
        capped = connection.name("wake")
        needed += [("createCollection", capped), ("convertToCapped", capped), ("listCollections", "")]
    lacking = dict.fromkeys(action for action, of in needed if not _is_granted(granted, name, action, of))
    if lacking:
        raise CallRefused(
            f"MongoDB at {connection.location.shown} grants this user no {', '.join(lacking)}, which mrq "
            f"needs: give the user the role readWrite on the database {name}"
        )


def _is_granted(privileges: Iterable[Doc], database: str, action: str, collection: str) -> bool:
    """Whether one of the privileges allows the action on the collection; "": on the database itself."""
    for one in privileges:
        resource = one["resource"]
        covers = resource.get("db") in ("", database) and resource.get("collection") in ("", collection)
        if action in one["actions"] and (covers or resource.get("anyResource")):
            return True
    return False


def _damaged_parameters(connection: Connection) -> Iterator[Finding]:
    """A warning that names the queues of parameters that cannot be read."""
    noted = connection.run("meta", lambda meta: meta.find_one({"_id": "damaged parameters"}))
    if noted is not None:
        queues = shown_names(sorted(map(str, noted["queues"])))
        yield Finding(
            level="warning",
            subject="damaged parameters",
            message=f"parameters of raw queues cannot be read: of {queues}",
            advice=f"push the parameters again that {connection.name('raw')} holds in documents with a "
            f"damaged_queue, delete these, and {noted['_id']!r} in {connection.name('meta')}",
        )


def _deployment(told: Doc) -> Finding:
    if told.get("setName") and not told.get("isWritablePrimary"):
        return Finding(
            level="error",
            subject="deployment",
            message=f"a secondary of the replica set {told['setName']}, which takes no writes",
            advice="leave directConnection out of the URL, and name the set with replicaSet",
        )
    if told.get("setName"):
        members = len(told.get("hosts", ()))
        return Finding(
            level="ok", subject="deployment", message=f"replica set {told['setName']}, members: {members}"
        )
    if told.get("msg") == "isdbgrid":
        return Finding(level="ok", subject="deployment", message="sharded cluster")
    return Finding(
        level="ok",
        subject="deployment",
        message="one server: it loses nothing when it is killed, and no other server takes its place",
    )


def _safety(connection: Connection, told: Doc) -> Finding:
    concern = connection.location.concern.document
    message = f"writes wait for w={concern.get('w')}, journal={str(bool(concern.get('j'))).lower()}"
    is_safe = concern.get("j") and (concern.get("w") == "majority" or not told.get("setName"))
    if is_safe:
        return Finding(level="ok", subject="durability", message=message)
    return Finding(
        level="warning",
        subject="durability",
        message=f"{message}: an acknowledged job can get lost when a server dies",
        advice="leave the options w and journal out of the URL: writes then wait for a majority of disks",
    )


def _layout(connection: Connection, stored: layout.Layout | None) -> Finding:
    name = connection.name("*")
    if stored is None:
        return Finding(level="ok", subject="layout", message=f"nothing is stored in {name} yet")
    wrong = layout.other_use(connection, stored)
    if wrong is not None:
        return Finding(
            level="error", subject="layout", message=wrong, advice="set MONGODB_PREFIX to another name"
        )
    try:
        versions = layout.missing_versions(connection, stored)
    except SchemaTooNew:
        return Finding(
            level="error",
            subject="layout",
            message=f"{stored.version}, and this mrq works with version {layout.VERSION}",
            advice="upgrade mrq in this environment, or set MONGODB_PREFIX to another name",
        )
    if versions:
        return Finding(
            level="warning",
            subject="layout",
            message=f"{stored.version}, and this mrq upgrades the data to version {layout.VERSION}",
            advice="run `mrq check --fix`, or start a worker of this version",
        )
    return Finding(level="ok", subject="layout", message=f"{stored.version} in {name}")


def _indexes(connection: Connection, stored: layout.Layout | None) -> Finding:
    if stored is None:
        return Finding(
            level="ok", subject="indexes", message="they are created before the first job is stored"
        )
    missing = layout.missing_indexes(connection)
    if not missing:
        return Finding(
            level="ok", subject="indexes", message=f"all {len(layout.indexes(connection))} are there"
        )
    return Finding(
        level="error",
        subject="indexes",
        message=f"missing: {', '.join(missing)}",
        advice="mrq check --fix creates them",
    )


def _writes(connection: Connection) -> Finding:
    nothing = {"_id": "none"}, {"$set": {"none": None}}

    def write() -> None:
        connection.run("meta", lambda meta: meta.update_one(*nothing))
        _check_rights(connection)

    return tried_write(write, where="the server")


def _numbers(version: str) -> tuple[int, int]:
    major, _, rest = version.partition(".")
    minor = rest.partition(".")[0]
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else (0, 0)
