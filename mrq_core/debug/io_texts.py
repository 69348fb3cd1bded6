"""Describes calls without values: commands with keys, URLs without logins and queries, statements by table.

Parts of keys and paths that look like secrets are ``***``. The functions read only built-in types, because
they are called in native threads: a method of a task's class must not run there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mrq_core.config.secrets import HIDDEN, looks_secret

_NAME_MOST = 100
_SEPARATOR = re.compile(r"([:/|.,={}\s]+)")
_LONG = 16
"""Characters from which on a part is shown only if it consists of words and numbers."""
_WORD = re.compile(
    r"\d{0,12}|[A-Z]{1,20}|[A-Za-z]|(?=.{2,30}$)[A-Z]?[a-z]{2,}(?:[A-Z][a-z]{2,})*\d{0,4}", re.ASCII
)
"""A number, or words that may be in camel case. Each text matches in one way: no input makes this slow."""
_DASHES = re.compile("[-_]")
_QUOTED = re.compile(r"'(?:[^']|'')*(?:'|$)")
_DOUBLE_QUOTED = re.compile(r"\"([^\"]*)(?:\"|$)")
_COMMENT = re.compile(r"/\*.*?(?:\*/|$)|--[^\n]*", re.DOTALL)
_VERB = re.compile(r"[A-Za-z]+")
_TABLE = re.compile(r"""\b(?:from|into|update|table)\s+["`\[]?(\w+(?:\.\w+)?)""", re.IGNORECASE)
_SQL_MOST = 1000
_KEYED_NAMES = """
    APPEND BITCOUNT BITFIELD BITFIELD_RO BITPOS BLMOVE BLPOP BRPOP BRPOPLPUSH BZPOPMAX BZPOPMIN COPY DECR
    DECRBY DEL DUMP EXISTS EXPIRE EXPIREAT EXPIRETIME GEOADD GEODIST GEOHASH GEOPOS GEORADIUS GEOSEARCH
    GEOSEARCHSTORE GET GETBIT GETDEL GETEX GETRANGE GETSET HDEL HEXISTS HGET HGETALL HINCRBY HINCRBYFLOAT
    HKEYS HLEN HMGET HMSET HRANDFIELD HSCAN HSET HSETNX HSTRLEN HVALS INCR INCRBY INCRBYFLOAT LINDEX LINSERT
    LLEN LMOVE LPOP LPOS LPUSH LPUSHX LRANGE LREM LSET LTRIM MGET MOVE MSET MSETNX PERSIST PEXPIRE PEXPIREAT
    PEXPIRETIME PFADD PFCOUNT PFMERGE PSETEX PTTL PUBLISH RENAME RENAMENX RESTORE RPOP RPOPLPUSH RPUSH
    RPUSHX SADD SCARD SDIFF SDIFFSTORE SET SETBIT SETEX SETNX SETRANGE SINTER SINTERSTORE SISMEMBER SMEMBERS
    SMISMEMBER SMOVE SORT SPOP SPUBLISH SRANDMEMBER SREM SSCAN STRLEN SUBSTR SUNION SUNIONSTORE TOUCH TTL
    TYPE UNLINK WATCH XACK XADD XAUTOCLAIM XCLAIM XDEL XLEN XPENDING XRANGE XREVRANGE XTRIM ZADD ZCARD
    ZCOUNT ZDIFFSTORE ZINCRBY ZINTERSTORE ZLEXCOUNT ZMSCORE ZPOPMAX ZPOPMIN ZRANDMEMBER ZRANGE ZRANGEBYLEX
    ZRANGEBYSCORE ZRANGESTORE ZRANK ZREM ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE ZREVRANGE
    ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE ZUNIONSTORE
"""
_KEYED = frozenset(_KEYED_NAMES.split())
"""The commands of Redis whose first argument is a key or a channel."""
_SCRIPTS = frozenset({"EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO", "FCALL", "FCALL_RO"})
"""The commands of Redis with a script, a number of keys, and the keys."""
_CONTAINERS = frozenset(
    {
        *("ACL", "CLIENT", "CLUSTER", "COMMAND", "CONFIG", "DEBUG", "FUNCTION", "LATENCY"),
        *("MEMORY", "MODULE", "OBJECT", "PUBSUB", "SCRIPT", "SLOWLOG", "XGROUP", "XINFO"),
    }
)
"""The commands of Redis whose second word belongs to their name."""


def text_of(value: object) -> str:
    """Text, bytes or a whole number as text; ``?`` for anything else."""
    if type(value) is str:
        return value
    if type(value) is bytes:
        return value.decode("utf-8", "backslashreplace")
    return str(value) if type(value) is int else "?"


