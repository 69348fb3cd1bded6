"""Errors of redis-py as errors of the broker, with their meaning and advice."""

from __future__ import annotations

import re

from redis import exceptions

from mrq_broker_redis.server.location import CONNECTIONS_MOST
from mrq_broker_redis.server.parser import SlotMoves
from mrq_broker_redis.server.sentinels import NoPrimary
from mrq_core.drivers import open_files
from mrq_core.drivers.certificates import advice_on_certificate
from mrq_core.errors import BrokerCorrupt, BrokerError, BrokerUnavailable, CallRefused

_MEANINGS = {
    "OOM": "it has reached its maxmemory, and has written nothing; raise maxmemory or free some "
    "memory (mrq needs maxmemory-policy noeviction)",
    "MISCONF": "it cannot write to its disk and takes no changes: read its log, and check the disk",
    "READONLY": "it is a replica, which takes no changes: point the URL at the primary, or at the sentinels",
    "LOADING": "it is loading its data after a start: try again in a moment",
    "BUSY": "a script has been running for too long there: see `redis-cli SCRIPT KILL`",
    "MASTERDOWN": "it is a replica whose primary is away: wait for the failover",
    "CLUSTERDOWN": "the cluster has lost some of its nodes: see `redis-cli --cluster check`",
    "NOREPLICAS": "it has fewer replicas than min-replicas-to-write asks for",
    "NOAUTH": "it wants a password: put it in the URL, as in redis://:password@host",
    "WRONGPASS": "user or password is wrong: correct them in the URL, each percent-encoded",
    "NODATABASE": "it has fewer databases: use a smaller number in the URL, or raise databases in redis.conf",
    "NOSENTINEL": "it is no sentinel: name the sentinels, whose port is usually 26379, or use redis://",
    "SENTINEL": "it is a sentinel, which needs redis+sentinel:// in the URL, or a server that hides commands",
    "NOPERM": "this user may not run scripts or commands that mrq needs: extend its ACL",
}

_LOGINS = {
    "NOAUTH": "want a password: put it in the URL, as ?sentinel_password=",
    "WRONGPASS": "refuse the login: correct sentinel_password and sentinel_username in the URL",
}
"""What sentinels answer to a login."""

_OF_SOME_CALLS = frozenset({"OOM", "MISCONF", "READONLY", "NOREPLICAS", "NOPERM"})
"""Codes of a server that may take other calls."""

# redis-py removes the code from the text of these. A server before 7.0 hides it in the text of another error.
_CODES: dict[type[Exception], str] = {
    exceptions.OutOfMemoryError: "OOM",
    exceptions.ReadOnlyError: "READONLY",
    exceptions.BusyLoadingError: "LOADING",
    exceptions.NoPermissionError: "NOPERM",
    exceptions.MasterDownError: "MASTERDOWN",
    exceptions.ClusterDownError: "CLUSTERDOWN",
}

_TEXTS = {
    "Authentication required": "NOAUTH",
    "HELLO must be called with the client already authenticated": "NOAUTH",
    "invalid username-password pair": "WRONGPASS",
    "DB index is out of range": "NODATABASE",
    "unknown command 'SENTINEL'": "NOSENTINEL",
    "unknown command `SENTINEL`": "NOSENTINEL",
    "The user executing the script can't": "NOPERM",
}

_UNKNOWN = re.compile(
    "unknown command ['`](?:EVAL|EVALSHA|EXISTS|GET|HGET|HGETALL|HMGET|LLEN|LRANGE|MGET|MULTI|SCAN|SET"
    "|SMEMBERS|TIME|TYPE|ZCARD|ZCOUNT|ZLEXCOUNT|ZRANGE|ZRANGEBYLEX|ZRANGEBYSCORE|ZREVRANGEBYLEX|ZSCORE)['`]"
)
"""Commands that every server knows but a sentinel. An old server may not know others."""


def code_of(error: Exception) -> str:
    """The code of the server's error, such as OOM; empty for codes without a meaning here."""
    code = _CODES.get(type(error))
    if code is not None:
        return code
    text = " ".join(str(error).split())
    first = text.partition(" ")[0].rstrip(":")
    for known in _MEANINGS:
        if first == known or text.startswith(f"-{known}") or f" -{known} " in text:
            return known
    for part, known in _TEXTS.items():
        if part in text:
            return known
    return "SENTINEL" if _UNKNOWN.search(text) else ""


def is_forbidden(error: BrokerError) -> bool:
    """Whether the ACL of the user forbids what the translated call needs."""
    return isinstance(error.__cause__, Exception) and code_of(error.__cause__) == "NOPERM"


