"""The admin port: a small HTTP server of a worker, for probes, monitors and people.

gevent's server answers in the hub. While a job blocks the hub, a native thread accepts connections at the
same socket and answers them, except for /wait_for_idle. Requests have no body and at most `_REQUEST_MOST`
bytes; each connection carries one request.
"""

from __future__ import annotations

import _socket
import os
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs

import gevent
from gevent.monkey import get_original
from gevent.pool import Pool
from gevent.pywsgi import WSGIHandler, WSGIServer

from mrq_core.clock import monotonic
from mrq_core.config.settings import Config
from mrq_core.errors import MrqError
from mrq_core.worker.guards.lasting import LastingGreenlet
from mrq_core.worker.guards.native import NativeLoop
from mrq_core.worker.guards.own_descriptors import own
from mrq_core.worker.reporting.admin_pages import JSON, OK, TEXT, UNAVAILABLE, Page, Pages
from mrq_core.worker.worker_state import WorkerState

_REQUEST_MOST = 16_384
"""Bytes of a request."""
_PATIENCE = 5.0
"""Seconds for a client to send its request."""
_CONNECTIONS_MOST = 50
_BEAT = 0.25
"""Seconds between two signs of life of the hub."""
_BLOCKED = 1.0
"""Seconds without a sign after which the native thread answers."""
_NATIVE_PATIENCE = 1.0
_NATIVE_MOST = 10
"""Connections that the native thread takes in a row."""
_TICK = 0.05
_IDLE_ROUNDS = 2
"""Claims that find nothing: the first may have begun before the request came."""
_IDLE_TIMEOUT, _IDLE_MOST = 60.0, 3600.0

_close_now: Callable[[int], None] = get_original("os", "close")
"""Closes a descriptor without the hub."""


def admin_port(config: Config, child: int = 0) -> int:
    """The port of a worker; 0: none. `child`: its number among the workers of one parent process, each of
    which has the next port."""
    return config.admin_port + child if config.admin_port else 0


class AdminServer:
    """The socket, the server in the hub, and the native thread beside it."""

    def __init__(self, state: WorkerState, pages: Pages, port: int) -> None:
        """Opens the socket. Raises MrqError if the port is taken."""
        self._state = state
        self._pages = pages
        self._beat_at = monotonic()
        self._listener = _listener(state.config.admin_ip, port)
        self._server = WSGIServer(
            self._listener, self._answer, log=None, error_log=None, handler_class=_Handler,
            spawn=Pool(_CONNECTIONS_MOST),
        )  # fmt: skip
        self._heart = LastingGreenlet(self._beat)
        self._native = NativeLoop(self._answer_natively, first_pause=_TICK, finish=lambda: None)
        os.register_at_fork(after_in_child=self._forget)

    @property
    def address(self) -> str:
        """The address and the port, as in a URL."""
        host, port = self._listener.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def start(self) -> None:
        """Answers from now on."""
        self._beat_at = monotonic()
        own.keep_non_blocking(self._listener.fileno())
        self._server.start()
        self._heart.start()
        self._native.start()

    def stop(self) -> None:
        """Closes the socket. Answers that are not sent yet are dropped."""
        own.discard(self._listener.fileno())
        self._native.stop()
        self._heart.stop(timeout=0)
        self._server.stop(timeout=0)
        with suppress(OSError):
            self._listener.close()

    # --- in the hub --------------------------------------------------------------------------

    def _beat(self) -> None:
        while True:
            self._beat_at = monotonic()
            gevent.sleep(_BEAT)

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """The application of gevent's server."""
        path, query = environ.get("PATH_INFO", "/"), environ.get("QUERY_STRING", "")
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            page = _REFUSED
        elif path == "/wait_for_idle":
            page = self._wait_for_idle(query)
        else:
            page = self._pages.page(path)
        body = page.body.encode("utf-8", "replace")
        start_response(page.status, list(_headers(page, body).items()))
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]

    def _wait_for_idle(self, query: str) -> Page:
        """Waits until no job runs here, all outcomes are stored, and a new claim has found nothing."""
        try:
            timeout = float(parse_qs(query).get("timeout", [str(_IDLE_TIMEOUT)])[0])
        except ValueError:
            timeout = -1.0
        if not 0 <= timeout <= _IDLE_MOST:
            expected = f"timeout is wrong: expected seconds from 0 to {_IDLE_MOST:g}\n"
            return Page("400 Bad Request", TEXT, expected)
        state = self._state
        first = state.idle_rounds
        deadline = monotonic() + timeout
        while not (self._is_over() or state.idle_rounds >= first + _IDLE_ROUNDS) or len(state.executions):
            if monotonic() >= deadline:
                return Page(UNAVAILABLE, JSON, '{"idle": false}\n')
            state.wake.set()
            gevent.sleep(_TICK)
        return Page(OK, JSON, '{"idle": true}\n')

    def _is_over(self) -> bool:
        return self._state.status in ("join", "kill", "stop")

    # --- in the native thread ------------------------------------------------------------------

    def _answer_natively(self) -> float:
        blocked = monotonic() - self._beat_at
        if blocked < _BLOCKED:
            return _TICK
        for _ in range(_NATIVE_MOST):
            try:
                number, _address = _raw(self._listener)._accept()
            except OSError:  # no connection waits, or the socket was closed
                break
            connection = _socket.socket(fileno=number)
            with suppress(OSError):
                self._answer_connection(connection, blocked)
            connection.close()
        return _TICK

    def _answer_connection(self, connection: _socket.socket, blocked: float) -> None:
        """Reads a request without gevent, and answers. Raises OSError."""
        deadline = monotonic() + _NATIVE_PATIENCE
        request = b""
        while b"\r\n\r\n" not in request and b"\n\n" not in request:
            left = deadline - monotonic()
            if left <= 0 or len(request) > _REQUEST_MOST:
                return
            connection.settimeout(left)
            received = connection.recv(4096)
            if not received:
                return
            request += received
        words = request.split(b"\n", 1)[0].split()
        path = words[1].decode("latin-1").partition("?")[0] if len(words) > 1 else "/"
        if words[:1] not in ([b"GET"], [b"HEAD"]):
            page = _REFUSED
        elif path == "/wait_for_idle":
            page = Page(UNAVAILABLE, JSON, '{"idle": false}\n')
        else:
            page = self._pages.page(path, blocked)
        body = page.body.encode("utf-8", "replace")
        head = "".join(f"{name}: {value}\r\n" for name, value in _headers(page, body).items())
        connection.settimeout(_NATIVE_PATIENCE)
        is_whole = words[0] != b"HEAD"
        connection.sendall(f"HTTP/1.1 {page.status}\r\n{head}\r\n".encode() + (body if is_whole else b""))

    def _forget(self) -> None:
        """In a forked child: the port belongs to the worker."""
        with suppress(OSError):
            _close_now(self._listener.fileno())