def shown_name(value: object) -> str:
    """A key or a path, with ``***`` for what looks like a secret: a long part that does not consist of words
    and numbers, and all after a name such as ``token``."""
    text = text_of(value)
    is_cut = len(text) > _NAME_MOST
    parts = _SEPARATOR.split(text[: 2 * _NAME_MOST])
    for index in range(0, len(parts), 2):
        part = parts[index]
        if len(part) >= _LONG and not all(map(_WORD.fullmatch, _DASHES.split(part))):
            parts[index] = HIDDEN
        elif looks_secret(part) and any(parts[index + 1 :]):
            return "".join((*parts[: index + 2], HIDDEN))
    return "".join(parts)[:_NAME_MOST] + ("..." if is_cut else "")


def address(value: object) -> str:
    """The address of a socket: ``host:port``, ``[host]:port``, or a path. Empty for an address without a
    name."""
    if type(value) is tuple and len(value) >= 2:
        if value[1] is None:  # pymongo's form of a path
            return text_of(value[0])
        host, port = text_of(value[0]), text_of(value[1])
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return text_of(value) if type(value) in (str, bytes) else ""


# --- one function for each kind of call ------------------------------------------------------------


def redis_command(subject: tuple[Sequence[object], Mapping[str, Any] | None]) -> str:
    """``GET user:42 at 127.0.0.1:6379``."""
    arguments, server = subject
    words = (text_of(arguments[0])[:_NAME_MOST].upper() if arguments else "").split() or ["?"]
    name = " ".join(words[: 2 if words[0] in _CONTAINERS else 1])
    key: object = None
    if name in _KEYED and len(arguments) > 1:
        key = arguments[1]
        if type(key) in (list, tuple) and key:
            key = key[0]  # type: ignore[index]
    elif name in _SCRIPTS and len(arguments) > 3 and text_of(arguments[2]) not in ("0", "?"):
        key = arguments[3]
    shown = name if key is None else f"{name} {shown_name(key)}"
    return f"{shown}{_at(redis_server(server))}"


def redis_pipeline(subject: tuple[int, Mapping[str, Any] | None]) -> str:
    """``pipeline of 3 commands at 127.0.0.1:6379``."""
    number, server = subject
    return f"pipeline of {number} command{'' if number == 1 else 's'}{_at(redis_server(server))}"


def redis_listen(server: Mapping[str, Any] | None) -> str:
    """``wait for a message at 127.0.0.1:6379``."""
    return f"wait for a message{_at(redis_server(server))}"


def redis_server(server: Mapping[str, Any] | None) -> str:
    """The address from the arguments of a connection; empty if they have none."""
    if type(server) is not dict:
        return ""
    path = server.get("path")
    if type(path) is str:
        return path
    host = server.get("host")
    return address((host, server.get("port", 6379))) if type(host) is str else ""


def mongo_command(subject: tuple[str, str, object, object]) -> str:
    """``find on shop.orders at 127.0.0.1:27017``."""
    command, database, collection, server = subject
    name = f".{shown_name(collection)}" if type(collection) is str else ""
    return f"{text_of(command)} on {text_of(database)}{name}{_at(address(server))}"


def http_request(subject: tuple[object, object, object, object, object]) -> str:
    """``GET https://example.org/path``, without login, query and fragment."""
    method, scheme, host, port, url = subject
    target, *more = re.split("[?#;]", text_of(url), maxsplit=1)
    if "://" in target:  # to a proxy
        scheme, _, rest = target.partition("://")
        place, slash, path = rest.partition("/")
        where, target = place.rpartition("@")[2], slash + path
    else:
        default = {"http": 80, "https": 443}.get(text_of(scheme))
        name = text_of(host)
        name = f"[{name}]" if ":" in name else name
        where = name if type(port) is not int or port == default else f"{name}:{port}"
    end = "?..." if more and "?" in text_of(url) else ""
    return f"{text_of(method)[:_NAME_MOST]} {text_of(scheme)}://{where}{shown_name(target)}{end}"


def sql_statement(sql: object) -> str:
    """``SELECT on users``: the verb and the first table, without values."""
    text = _QUOTED.sub("''", _COMMENT.sub(" ", text_of(sql)[:_SQL_MOST]))
    # SQLite takes a name that it does not know for a value.
    text = _DOUBLE_QUOTED.sub(lambda found: found[0] if found[1].isidentifier() else '""', text)
    verb = _VERB.search(text)
    if verb is None:
        return "a statement"
    table = _TABLE.search(text)
    return verb[0].upper() + (f" on {table[1]}" if table is not None else "")


def host_lookup(host: object) -> str:
    """The name that is resolved."""
    return text_of(host) if host else "the local host"


def child_process(subject: tuple[object, object]) -> str:
    """The number of the process and the name of its program, without arguments."""
    pid, arguments = subject
    first: object = arguments
    if type(arguments) in (list, tuple) and arguments:
        first = arguments[0]  # type: ignore[index]
    words = text_of(first).split(None, 1)
    name = os.path.basename(words[0]) if words else ""
    if not name or name == "?" or "=" in name:  # a variable of a shell's command may have a secret
        return f"process {text_of(pid)}"
    return f"{name} ({text_of(pid)})"


def plain(text: str) -> str:
    """The text itself."""
    return text


def _at(server: str) -> str:
    return f" at {server}" if server else ""
