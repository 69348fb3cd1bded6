"""Serves the dashboard with uvicorn: `mrq dashboard`."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mrq_core.config.settings import Config
from mrq_core.errors import ConfigError, shown
from mrq_dashboard.app import create_dashboard
from mrq_dashboard.auth import check_login
from mrq_dashboard.hosts import check_host_name, is_local_address
from mrq_dashboard.live import Live
from mrq_dashboard.protocol import Protocol
from mrq_dashboard.rendering import check_color

_STOP_WITHIN = 3
"""Seconds that open requests have at a stop."""


def serve(config: Config, *, insecure: bool = False, announce: Callable[[str], None]) -> None:
    """Serves until SIGINT or SIGTERM. `announce` is told the address, once connections are accepted.

    Raises ConfigError for an address that cannot be bound, and for one that other machines reach if the
    configuration has no login and `insecure` is False.
    """
    open_to = None if insecure else open_address(config)
    if open_to is not None:
        raise ConfigError(open_to)
    check_settings(config)
    listener = _bound(config)
    # Who reaches its address is decided above. uvicorn names the browsers behind a proxy, not the proxy.
    app = create_dashboard(config, insecure=True)
    host, port = listener.getsockname()[:2]
    listener.listen(128)
    announce(f"http://{f'[{host}]' if ':' in host else host}:{port}/")
    settings = uvicorn.Config(
        _told(app, lambda: server.force_exit),
        http=Protocol,
        ws="none",
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


def open_address(config: Config) -> str | None:
    """Why the dashboard starts only with `--insecure`. None: it starts without."""
    if is_local_address(config.dashboard_ip) or config.dashboard_httpauth or config.dashboard_token:
        return None
    return (
        f"DASHBOARD_IP is {config.dashboard_ip}: other machines would reach the dashboard without a "
        "login. Set DASHBOARD_HTTPAUTH=user:password or DASHBOARD_TOKEN, or add --insecure"
    )


def check_settings(config: Config) -> None:
    """Raises ConfigError for a setting with which the dashboard does not start. Opens no port."""
    for name in config.dashboard_hosts:
        check_host_name(name)
    check_login(config)
    check_color(config.dashboard_color)


class _Server(uvicorn.Server):
    """Ends the streams of open pages before it waits for its requests."""

    def __init__(self, settings: uvicorn.Config, live: Live) -> None:
        super().__init__(settings)
        self._live = live

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops serving."""
        self._live.stop()
        await super().shutdown(sockets)


def _told(app: ASGIApp, is_forced: Callable[[], bool]) -> ASGIApp:
    """The application, which a second Ctrl-C ends without a traceback of what it did not wait for."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_unless_forced(message: Message) -> None:
            if not is_forced():
                await send(message)

        if scope["type"] == "http":
            await _answer_request(app, scope, receive, send)
            return
        try:
            await app(scope, receive, send_unless_forced if scope["type"] == "lifespan" else send)
        except asyncio.CancelledError:
            if scope["type"] != "lifespan" or not is_forced():
                raise

    return answer


async def _answer_request(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers one request. A request that the stop cuts off, such as one whose body has not come, gets the
    status 503, instead of a traceback in the log."""
    has_begun = False

    async def noted(message: Message) -> None:
        nonlocal has_begun
        has_begun = True
        await send(message)

    try:
        await app(scope, receive, noted)
    except asyncio.CancelledError:
        if has_begun:
            raise
        headers = [(b"content-length", b"0"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def _bound(config: Config) -> socket.socket:
    address, port = config.dashboard_ip, config.dashboard_port
    listener: socket.socket | None = None
    try:
        family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen()  # two that start at the same moment may both bind
    except (OSError, OverflowError, UnicodeError) as error:
        if listener is not None:
            listener.close()
        raise ConfigError(
            f"the dashboard cannot listen at {shown(address)}, port {port}: {error}. Choose another "
            "DASHBOARD_IP or DASHBOARD_PORT, or end the process that listens there"
        ) from error
    return listener
