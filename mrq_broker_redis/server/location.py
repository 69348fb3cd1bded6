"""The server of a URL or of the setting REDIS, and its client."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import redis
from redis._parsers import _HiredisParser
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelManagedConnection, SentinelManagedSSLConnection

try:
    from redis.driver_info import DriverInfo
except ImportError:  # before redis-py 7.1
    DriverInfo = None  # type: ignore[assignment, misc]

from mrq_broker_redis.server.parser import (
    DeadlineParser,
    closed_if_interrupted,
    keep_in_process,
    log_in,
    set_up,
)
from mrq_core.config.secrets import hide_password, shown_url
from mrq_core.config.urls import is_host, url_and_prefix, why_wrong
from mrq_core.contract.driver import Opening
from mrq_core.errors import ConfigError

_FORMS = (
    "expected redis://[user:password@]host[:port][/database], rediss:// for TLS, unix:///path[?db=0], "
    "redis+sentinel://host[:port],host[:port]/service[/database] or redis+cluster://host[:port],host[:port]"
)
CONNECTIONS_MOST = 100
"""Connections of a broker to one server. Further calls wait for one of them."""
_ASKED_NODES = 5
_CONNECT_SECONDS = 5.0
_OPTIONS = frozenset({"client_name", "db", "password", "protocol", "username"})
_TLS_FILES = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
_TLS_OPTIONS = _TLS_FILES | {
    "ssl_ca_data", "ssl_ca_path", "ssl_cert_reqs", "ssl_check_hostname", "ssl_ciphers",
    "ssl_exclude_verify_flags", "ssl_include_verify_flags", "ssl_min_version", "ssl_password",
}  # fmt: skip
_FORMATS = {
    "client_name": (re.compile(r"[!-~]+"), "letters without spaces"),
    "protocol": (re.compile("[23]"), "2 or 3"),
    "ssl_min_version": (
        re.compile(r"\d{1,9}", re.ASCII),
        "a number of ssl.TLSVersion, such as 772 for TLS 1.3",
    ),
    "ssl_check_hostname": (re.compile("true|false", re.IGNORECASE), "true or false"),
}


class _SSLConnection(redis.SSLConnection):
    """A connection whose handshake has the timeout of connecting: a server without TLS never answers. A child
    that is forked amid the handshake takes no part in it."""

    def _wrap_socket_with_ssl(self, sock: Any) -> Any:
        keep_in_process(self, sock)
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


class _SentinelSSLConnection(_SentinelConnection, SentinelManagedSSLConnection, _SSLConnection):
    """The same with TLS."""


class _Cluster(RedisCluster):
    """A client of a cluster whose logins end in time, and that closes a connection whose login is
    interrupted."""

    def on_connect(self, connection: Any) -> None:
        """Sends the login of a new connection."""
        with closed_if_interrupted(connection):
            set_up(connection)
            super().on_connect(connection)  # type: ignore[no-untyped-call]


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
    url, prefix = url_and_prefix(opening, "REDIS", "REDIS_PREFIX", {*_TLS_FILES, "ssl_ca_path"})
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
        "max_connections": CONNECTIONS_MOST,
        **_without_maintenance(),
        **_with_version(),
    }
    parser = {"parser_class": DeadlineParser} if redis.connection.DefaultParser is _HiredisParser else {}
    try:
        if separator and scheme in ("redis", "rediss", "unix"):
            _check_database(url)
            _check_options(url)
            if scheme == "unix":
                del common["socket_keepalive"]
            options = common | parser | {"redis_connect_func": log_in}
            return Location(lambda: _client(url, options), hide_password(url), prefix)
        if scheme in ("redis+sentinel", "rediss+sentinel"):
            return _sentinel(url, prefix, common | parser)
        if scheme == "redis+cluster":
            return _cluster(url, prefix, common)
    except ValueError as error:
        why = str(error) if isinstance(error, _WrongUrl) else why_wrong(url, error)
        raise ConfigError(f"the URL {shown_url(url)!r} is wrong ({why}): {_FORMS}") from None
    raise ConfigError(f"the URL {shown_url(url)!r} names no Redis server: {_FORMS}")


def _check_options(url: str) -> None:
    """Raises ValueError for an option that would only fail at the first connection, or be ignored."""
    parts = urlsplit(url)
    options = _options_of(parts.query)
    unknown = [name for name in options if name not in _OPTIONS | _TLS_OPTIONS]
    if unknown:
        raise _WrongUrl(f"unknown options {', '.join(unknown)}; known are client_name, db and ssl_...")
    tls = [name for name in options if name in _TLS_OPTIONS]
    if tls and parts.scheme != "rediss":
        raise _WrongUrl(f"{tls[0]} needs rediss://")
    if "db" in options:
        _check_number(options["db"])
    _check_given_once(parts, options)
    for name, (form, expected) in _FORMATS.items():
        if name in options and not form.fullmatch(options[name]):
            raise _WrongUrl(f"{name} is {options[name]!r}: expected {expected}")
    found: dict[str, Any] = redis.connection.parse_url(url)  # type: ignore[no-untyped-call]
    if tls:
        _check_tls(_with_version_number({name: found[name] for name in found if name in _TLS_OPTIONS}))
    if parts.scheme == "unix" and not parts.path.strip("/"):
        raise _WrongUrl("it names no socket")
    if parts.scheme == "unix" and not unquote(parts.path).isprintable():
        raise _WrongUrl("the path of the socket has characters that cannot be printed")
    _check_host(str(found.get("host", "")))


def _check_given_once(parts: SplitResult, options: Mapping[str, str]) -> None:
    """Raises _WrongUrl for a database or a login that an option and another part of the URL give, with
    different values: which of them redis-py takes depends on the part."""
    path = "" if parts.scheme == "unix" else parts.path.strip("/")
    if path and "db" in options and int(path) != int(options["db"]):
        raise _WrongUrl(f"the database is given twice: {path} in the path, and db={options['db']}")
    for name, value in (("username", parts.username), ("password", parts.password)):
        if value and name in options and unquote(value) != options[name]:
            raise _WrongUrl(f"the {name} is given twice: before the host, and as an option")


def _with_version() -> dict[str, Any]:
    """The version that redis-py tells the server. It would look it up for each new connection, on `sys.path`,
    which a task may have spoilt."""
    if DriverInfo is None:
        return {"lib_version": redis.__version__}
    return {"driver_info": DriverInfo(lib_version=redis.__version__)}


def _without_maintenance() -> dict[str, Any]:
    """Keeps redis-py from asking for maintenance notifications: one more command for each connection, which
    most servers refuse. redis-py then asks for a logger, and a job may hold the lock of logging."""
    try:
        from redis.maint_notifications import MaintNotificationsConfig
    except ImportError:  # an earlier redis-py
        return {}
    return {"maint_notifications_config": MaintNotificationsConfig(enabled=False)}


def _with_version_number(options: dict[str, Any]) -> dict[str, Any]:
    """The options with the least version of TLS as a number, as redis-py 6 leaves to its callers."""
    if "ssl_min_version" in options:
        options["ssl_min_version"] = int(options["ssl_min_version"])
    return options


def _options_of(query: str) -> dict[str, str]:
    """The options of a URL. Raises _WrongUrl for an option without a value, or given twice."""
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if not value:  # does not name the option, which may be a part of a password
            raise _WrongUrl("an option has no value")
        if name in options:
            raise _WrongUrl(f"the option {name} is given twice")
        options[name] = value
    return options


def _check_tls(options: Mapping[str, Any]) -> None:
    """Raises _WrongUrl for options of TLS that no connection could use. Reads the files that they name."""
    for name in sorted(_TLS_FILES.intersection(options)):
        try:
            with open(options[name], "rb"):
                pass
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise _WrongUrl(f"the file of {name} cannot be read: {why}") from None
    if not os.path.isdir(options.get("ssl_ca_path", "/")):
        raise _WrongUrl("ssl_ca_path does not name a directory")
    try:
        redis.SSLConnection(**options)
        context = ssl.create_default_context()
        certificate, key = options.get("ssl_certfile"), options.get("ssl_keyfile")
        if certificate or key:
            if not certificate:
                raise _WrongUrl("ssl_keyfile needs ssl_certfile")
            # Without a password OpenSSL would ask for one on the terminal.
            context.load_cert_chain(certificate, key, options.get("ssl_password", ""))
        authorities = {name: options.get(f"ssl_ca_{name[2:]}") for name in ("capath", "cadata")}
        authorities["cafile"] = options.get("ssl_ca_certs")
        if any(authorities.values()):
            context.load_verify_locations(**authorities)
        if "ssl_min_version" in options:
            context.minimum_version = options["ssl_min_version"]
        if options.get("ssl_ciphers"):
            context.set_ciphers(options["ssl_ciphers"])
    except _WrongUrl:
        raise
    except TypeError as error:  # an option that this version of redis-py lacks
        raise _WrongUrl(f"redis-py {redis.__version__} does not take its options of TLS: {error}") from None
    except (OSError, ValueError, redis.RedisError) as error:  # an ssl.SSLError is an OSError
        raise _WrongUrl(f"its options of TLS cannot be used: {' '.join(str(error).split())}") from None


def _check_host(host: str) -> None:
    if not is_host(host):
        raise _WrongUrl("the host is no valid name")


def _check_database(url: str) -> None:
    """Raises ValueError for a database that is no number, or a port 0: redis-py would use 0 and 6379."""
    parts = urlsplit(url)
    if parts.scheme != "unix":
        if parts.port == 0:
            raise ValueError("the port is 0")
        _check_number(parts.path.strip("/"))


def _check_number(database: str) -> None:
    if database and not (database.isascii() and database.isdecimal()):
        raise ValueError(f"the database is {database!r}, not a number")


def _client(url: str, options: Mapping[str, Any]) -> Any:
    client = redis.Redis.from_url(url, **options)
    pool = client.connection_pool
    if _use_own_tls(pool):
        _with_version_number(pool.connection_kwargs)
    return client


def _use_own_tls(pool: Any) -> bool:
    """Gives a pool for TLS our class of connections. Returns whether it is such a pool."""
    if pool.connection_class is not redis.SSLConnection:
        return False
    pool.connection_class = _SSLConnection
    return True


def _sentinel(url: str, prefix: str, common: dict[str, Any]) -> Location:
    """The primary of a service that sentinels watch. The login is for the primary."""
    parts = _parts_of(url)
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise _WrongUrl("the path does not name the service")
    options = _options_of(parts.query)
    for_sentinels: dict[str, Any] = {
        name: common[name]
        for name in ("socket_timeout", "socket_connect_timeout", "socket_keepalive", "retry")
    }
    for_sentinels |= {"redis_connect_func": log_in, **_without_maintenance(), **_with_version()}
    for_sentinels["socket_timeout"] = for_sentinels["socket_connect_timeout"]
    for name in ("username", "password"):
        if f"sentinel_{name}" in options:
            for_sentinels[name] = options.pop(f"sentinel_{name}")
    if options:
        raise _WrongUrl(f"unknown options {', '.join(options)}")
    _check_number(database)
    for_primary: dict[str, Any] = {**common, "db": int(database or 0), "redis_connect_func": log_in}
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
        for one in sentinel.sentinels:
            _use_own_tls(one.connection_pool)
        return sentinel.master_for(unquote(service), **for_primary)

    return Location(connect, hide_password(url), prefix)


def _cluster(url: str, prefix: str, common: dict[str, Any]) -> Location:
    """A cluster, found through any of the given nodes. A cluster has one database."""
    parts = _parts_of(url)
    if parts.path.strip("/") not in ("", "0") or parts.query:
        raise _WrongUrl("a cluster has neither databases nor options here")
    options: dict[str, Any] = {**common}
    _add_login(options, parts.netloc)
    nodes: list[Any] = [ClusterNode(host, port) for host, port in _hosts(parts.netloc, 6379)]  # type: ignore[no-untyped-call]

    def connect() -> Any:
        # The client asks one node for its commands. If that node is away, the next one answers.
        client = _Cluster(startup_nodes=nodes, **{**options, "retry": Retry(NoBackoff(), _ASKED_NODES)})
        client.set_retry(options["retry"])
        return client

    return Location(connect, hide_password(url), prefix, is_cluster=True)


def _parts_of(url: str) -> SplitResult:
    """The parts of a URL with several hosts. `urlsplit` of newer versions of Python refuses a list of IPv6
    addresses."""
    scheme, _, rest = url.partition("://")
    rest, _, fragment = rest.partition("#")
    rest, _, query = rest.partition("?")
    netloc, slash, path = rest.partition("/")
    login, at, hosts = netloc.rpartition("@")
    for host in hosts.split(","):
        urlsplit(f"{scheme}://{login}{at}{host}")  # raises ValueError for a host that cannot be
    return SplitResult(scheme, netloc, slash + path, query, fragment)


def _hosts(netloc: str, port: int) -> Sequence[tuple[str, int]]:
    hosts = []
    for host in netloc.rpartition("@")[2].split(","):
        name, number = _host_and_port(host.strip())
        if not name:
            raise _WrongUrl("a host is missing")
        if number and not (number.isascii() and number.isdecimal() and 0 < int(number) < 65_536):
            raise ValueError(f"the port is {number!r}")
        _check_host(name)
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
