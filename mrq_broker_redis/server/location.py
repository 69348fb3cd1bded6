"""The server of a URL or of the setting REDIS, and its client."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelManagedConnection, SentinelManagedSSLConnection

from mrq_core.config.secrets import hide_password
from mrq_core.config.urls import url_and_prefix, why_wrong
from mrq_core.contract.driver import Opening
from mrq_core.errors import ConfigError

_FORMS = (
    "expected redis://[user:password@]host[:port][/database], rediss:// for TLS, unix:///path[?db=0], "
    "redis+sentinel://host[:port],host[:port]/service[/database] or redis+cluster://host[:port],host[:port]"
)
_ASKED_NODES = 5
_CONNECT_SECONDS = 5.0
_OPTIONS = frozenset(
    {"host", "port", "path", "db", "username", "password", "connection_class", "client_name", "protocol"}
)


class _SSLConnection(redis.SSLConnection):
    """A connection whose handshake has the timeout of connecting: a server without TLS never answers."""

    def _wrap_socket_with_ssl(self, sock: Any) -> Any:
        sock.settimeout(self.socket_connect_timeout)
        wrapped = super()._wrap_socket_with_ssl(sock)  # type: ignore[no-untyped-call]
        wrapped.settimeout(self.socket_timeout)
        return wrapped


class _SentinelConnection(SentinelManagedConnection):
    """A connection that closes when the wait for a reply is interrupted, unlike redis-py's (redis-py#1128).

    Otherwise the next call, which may be a claim, would take that reply for its own.
    """

    def read_response(
        self, disable_decoding: bool = False, *, disconnect_on_error: bool | None = True, **more: Any
    ) -> Any:
        return super().read_response(disable_decoding, disconnect_on_error=disconnect_on_error, **more)


class _SentinelSSLConnection(_SentinelConnection, SentinelManagedSSLConnection):
    """The same with TLS."""


class _WrongUrl(ValueError):
    """A URL that cannot be used, with a reason that contains no part of its login."""


class Location(NamedTuple):
    """A server: a function that makes a client, the URL without its password for messages, and the prefix."""

    connect: Callable[[], Any]
    shown: str
    prefix: str
    is_cluster: bool = False


def location_of(opening: Opening) -> Location:
    """The server of a broker. Raises ConfigError; connects to nothing."""
    url, prefix = url_and_prefix(opening, "REDIS", "REDIS_PREFIX")
    if not prefix or not prefix.isprintable() or set(prefix) & set("{} "):
        raise ConfigError(
            f"the prefix of the keys in Redis is {prefix!r}: expected a name without spaces and braces in "
            "REDIS_PREFIX, or in the URL as ?prefix=name"
        )
    scheme, separator, _ = url.partition("://")
    # The client repeats no command, because only the caller knows which commands it may repeat.
    common: dict[str, Any] = {
        "socket_timeout": opening.timeout,
        "socket_connect_timeout": min(opening.timeout, _CONNECT_SECONDS),
        "socket_keepalive": True,
        "retry": Retry(NoBackoff(), 0),
    }
    try:
        if separator and scheme in ("redis", "rediss", "unix"):
            _check_options(redis.connection.parse_url(url))  # type: ignore[no-untyped-call]
            _check_database(url)
            if scheme == "unix":
                del common["socket_keepalive"]
            return Location(lambda: _client(url, common), hide_password(url), prefix)
        if scheme in ("redis+sentinel", "rediss+sentinel"):
            return _sentinel(url, prefix, common)
        if scheme == "redis+cluster":
            return _cluster(url, prefix, common)
    except ValueError as error:
        why = str(error) if isinstance(error, _WrongUrl) else why_wrong(url, error)
        raise ConfigError(f"the URL {hide_password(url)!r} is wrong ({why}): {_FORMS}") from None
    raise ConfigError(f"the URL {hide_password(url)!r} names no Redis server: {_FORMS}")


def _check_options(found: Mapping[str, object]) -> None:
    """Raises _WrongUrl for an option that would only fail at the first connection."""
    unknown = [name for name in found if name not in _OPTIONS and not name.startswith("ssl_")]
    if unknown:
        raise _WrongUrl(f"unknown options {', '.join(unknown)}; known are client_name, db and ssl_...")


def _check_database(url: str) -> None:
    """Raises ValueError for a database that is no number, or a port 0: redis-py would use 0 and 6379."""
    parts = urlsplit(url)
    database = parts.path.strip("/") if parts.scheme != "unix" else ""
    if database and not (database.isascii() and database.isdecimal()):
        raise ValueError(f"the database is {database!r}, not a number")
    if parts.scheme != "unix" and parts.port == 0:
        raise ValueError("the port is 0")


def _client(url: str, options: Mapping[str, Any]) -> Any:
    client = redis.Redis.from_url(url, **options)
    pool = client.connection_pool
    if pool.connection_class is redis.SSLConnection:
        pool.connection_class = _SSLConnection
    return client


def _sentinel(url: str, prefix: str, common: dict[str, Any]) -> Location:
    """The primary of a service that sentinels watch. The login is for the primary."""
    parts = urlsplit(url)
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise _WrongUrl("the path does not name the service")
    options = dict(parse_qsl(parts.query))
    for_sentinels = {
        name: common[name]
        for name in ("socket_timeout", "socket_connect_timeout", "socket_keepalive", "retry")
    }
    for_sentinels["socket_timeout"] = for_sentinels["socket_connect_timeout"]
    for name in ("username", "password"):
        if f"sentinel_{name}" in options:
            for_sentinels[name] = options.pop(f"sentinel_{name}")
    if options:
        raise _WrongUrl(f"unknown options {', '.join(options)}")
    if database and not (database.isascii() and database.isdecimal()):
        raise ValueError(f"the database is {database!r}, not a number")
    for_primary: dict[str, Any] = {**common, "db": int(database or 0)}
    _add_login(for_primary, parts.netloc)
    for_primary["connection_class"] = _SentinelConnection
    if url.startswith("rediss"):
        for_primary["connection_class"] = _SentinelSSLConnection
        for_sentinels["ssl"] = True
    hosts = _hosts(parts.netloc, 26379)

    def connect() -> Any:
        sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
            hosts, sentinel_kwargs=for_sentinels
        )
        return sentinel.master_for(unquote(service), **for_primary)

    return Location(connect, hide_password(url), prefix)


def _cluster(url: str, prefix: str, common: dict[str, Any]) -> Location:
    """A cluster, found through any of the given nodes. A cluster has one database."""
    parts = urlsplit(url)
    if parts.path.strip("/") not in ("", "0") or parts.query:
        raise _WrongUrl("a cluster has neither databases nor options here")
    options: dict[str, Any] = {**common}
    _add_login(options, parts.netloc)
    nodes: list[Any] = [ClusterNode(host, port) for host, port in _hosts(parts.netloc, 6379)]  # type: ignore[no-untyped-call]

    def connect() -> Any:
        # The client asks one node for its commands. If that node is away, the next one answers.
        client = RedisCluster(startup_nodes=nodes, **{**options, "retry": Retry(NoBackoff(), _ASKED_NODES)})
        client.set_retry(options["retry"])
        return client

    return Location(connect, hide_password(url), prefix, is_cluster=True)


def _hosts(netloc: str, port: int) -> Sequence[tuple[str, int]]:
    hosts = []
    for host in netloc.rpartition("@")[2].split(","):
        name, number = _host_and_port(host.strip())
        if not name:
            raise _WrongUrl("a host is missing")
        if number and not (number.isascii() and number.isdecimal() and 0 < int(number) < 65_536):
            raise ValueError(f"the port is {number!r}")
        hosts.append((name, int(number or port)))
    return hosts


def _host_and_port(text: str) -> tuple[str, str]:
    """The host, without the brackets of an IPv6 address, and the port, or an empty text."""
    if text.startswith("["):
        name, _, rest = text[1:].partition("]")
        if rest and not rest.startswith(":"):
            raise ValueError(f"{text!r} is not an IPv6 address in brackets and a port")
        return name, rest[1:]
    name, _, number = text.partition(":")
    return name, number


def _add_login(options: dict[str, Any], netloc: str) -> None:
    login, at, _ = netloc.rpartition("@")
    user, _, password = login.partition(":")
    if at and password:
        options["password"] = unquote(password)
    if at and user:
        options["username"] = unquote(user)