class _Handler(WSGIHandler):
    """One request, of a bounded size and time, without a body."""

    def __init__(self, sock: Any, address: Any, server: Any) -> None:
        super().__init__(sock, address, server)
        self.rfile: Any = _Bounded(self.rfile)
        self._limit = gevent.Timeout(_PATIENCE)

    def handle(self) -> None:
        self._limit.start()
        try:
            super().handle()
        except gevent.Timeout as expired:
            if expired is not self._limit:
                raise
        finally:
            self._limit.close()

    def read_request(self, raw_requestline: str) -> Any:
        is_read = super().read_request(raw_requestline)
        if self.content_length or self.headers.get("transfer-encoding"):
            raise ValueError("the request has a body")
        self.close_connection = True
        self._limit.close()
        return is_read

    def _handle_client_error(self, ex: Exception) -> tuple[str, bytes]:
        """Answers a request that is wrong, and prints nothing."""
        return "400", b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class _Bounded:
    """Reads at most `_REQUEST_MOST` bytes of a connection. Raises ValueError beyond."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._left = _REQUEST_MOST

    def readline(self, size: int = -1) -> bytes:
        if self._left <= 0:
            raise ValueError("the request is too long")
        line: bytes = self._file.readline(min(size, self._left) if size > 0 else self._left)
        self._left -= len(line)
        return line

    def read(self, size: int = -1) -> bytes:
        return b""

    @property
    def closed(self) -> bool:
        return bool(self._file.closed)

    def close(self) -> None:
        self._file.close()


_REFUSED = Page("405 Method Not Allowed", TEXT, "expected GET\n")


def _headers(page: Page, body: bytes) -> dict[str, str]:
    return {
        "Content-Type": page.kind,
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Connection": "close",
    }


def _listener(ip: str, port: int) -> Any:
    try:
        listener = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((ip, port))
        listener.listen(_CONNECTIONS_MOST)
        listener.setblocking(False)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MrqError(
            f"the admin port {port} cannot be opened at {ip}: {reason}; expected a free port in ADMIN_PORT, "
            "and an address of this machine in ADMIN_IP"
        ) from error
    return listener


def _raw(listener: Any) -> Any:
    """The socket below that of gevent, whose methods do not wait for the hub."""
    return listener._sock
