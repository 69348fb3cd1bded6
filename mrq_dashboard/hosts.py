"""By which names the dashboard is reached, and whether from this machine."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from typing import Any

from starlette.types import Scope

from mrq_core.config.settings import Config
from mrq_core.errors import ConfigError, shown

ANY = "*"
"""Instead of names: each name is answered, because the host application checks the Host header itself."""
_HOST = re.compile(r"[\w-]+(\.[\w-]+)*", re.ASCII)


class Hosts:
    """The names that the Host header may have, in small letters and without ports.

    A page of another site whose name leads to 127.0.0.1 (DNS rebinding) sends its own name. It cannot send
    an address, so that addresses need no list.
    """

    def __init__(self, names: Collection[str], *, with_addresses: bool) -> None:
        self._names = frozenset(map(str.lower, names))
        self._with_addresses = with_addresses

    @classmethod
    def of(cls, config: Config) -> Hosts:
        """The names in the configuration, `localhost`, and all addresses. Raises ConfigError."""
        for name in config.dashboard_hosts:
            check_host_name(name)
        return cls({"localhost", config.dashboard_ip, *config.dashboard_hosts}, with_addresses=True)

    def has(self, header: str) -> bool:
        """Whether a Host header has one of the names."""
        name = _host(header)
        return (
            ANY in self._names or name in self._names or (self._with_addresses and _address(name) is not None)
        )


def check_host_name(name: str) -> None:
    """Raises ConfigError for text that no Host header has as its name, such as a URL or a pattern."""
    if not name.isascii():
        raise ConfigError(
            f"DASHBOARD_HOSTS has {shown(name)}: expected the name in ASCII, as browsers send it, such as "
            "xn--bcher-kva.example for b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example"
        )
    if _address(name) is None and not _HOST.fullmatch(name):
        raise ConfigError(
            f"DASHBOARD_HOSTS has {shown(name)}: expected the name of a host, without a scheme, a port "
            "or a wildcard, such as mrq.example.com"
        )


def is_local_address(address: str) -> bool:
    """Whether only this machine reaches the address, and sends from it."""
    found = _address(address)
    if found is None:
        return address == "localhost"
    mapped = getattr(found, "ipv4_mapped", None)  # ::ffff:127.0.0.1, of a server for both versions of IP
    return (mapped or found).is_loopback


def is_from_this_machine(scope: Scope) -> bool:
    """Whether a request came from a loopback address, or through a socket in the file system."""
    environ: dict[str, Any] | None = scope.get("wsgi_environ")
    if environ is not None:  # the scope of a2wsgi has no client if its port is unknown
        address = environ.get("REMOTE_ADDR")
        return address == "" or (address is not None and is_local_address(address))
    client = scope.get("client")
    if client is not None and client[0]:
        return is_local_address(client[0])
    # Without an address and with a port of the server: a client of TCP that has closed the connection.
    server = scope.get("server")
    return server is None or server[1] is None


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _host(header: str) -> str:
    """The name of the host without its port, in lower case; brackets of an IPv6 address are left out."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].rstrip(".").lower()
