"""Where the server is: from the URL, or from the setting MONGODB, and how a client for it is made."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from pymongo import MongoClient
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri
from pymongo.write_concern import WriteConcern

from mrq_broker_mongo.server.clients import keep_quiet, new_client
from mrq_core.config.secrets import hide_login
from mrq_core.config.urls import is_host, url_and_prefix, why_wrong
from mrq_core.contract.driver import Opening
from mrq_core.drivers.certificates import problem_of_key
from mrq_core.errors import ConfigError
from mrq_core.errors import shown as shown_value

Doc = dict[str, Any]

_FORMS = (
    "expected mongodb://[user:password@]host[:port][,host[:port]]/database[?options] or "
    "mongodb+srv://[user:password@]host/database[?options]"
)
_CONNECT_SECONDS = 5.0
_TIMEOUT_MOST_MS = 999_999_999
"""The longest that pymongo takes: eleven days."""
_MOST_CONNECTING = 100
_UNUSABLE = set('$/\\ "\0')
_DEFAULT_DATABASE = "mrq"
_DATABASE_BYTES = 63
_NAMESPACE_BYTES = 255
"""The limit of the server for ``database.collection``."""
LONGEST_COLLECTION = "metrics"
"""The longest of the names that follow the prefix."""
_OVERRIDDEN = frozenset({"readpreference", "readpreferencetags", "maxstalenessseconds", "readconcernlevel"})
_REPEATED = frozenset({"readpreferencetags"})
_TLS_FILES = frozenset({"tlscafile", "tlscertificatekeyfile", "tlscrlfile"})
"""Options of URLs that name files, in lower case."""
_COMPRESSORS = frozenset({"snappy", "zlib", "zstd"})
_OURS = frozenset({"sockettimeoutms", "timeoutms"})
"""Options that would end a call, or a wait for news, at another time than BROKER_TIMEOUT."""
_LIMITS = frozenset({"connecttimeoutms", "serverselectiontimeoutms", "waitqueuetimeoutms", "wtimeoutms"})
_SRV_OPTION = re.compile(r"([?&])srv\w+=[^&]*&?", re.IGNORECASE)


class Location(NamedTuple):
    """A deployment: how to make a client for it, its name for messages, the database, and the prefix.

    `concern` is what a write waits for before it counts: a majority, and the journal, unless the URL
    says otherwise. `overridden`: options of the URL that have no effect, because mrq reads from the primary.
    `limits`: the time limits of the URL, by name in lower case, as ``name=value``.
    """

    connect: Callable[[], MongoClient[Doc]]
    shown: str
    database: str
    prefix: str
    concern: WriteConcern
    overridden: tuple[str, ...] = ()
    limits: Mapping[str, str] = {}


def location_of(opening: Opening) -> Location:
    """The deployment of a broker. Raises ConfigError; connects to nothing."""
    url, prefix = url_and_prefix(opening, "MONGODB", "MONGODB_PREFIX", _TLS_FILES)
    shown = hide_login(url)
    if (
        not prefix
        or not prefix.isprintable()
        or set(prefix) & _UNUSABLE
        or prefix.startswith((".", "system."))
        or ".." in prefix
    ):
        raise ConfigError(
            f"the prefix of the collections in MongoDB is {prefix!r}: expected a name without spaces, $, "
            "slashes, a dot at its beginning and two dots in a row, in MONGODB_PREFIX, or in the URL as "
            "?prefix=name"
        )
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigError(f"the URL {shown!r} is wrong ({why_wrong(url, error)}): {_FORMS}") from None
    if parts.scheme not in ("mongodb", "mongodb+srv") or not parts.netloc:
        raise ConfigError(f"the URL {shown!r} names no MongoDB server: {_FORMS}")
    if "@" in parts.path:
        raise ConfigError(
            f"the URL {shown!r} is wrong (user and password have to be percent-encoded): {_FORMS}"
        )
    database = unquote(parts.path.strip("/")) or _DEFAULT_DATABASE
    if set(database) & (_UNUSABLE | {"."}):
        raise ConfigError(f"the URL {shown!r} names the database {database!r}, which cannot be one: {_FORMS}")
    if len(database.encode()) > _DATABASE_BYTES:
        raise ConfigError(
            f"the URL {shown!r} names the database {database!r}, which has {len(database.encode())} bytes: "
            f"expected up to {_DATABASE_BYTES}"
        )
    most = _NAMESPACE_BYTES - len(f"{database}._{LONGEST_COLLECTION}".encode())
    if len(prefix.encode()) > most:
        raise ConfigError(
            f"the prefix of the collections in MongoDB is {shown_value(prefix)}, which has "
            f"{len(prefix.encode())} bytes: expected up to {most} in the database {database}, in "
            "MONGODB_PREFIX or in the URL as ?prefix=name"
        )
    given = parse_qsl(parts.query)
    names = {name.lower() for name, _ in given}
    overridden = tuple(dict.fromkeys(name for name, _ in given if name.lower() in _OVERRIDDEN))
    limits = {name.lower(): f"{name}={value}" for name, value in given if name.lower() in _LIMITS}
    chosen: Doc = {
        "tz_aware": True,
        "appname": "mrq",
        "connectTimeoutMS": round(min(opening.timeout, _CONNECT_SECONDS) * 1000),
        "serverSelectionTimeoutMS": round(min(opening.timeout, _CONNECT_SECONDS) * 1000),
        "socketTimeoutMS": min(round(opening.timeout * 1000), _TIMEOUT_MOST_MS),
        # A greenlet that is killed while it waits for its turn to connect leaves the lock of pymongo's pool
        # to no thread, or to two: a condition's wait has to take it again, and under gevent that can be
        # interrupted.
        "maxConnecting": _MOST_CONNECTING,
        # `Connection` repeats reads, within BROKER_TIMEOUT. While a server is suspended, pymongo would make a
        # call three times as long.
        "retryReads": False,
        "w": "majority",
        "journal": True,
    }
    options = {name: value for name, value in chosen.items() if name.lower() not in names}
    keep_quiet()
    try:
        # Only to read the options; nothing is connected to, and a name of mongodb+srv is not looked up.
        concern = _concern(parts.query)
        _check(url, options, opening.timeout)
    except (ValueError, TypeError, KeyError, OSError, PyMongoError) as error:
        raise ConfigError(f"the URL {shown!r} is wrong ({why_wrong(url, error)}): {_FORMS}") from None
    return Location(lambda: new_client(url, options), shown, database, prefix, concern, overridden, limits)


def _check(url: str, options: Mapping[str, Any], timeout: float) -> None:
    """Raises the errors of pymongo about the URL, unreadable files included, and ValueError for options that
    pymongo does not know, or would ignore. Looks nothing up."""
    scheme, _, rest = url.partition("://")
    if scheme == "mongodb+srv":
        hosts = urlsplit(url).netloc.rpartition("@")[2]
        if "," in hosts or ":" in hosts:
            raise ValueError("a URL with mongodb+srv has one host, and no port")
        rest = _SRV_OPTION.sub(r"\1", rest)
    as_given = parse_qsl(urlsplit(url).query)
    for name, _ in as_given:
        if name.lower() in _OURS:
            raise ValueError(
                f"the option {name} cannot be given: BROKER_TIMEOUT limits each call, to {timeout:g} s now"
            )
    given = [(name.lower(), value) for name, value in as_given]
    for name, count in Counter(name for name, _ in given).items():
        if count > 1 and name not in _REPEATED:
            raise ValueError(f"the option {name} is given {count} times")
    if set(dict(given).get("compressors", "zlib").split(",")) - _COMPRESSORS:
        raise ValueError(
            f"compressors has an unknown name: expected some of {', '.join(sorted(_COMPRESSORS))}"
        )
    try:
        parsed = parse_uri(f"mongodb://{rest}", warn=False)
    except PyMongoError as error:
        if "Unknown option" not in str(error):
            raise
        unknown = [name for name, value in as_given if not _is_known(name, value)]
        raise ValueError(f"the option {', '.join(unknown)} is unknown") from error
    if not all(is_host(host) for host, _ in parsed["nodelist"] if "/" not in host):  # a socket has a path
        raise ValueError("a host is no valid name")
    _check_client(f"mongodb://{rest}", options, dict(given))


def _check_client(url: str, options: Mapping[str, Any], given: Mapping[str, str]) -> None:
    """Makes a client that connects to nothing. `given`: the options of the URL, with names in lower case."""
    password = given.get("tlscertificatekeyfilepassword")
    problem = problem_of_key(
        given.get("tlscertificatekeyfile", ""),
        password,
        file_option="tlsCertificateKeyFile",
        password_option="tlsCertificateKeyFilePassword",
    )
    if problem and not password:
        raise ValueError(problem)
    try:
        MongoClient(url, connect=False, **options).close()
    except PyMongoError as error:
        if problem and "SSL" in str(error):
            raise ValueError(problem) from error
        raise


def _is_known(name: str, value: str) -> bool:
    """Whether pymongo knows an option of this name. Its error about a whole URL does not name the option."""
    try:
        parse_uri(f"mongodb://host/?{urlencode({name: value})}", warn=False)
    except (ValueError, TypeError, KeyError, OSError, PyMongoError) as error:
        return "Unknown option" not in str(error)
    return True


def _concern(query: str) -> WriteConcern:
    """What writes wait for: the URL's options w, journal and wtimeoutMS."""
    given = {name.lower(): value for name, value in parse_qsl(query)}
    w: int | str = given.get("w", "majority")
    if isinstance(w, str) and w.isdecimal():
        w = int(w)
    journal = given.get("journal", "true").lower()
    if journal not in ("true", "false"):
        raise ValueError(f"journal is {journal!r}: expected true or false")
    if w == 0:
        raise ValueError("w is 0: expected 1 or more, or majority, since a write must be acknowledged")
    wtimeout = given.get("wtimeoutms")
    return WriteConcern(w=w, j=journal == "true", wtimeout=int(wtimeout) if wtimeout else None)
