"""Serves the dashboard with uvicorn: `mrq dashboard`."""

from __future__ import annotations

import ipaddress
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from mrq_core.config.settings import Config
from mrq_core.errors import ConfigError, shown
from mrq_dashboard.app import create_dashboard
from mrq_dashboard.live import Live

_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
_STOP_WITHIN = 3
"""Seconds that open requests have at a stop."""


def serve(config: Config, *, insecure: bool = False, announce: Callable[[str], None]) -> None:
    """Serves until SIGINT or SIGTERM. `announce` is told the address, once connections are accepted.

    Raises ConfigError for an address that cannot be bound, and for one that other machines reach if the
    configuration has no login and `insecure` is False.
    """
    is_local = is_local_address(config.dashboard_ip)
    if not is_local and not insecure and not (config.dashboard_httpauth or config.dashboard_token):
        raise ConfigError(
            f"DASHBOARD_IP is {config.dashboard_ip}: other machines would reach the dashboard without a "
            "login. Set DASHBOARD_HTTPAUTH=user:password or DASHBOARD_TOKEN, or add --insecure"
        )
    hosts = None
    if is_local or config.dashboard_hosts:
        hosts = {*_LOCAL_NAMES, config.dashboard_ip, *config.dashboard_hosts}
    listener = _bound(config)
    app = create_dashboard(config, hosts=hosts)
    host, port = listener.getsockname()[:2]
    listener.listen(128)
    announce(f"http://{f'[{host}]' if ':' in host else host}:{port}/")
    settings = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=True,
        timeout_graceful_shutdown=_STOP_WITHIN,
    )
    server = _Server(settings, app.state.live)

    def stop(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    # While it serves, uvicorn handles the first two itself, and repeats the signal at its end.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)
    server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """Ends the streams of open pages before it waits for its requests."""

    def __init__(self, settings: uvicorn.Config, live: Live) -> None:
        super().__init__(settings)
        self._live = live

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops serving."""
        self._live.stop()
        await super().shutdown(sockets)


def is_local_address(address: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _bound(config: Config) -> socket.socket:
    address, port = config.dashboard_ip, config.dashboard_port
    try:
        family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigError(
            f"the dashboard cannot listen at {shown(address)}, port {port}: {error}. Choose another "
            "DASHBOARD_IP or DASHBOARD_PORT, or end the process that listens there"
        ) from error
    return listener