def translated(error: Exception, where: str, timeout: float) -> BrokerError:
    """The error of the broker with the same meaning. `where`: the server, without its password."""
    text = " ".join(str(error).split())
    if isinstance(error, exceptions.MaxConnectionsError):
        return BrokerUnavailable(
            f"Redis at {where}: all {CONNECTIONS_MOST} connections of this process were in use "
            f"for {timeout:g} s; make fewer calls at the same time, or raise BROKER_TIMEOUT"
        )
    if isinstance(error, NoPrimary):
        return _without_primary(error, where, timeout)
    if _is_timeout(error) and "connecting" in text and where.startswith("rediss"):
        return BrokerUnavailable(
            f"Redis at {where} did not answer with TLS ({text}): a server without TLS needs {_plain(where)} "
            "in the URL; else it is overloaded or the network is"
        )
    if _is_timeout(error):
        return BrokerUnavailable(
            f"Redis at {where} did not answer within {timeout:g} s: it is overloaded or the network is; try "
            "again, or raise BROKER_TIMEOUT"
        )
    meaning = _MEANINGS.get(code_of(error))
    if meaning is not None:
        kind = CallRefused if code_of(error) in _OF_SOME_CALLS else BrokerUnavailable
        return kind(f"Redis at {where} refused a call, because {meaning} ({text})")
    if isinstance(error, exceptions.AuthenticationError):
        return BrokerUnavailable(f"Redis at {where} refused the login ({text}): correct the URL")
    if isinstance(error, SlotMoves):
        return BrokerUnavailable(
            f"the keys of this prefix in Redis at {where} are being moved to another node ({text}): "
            "stop workers and clients while a slot is moved, and try again afterwards"
        )
    if isinstance(error, exceptions.AskError) and not where.startswith(("redis+cluster", "rediss+cluster")):
        return BrokerUnavailable(
            f"Redis at {where} is a node of a cluster (the key is in slot {text}), which needs "
            "redis+cluster:// in the URL"
        )
    if "WRONGTYPE" in text:
        return BrokerCorrupt(
            f"a key of mrq in Redis at {where} holds something else ({text}): another program uses the same "
            "names; set REDIS_PREFIX to an unused name, or run `mrq check`, which names the key"
        )
    if "unknown command" in text and "HELLO" in text:
        return BrokerError(
            f"Redis at {where} does not know the command HELLO: it is older than 6.2, and has to be "
            "upgraded, or it hides the command from mrq"
        )
    if isinstance(error, exceptions.InvalidResponse) or "Protocol error" in text:
        return BrokerUnavailable(
            f"the server at {where} does not speak the protocol of Redis ({text}): another program has this "
            "port; correct the URL"
        )
    if isinstance(error, exceptions.ConnectionError | exceptions.RedisClusterException | OSError):
        return BrokerUnavailable(
            f"Redis at {where} cannot be reached ({_short(text)}): {_advice(text, where)}"
        )
    if isinstance(error, exceptions.RedisError) and not isinstance(error, exceptions.ResponseError):
        return BrokerUnavailable(f"Redis at {where} is not usable ({type(error).__name__}: {text})")
    return BrokerError(f"Redis at {where} refused a call: {text}")


def _without_primary(error: NoPrimary, where: str, timeout: float) -> BrokerError:
    """Tells why no sentinel has named the primary: by the sentinel that has answered most."""
    if error.has_answer:
        return BrokerUnavailable(
            f"the sentinels at {where} name no primary that is up for this service ({error}): correct the "
            "service in the URL, or start the primary"
        )
    refused = next((one for one in error.errors if code_of(one) in _LOGINS), None)
    if refused is not None:
        return BrokerUnavailable(f"the sentinels at {where} {_LOGINS[code_of(refused)]} ({refused})")
    lost = exceptions.ConnectionError | exceptions.TimeoutError
    wrong = next((one for one in error.errors if not isinstance(one, lost)), None)
    if wrong is not None:
        return translated(wrong, where, timeout)
    answered = [one for one in error.errors if not isinstance(one, exceptions.TimeoutError)]
    if not answered:
        return translated(error.errors[0], where, timeout)
    text = " ".join(str(answered[0]).split())
    advice = _advice(text, where).replace("start it, or correct the URL", "start them, or correct the URL")
    return BrokerUnavailable(f"the sentinels at {where} cannot be reached ({_short(text)}): {advice}")


def _with_tls(where: str) -> str:
    """The scheme of this URL with TLS."""
    return f"{where.partition('://')[0].replace('redis', 'rediss')}://"


def _plain(where: str) -> str:
    """The scheme of this URL without TLS."""
    return f"{where.partition('://')[0].replace('rediss', 'redis')}://"


def _is_timeout(error: Exception) -> bool:
    """Whether a timeout ended the call, at the nodes of a cluster, too."""
    cause = error.__cause__ if isinstance(error, exceptions.RedisClusterException) else error
    return isinstance(cause, exceptions.TimeoutError)


def _short(text: str) -> str:
    """The text of redis-py without the descriptions of its connections."""
    return text.partition(" : <")[0].rstrip(".")


_CLOSED = ("EOF occurred in violation", "reset by peer", "closed by server", "Broken pipe")
"""What is said of a connection that the server has closed: within TLS 1.3, the alert may come too late."""


def _advice(text: str, where: str) -> str:
    """What to do about a connection that failed."""
    if "max number of clients" in text:
        return "raise its maxclients, or let fewer programs connect"
    if "Too many open files" in text:
        return open_files.advice()
    if (refused := advice_on_certificate(text, "in ?ssl_ca_certs=/path/ca.pem")) is not None:
        return refused
    if "certificate required" in text or "alert unknown ca" in text or "alert bad certificate" in text:
        return (
            "the server wants a certificate of its clients that it trusts: name it in the URL, as in "
            "?ssl_certfile=/path/client.pem&ssl_keyfile=/path/client.key"
        )
    if where.startswith("rediss") and any(part in text for part in _CLOSED):
        return (
            "start it, or correct the URL and the network; a server that wants a certificate of its clients "
            "needs one that it trusts in the URL, as in "
            "?ssl_certfile=/path/client.pem&ssl_keyfile=/path/client.key"
        )
    if "SSL" in text:
        return f"a server without TLS needs {_plain(where)} in the URL"
    if "Cluster mode is not enabled" in text:
        return f"it is a single server, which needs {where.partition('+')[0]}:// in the URL"
    if where.startswith(("redis:", "redis+")) and ("reset by peer" in text or "closed by server" in text):
        return (
            f"start it, or correct the URL; a server with TLS needs {_with_tls(where)}, and another "
            "program may have this port"
        )
    return "start it, or correct the URL and the network"
