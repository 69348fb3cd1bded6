"""Connections with TLS, and the options of a URL for them."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import redis

from mrq_broker_redis.server.parser import keep_in_process
from mrq_core.drivers.certificates import problem_of_key

TLS_FILES = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
TLS_OPTIONS = TLS_FILES | {
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


class WrongUrl(ValueError):
    """A URL that cannot be used, with a reason that contains no part of its login."""


class SSLConnection(redis.SSLConnection):
    """A connection whose handshake has the timeout of connecting: a server without TLS never answers. A child
    that is forked amid the handshake takes no part in it."""

    def _wrap_socket_with_ssl(self, sock: Any) -> Any:
        keep_in_process(self, sock)
        sock.settimeout(self.socket_connect_timeout)
        wrapped = super()._wrap_socket_with_ssl(sock)  # type: ignore[no-untyped-call]
        wrapped.settimeout(self.socket_timeout)
        return wrapped


def with_version_number(options: dict[str, Any]) -> dict[str, Any]:
    """The options with the least version of TLS as a number, as redis-py 6 leaves to its callers."""
    if "ssl_min_version" in options:
        options["ssl_min_version"] = int(options["ssl_min_version"])
    return options


def tls_options(options: Mapping[str, str]) -> dict[str, Any]:
    """The options of TLS among those of a URL, as redis-py takes them. Raises WrongUrl for what no connection
    could use, and ValueError."""
    ours = {name: value for name, value in options.items() if name in TLS_OPTIONS}
    check_formats(ours)
    url = f"rediss://localhost?{urlencode(ours)}"
    found: dict[str, Any] = redis.connection.parse_url(url)  # type: ignore[no-untyped-call]
    found = with_version_number({name: found[name] for name in found if name in TLS_OPTIONS})
    if found:
        _check_tls(found)
    return found


def check_formats(options: Mapping[str, str]) -> None:
    """Raises WrongUrl for a value that redis-py would take for another one, or refuse much later."""
    for name, (form, expected) in _FORMATS.items():
        if name in options and not form.fullmatch(options[name]):
            raise WrongUrl(f"{name} is {options[name]!r}: expected {expected}")


def _check_tls(options: Mapping[str, Any]) -> None:
    """Raises WrongUrl for options of TLS that no connection could use. Reads the files that they name."""
    for name in sorted(TLS_FILES.intersection(options)):
        try:
            with open(options[name], "rb"):
                pass
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise WrongUrl(f"the file of {name} cannot be read: {why}") from None
    if not os.path.isdir(options.get("ssl_ca_path", "/")):
        raise WrongUrl("ssl_ca_path does not name a directory")
    try:
        redis.SSLConnection(**options)
        context = ssl.create_default_context()
        certificate, key = options.get("ssl_certfile"), options.get("ssl_keyfile")
        if certificate or key:
            if not certificate:
                raise WrongUrl("ssl_keyfile needs ssl_certfile")
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
    except WrongUrl:
        raise
    except TypeError as error:  # an option that this version of redis-py lacks
        raise WrongUrl(f"redis-py {redis.__version__} does not take its options of TLS: {error}") from None
    except (OSError, ValueError, redis.RedisError) as error:  # an ssl.SSLError is an OSError
        problem = isinstance(error, ssl.SSLError) and _problem_of_key(options)
        if problem:
            raise WrongUrl(problem) from None
        raise WrongUrl(f"its options of TLS cannot be used: {' '.join(str(error).split())}") from None


def _problem_of_key(options: Mapping[str, Any]) -> str | None:
    name = "ssl_keyfile" if options.get("ssl_keyfile") else "ssl_certfile"
    path, password = options.get(name, ""), options.get("ssl_password")
    return problem_of_key(path, password, file_option=name, password_option="ssl_password")


def use_own_tls(pool: Any) -> bool:
    """Gives a pool for TLS our class of connections. Returns whether it is such a pool."""
    if pool.connection_class is not redis.SSLConnection:
        return False
    pool.connection_class = SSLConnection
    return True
