"""What `mrq check` says about the server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mrq_broker_redis.server import key_types, layout
from mrq_broker_redis.server.connection import Connection
from mrq_broker_redis.server.failures import is_forbidden
from mrq_broker_redis.server.layout import Contents
from mrq_core.contract.queries import Finding
from mrq_core.drivers.answers import UNREADABLE
from mrq_core.drivers.checks import tried_write
from mrq_core.errors import BrokerError, CallRefused, SchemaTooNew

OLDEST = (6, 2)
_KEPT = {Contents.JOBS: "an acknowledged job", Contents.ENTRIES: "the entry of a job"}
_REPAIR = {
    Contents.JOBS: "",
    Contents.ENTRIES: "; `mrq check --repair` puts jobs back into their queues that have lost their entry",
}
"""The data that the server keeps, and the repair of lost data."""


def check(connection: Connection, contents: Contents) -> list[Finding]:
    """See `Broker.check`. `contents`: what the prefix should hold. An unreachable server is a finding."""
    found: list[Finding] = []
    try:
        found.extend(_examine(connection, contents))
    except (BrokerError, *UNREADABLE) as error:
        if not isinstance(error, BrokerError):
            error = connection.unreadable(error)
        found.append(_failed("server", error))
    return found


def _examine(connection: Connection, contents: Contents) -> Iterator[Finding]:
    """A command that the ACL of the user forbids is a finding, and the others follow."""
    role = None
    try:
        info = _info(connection)
    except BrokerError as error:
        if not is_forbidden(error):
            raise
        yield Finding(
            level="warning",
            subject="server",
            message=f"version, role, eviction, persistence and memory are unknown: {error}",
            advice="allow the command with ACL SETUSER and +info, and check again",
        )
    else:
        role = info.get("role")
        yield from _server(connection, contents, info)
    try:
        yield from key_types.findings(connection)
        yield _layout(connection, contents)
    except BrokerError as error:
        if not is_forbidden(error):
            raise
        yield _failed("layout", error)
    if role in (None, "master"):
        yield _writes(connection)


def _server(connection: Connection, contents: Contents, info: dict[str, Any]) -> Iterator[Finding]:
    version = str(info.get("redis_version", "0"))
    where = f"Redis {version} at {connection.location.shown}"
    if _numbers(version) < OLDEST:
        yield Finding(
            level="error",
            subject="version",
            message=f"{where}; expected 6.2 or later",
            advice="upgrade the server: scripts of mrq use commands that this one does not have",
        )
    else:
        yield Finding(level="ok", subject="version", message=where)
    yield _role(info)
    yield _eviction(info)
    yield _persistence(info, contents)
    yield from _memory(info)


def _info(connection: Connection) -> dict[str, Any]:
    if not connection.location.is_cluster:
        return dict(connection.use(lambda client: client.info()))
    key = connection.key("layout")  # one node has all keys of the prefix, and only that node is checked
    return dict(connection.use(lambda client: client.info(target_nodes=client.get_node_from_key(key))))


def _role(info: dict[str, Any]) -> Finding:
    if info.get("role") == "master":
        replicas = info.get("connected_slaves", 0)
        return Finding(level="ok", subject="role", message=f"primary with {replicas} replicas")
    return Finding(
        level="error",
        subject="role",
        message="this server is a replica, and takes no changes",
        advice="point the URL at the primary, or use redis+sentinel://",
    )


def _eviction(info: dict[str, Any]) -> Finding:
    policy = info.get("maxmemory_policy", "unknown")
    if policy == "noeviction":
        return Finding(level="ok", subject="eviction", message="noeviction")
    return Finding(
        level="error" if info.get("maxmemory") else "warning",
        subject="eviction",
        message=f"maxmemory-policy is {policy}: when memory is short, the server deletes jobs",
        advice="redis-cli CONFIG SET maxmemory-policy noeviction, and the same in redis.conf",
    )


def _persistence(info: dict[str, Any], contents: Contents) -> Finding:
    if info.get("aof_enabled"):
        status = info.get("aof_last_write_status", "ok")
        if status != "ok":
            return Finding(
                level="error",
                subject="persistence",
                message=f"the last write of the append-only file ended as {status}",
                advice="read the log of the server, and check its disk",
            )
        return Finding(
            level="ok",
            subject="persistence",
            message=f"append-only file; with appendfsync always {_KEPT[contents]} survives kill -9 of the "
            f"server; with everysec up to a second of changes is lost{_REPAIR[contents]}",
        )
    return Finding(
        level="warning",
        subject="persistence",
        message="no append-only file: when the server dies, all changes since the last snapshot are "
        f"lost{_REPAIR[contents]}",
        advice="redis-cli CONFIG SET appendonly yes, also in redis.conf; appendfsync always loses nothing",
    )


def _layout(connection: Connection, contents: Contents) -> Finding:
    found = layout.found(connection)
    if found is None:
        return Finding(
            level="ok", subject="layout", message=f"nothing is stored under {connection.prefix} yet"
        )
    try:
        versions = layout.missing(connection, found)
    except SchemaTooNew:
        return Finding(
            level="error",
            subject="layout",
            message=f"{found.version}, and this mrq works with version {layout.VERSION}"
            if found.contents is not None
            else layout.unknown(connection),
            advice="upgrade mrq in this environment, or set REDIS_PREFIX to another name",
        )
    if found.contents is not contents and found.contents is not None:
        message, advice = layout.belongings(connection, found.contents)
        return Finding(level="error", subject="layout", message=message, advice=advice)
    if versions:
        return Finding(
            level="warning",
            subject="layout",
            message=f"{found.version}, and this mrq upgrades the data to version {layout.VERSION}",
            advice="run `mrq check --fix`, or start a worker of this version",
        )
    return Finding(level="ok", subject="layout", message=f"{found.version} under {connection.prefix}")


def _memory(info: dict[str, Any]) -> Iterator[Finding]:
    used, most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    text = f"{used:,} bytes used" + (f" of {most:,}" if most else ", no maxmemory")
    if most and used > 0.9 * most:
        advice = "raise maxmemory, or let results expire sooner: see DEFAULT_JOB_RESULT_TTL"
        yield Finding(level="warning", subject="memory", message=text, advice=advice)
    else:
        yield Finding(level="ok", subject="memory", message=text)


def _writes(connection: Connection) -> Finding:
    """Runs each command that the driver needs, without a lasting change."""

    def write() -> None:
        forbidden = connection.run("write_nothing", [], repeatable=True)
        if forbidden:
            names = ", ".join(sorted(name.decode() for name in forbidden))
            raise CallRefused(
                f"Redis at {connection.location.shown} forbids this user commands that mrq needs ({names}): "
                "extend its ACL"
            )
        connection.wait_for([connection.key("none")], 0.001)

    return tried_write(write, where="the server")


def _failed(subject: str, error: BrokerError) -> Finding:
    advice = "fix the named problem, and check again"
    return Finding(level="error", subject=subject, message=str(error), advice=advice)


def _numbers(version: str) -> tuple[int, int]:
    major, _, rest = version.partition(".")
    minor = rest.partition(".")[0]
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else (0, 0)
