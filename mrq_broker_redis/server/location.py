"""The server of a URL or of the setting REDIS, and its client."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import redis
from redis._parsers import _HiredisParser
from redis.backoff import NoBackoff
from redis.cluster import REDIS_ALLOWED_KEYS, ClusterNode, RedisCluster
from redis.retry import Retry

try:
    from redis.driver_info import DriverInfo
except ImportError:  # before redis-py 7.1
    DriverInfo = None  # type: ignore[assignment, misc]

from mrq_broker_redis.server.parser import (
    ClusterParser,
    DeadlineParser,
    closed_if_interrupted,
    log_in,
    set_up,
)
from mrq_broker_redis.server.sentinels import PrimaryConnection, PrimarySSLConnection, Sentinels
from mrq_broker_redis.server.tls import (
    TLS_FILES,
    TLS_OPTIONS,
    WrongUrl,
    check_formats,
    tls_options,
    use_own_tls,
    with_version_number,
)
from mrq_core.config.secrets import hide_password, shown_url
from mrq_core.config.urls import is_host, url_and_prefix, why_wrong
from mrq_core.contract.driver import Opening
from mrq_core.errors import ConfigError

_FORMS = (
    "expected redis://[user:password@]host[:port][/database], rediss:// for TLS, unix:///path[?db=0], "
    "redis+sentinel://host[:port],host[:port]/service[/database], rediss+sentinel:// for TLS, "
    "redis+cluster://host[:port],host[:port], or rediss+cluster:// for TLS"
)
CONNECTIONS_MOST = 100
"""Connections of a broker to one server. Further calls wait for one of them."""
_ASKED_NODES = 5
_CONNECT_SECONDS = 5.0
_OPTIONS = frozenset({"client_name", "db", "password", "protocol", "username"})


class _Cluster(RedisCluster):
    """A client of a cluster whose logins end in time, and that closes a connection whose login is
    interrupted."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        manager: Any = self.nodes_manager
        create = manager.create_redis_node

        def create_with_own_tls(*given: Any, **named: Any) -> Any:
            node = create(*given, **named)
            use_own_tls(node.connection_pool)
            return node

        manager.create_redis_node = create_with_own_tls
        for node in self.get_nodes():  # type: ignore[no-untyped-call]
            if node.redis_connection is not None:
                use_own_tls(node.redis_connection.connection_pool)

    def on_connect(self, connection: Any) -> None:
        """Sends the login of a new connection."""
        with closed_if_interrupted(connection):
            set_up(connection, ClusterParser)
            super().on_connect(connection)  # type: ignore[no-untyped-call]


class Location(NamedTuple):
    """A server: a function that makes a client, the URL without its password for messages, and the prefix."""

    connect: Callable[[], Any]
    shown: str
    prefix: str
    is_cluster: bool = False


def location_of(opening: Opening) -> Location:
    """The server of a broker. Raises ConfigError; connects to nothing."""
    url, prefix = url_and_prefix(opening, "REDIS", "REDIS_PREFIX", {*TLS_FILES, "ssl_ca_path"})
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
        if scheme in ("redis+cluster", "rediss+cluster"):
            return _cluster(url, prefix, common)
    except ValueError as error:
        why = str(error) if isinstance(error, WrongUrl) else why_wrong(url, error)
        raise ConfigError(f"the URL {shown_url(url)!r} is wrong ({why}): {_FORMS}") from None
    raise ConfigError(f"the URL {shown_url(url)!r} names no Redis server: {_FORMS}")


def _check_options(url: str) -> None:
    """Raises ValueError for an option that would only fail at the first connection, or be ignored."""
    parts = urlsplit(url)
    options = _options_of(parts.query)
    unknown = [name for name in options if name not in _OPTIONS | TLS_OPTIONS]
    if unknown:
        raise WrongUrl(f"unknown options {', '.join(unknown)}; known are client_name, db and ssl_...")
    tls = [name for name in options if name in TLS_OPTIONS]
    if tls and parts.scheme != "rediss":
        raise WrongUrl(f"{tls[0]} needs rediss://")
    if "db" in options:
        _check_number(options["db"])
    _check_given_once(parts, options)
    check_formats(options)
    found: dict[str, Any] = redis.connection.parse_url(url)  # type: ignore[no-untyped-call]
    tls_options(options)
    if parts.scheme == "unix" and not parts.path.strip("/"):
        raise WrongUrl("it names no socket")
    if parts.scheme == "unix" and not unquote(parts.path).isprintable():
        raise WrongUrl("the path of the socket has characters that cannot be printed")
    _check_host(str(found.get("host", "")))


