"""The dashboard for WSGI servers."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

from a2wsgi import ASGIMiddleware
from a2wsgi.wsgi_typing import StartResponse, WSGIApp
from starlette.types import ASGIApp

from mrq_dashboard.guard import BODY_PAUSE, MOST_BODY, NOT_UTF_8

_ASCII = "".join(map(chr, range(128)))


def wsgi_app(make: Callable[[], ASGIApp]) -> WSGIApp:
    """The application for a WSGI server. Calls `make` at once, and again in a child of a process that has
    answered requests.

    A WSGI server passes the bytes of an address as they came. a2wsgi raises for a path that is not UTF-8, and
    for a query that is not ASCII. Such a path gets replacement characters and a mark, for which the guard
    refuses it, and such a query is quoted. It reads no body without a length: one that comes in chunks is
    read before, where the server says that it ends, and refused where it does not.
    """
    loop = _Loop(make)

    def app(environ: Any, start_response: StartResponse) -> Iterable[bytes]:
        _give_address(environ)
        if not _give_body(environ):
            start_response("411 Length Required", [("Content-Type", "text/plain")])
            return [b"this server passes on no body in chunks: send it with a Content-Length\n"]
        return loop.middleware()(environ, start_response)

    return app


def _give_address(environ: Any) -> None:
    """Makes an address that a2wsgi can read."""
    query = environ.get("QUERY_STRING", "")
    if not query.isascii():
        environ["QUERY_STRING"] = quote(query.encode("latin-1"), safe=_ASCII)
    for name in ("SCRIPT_NAME", "PATH_INFO"):
        path = environ.get(name, "")
        if not path.isascii():
            text = path.encode("latin-1").decode(errors="replace")
            if text.encode().decode("latin-1") != path:
                environ[NOT_UTF_8] = True
            environ[name] = text.encode().decode("latin-1")
    # waitress gives the path of its socket in the file system.
    if not environ.get("SERVER_PORT", "").isdecimal():
        environ["SERVER_PORT"] = "0"


def _give_body(environ: Any) -> bool:
    """Makes a body that a2wsgi can read. False: the server does not say where it ends."""
    connection = environ.get("gunicorn.socket")
    if connection is not None:
        environ["wsgi.input"] = _BodyInTime(environ["wsgi.input"], connection)
    if environ.get("HTTP_TRANSFER_ENCODING") and not environ.get("CONTENT_LENGTH"):
        if not environ.get("wsgi.input_terminated"):
            return False
        body = environ["wsgi.input"].read(MOST_BODY + 1)  # one more byte: the guard refuses it
        environ["wsgi.input"], environ["CONTENT_LENGTH"] = io.BytesIO(body), str(len(body))
    return True


class _BodyInTime:
    """The body of a request to gunicorn, whose threads would wait for it for ever. It ends early if no byte
    comes for `BODY_PAUSE`."""

    def __init__(self, body: Any, connection: Any) -> None:
        self._body = body
        self._connection = connection

    def read(self, size: int = -1) -> bytes:
        """As much of the body as was asked for, or less at its end."""
        try:
            self._connection.settimeout(BODY_PAUSE)
            return bytes(self._body.read(size))
        except OSError:
            return b""


class _Loop:
    """The application in its event loop, which a thread runs from the first request on.

    A server that loads the application and then forks, such as ``gunicorn --preload``, leaves that thread in
    the parent: each process starts one.
    """

    def __init__(self, make: Callable[[], ASGIApp]) -> None:
        self._make = make
        self._application: ASGIApp | None = make()
        self._middleware: ASGIMiddleware | None = None
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._in_child)

    def middleware(self) -> ASGIMiddleware:
        """Passes requests to the loop of this process."""
        if self._middleware is None:
            with self._lock:
                self._middleware = self._middleware or self._started()
        return self._middleware

    def _started(self) -> ASGIMiddleware:
        if self._application is None:
            self._application = self._make()
        return ASGIMiddleware(self._application)  # type: ignore[arg-type]

    def _in_child(self) -> None:
        self._lock = threading.Lock()
        if self._middleware is not None:  # its locks and tasks belong to the loop of the parent
            self._middleware = self._application = None