def _check_given_once(parts: SplitResult, options: Mapping[str, str]) -> None:
    """Raises WrongUrl for a database or a login that an option and another part of the URL give, with
    different values: which of them redis-py takes depends on the part."""
    path = "" if parts.scheme == "unix" else parts.path.strip("/")
    if path and "db" in options and int(path) != int(options["db"]):
        raise WrongUrl(f"the database is given twice: {path} in the path, and db={options['db']}")
    for name, value in (("username", parts.username), ("password", parts.password)):
        if value and name in options and unquote(value) != options[name]:
            raise WrongUrl(f"the {name} is given twice: before the host, and as an option")


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


def _options_of(query: str) -> dict[str, str]:
    """The options of a URL. Raises WrongUrl for an option without a value, or given twice."""
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if not value:  # does not name the option, which may be a part of a password
            raise WrongUrl("an option has no value")
        if name in options:
            raise WrongUrl(f"the option {name} is given twice")
        options[name] = value
    return options


def _check_host(host: str) -> None:
    if not is_host(host):
        raise WrongUrl("the host is no valid name")


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
    if use_own_tls(pool):
        with_version_number(pool.connection_kwargs)
    return client


def _sentinel(url: str, prefix: str, common: dict[str, Any]) -> Location:
    """The primary of a service that sentinels watch. The login is for the primary."""
    parts = _parts_of(url)
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise WrongUrl("the path does not name the service")
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
    unknown = [name for name in options if name not in TLS_OPTIONS]
    if unknown:
        raise WrongUrl(
            f"unknown options {', '.join(unknown)}; known are sentinel_username, sentinel_password, ssl_..."
        )
    has_tls = url.startswith("rediss")
    if options and not has_tls:
        raise WrongUrl(f"{min(options)} needs rediss+sentinel://")
    _check_number(database)
    for_primary: dict[str, Any] = {**common, "db": int(database or 0), "redis_connect_func": log_in}
    _add_login(for_primary, parts.netloc)
    for_primary["connection_class"] = PrimarySSLConnection if has_tls else PrimaryConnection
    if has_tls:
        tls = tls_options(options)
        for_primary |= tls
        for_sentinels |= {"ssl": True, **tls}
    hosts = _hosts(parts.netloc, 26379)

    def connect() -> Any:
        sentinels: Any = Sentinels(hosts, for_sentinels)
        return sentinels.master_for(unquote(service), **for_primary)

    return Location(connect, hide_password(url), prefix)


def _cluster(url: str, prefix: str, common: dict[str, Any]) -> Location:
    """A cluster, found through any of the given nodes. A cluster has one database."""
    parts = _parts_of(url)
    if parts.path.strip("/") not in ("", "0"):
        raise WrongUrl("a cluster has no databases")
    options: dict[str, Any] = {**common, **_tls_of_cluster(url, _options_of(parts.query))}
    _add_login(options, parts.netloc)
    nodes: list[Any] = [ClusterNode(host, port) for host, port in _hosts(parts.netloc, 6379)]  # type: ignore[no-untyped-call]

    def connect() -> Any:
        # The client asks one node for its commands. If that node is away, the next one answers.
        client = _Cluster(startup_nodes=nodes, **{**options, "retry": Retry(NoBackoff(), _ASKED_NODES)})
        client.set_retry(options["retry"])
        return client

    return Location(connect, hide_password(url), prefix, is_cluster=True)


def _tls_of_cluster(url: str, given: Mapping[str, str]) -> dict[str, Any]:
    """The options of TLS, as the client of a cluster takes them: fewer than other clients do."""
    has_tls = url.startswith("rediss")
    known = sorted(TLS_OPTIONS.intersection(REDIS_ALLOWED_KEYS)) if has_tls else []
    unknown = [name for name in given if name not in known]
    if unknown and unknown[0] in TLS_OPTIONS and not has_tls:
        raise WrongUrl(f"{unknown[0]} needs rediss+cluster://")
    if unknown:
        raise WrongUrl(f"unknown options {', '.join(unknown)}; known are {', '.join(known) or 'none'}")
    return {"ssl": True, **tls_options(given)} if has_tls else {}


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
            raise WrongUrl("a host is missing")
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
