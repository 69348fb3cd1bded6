"""The dashboard for WSGI servers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from a2wsgi import ASGIMiddleware
from a2wsgi.wsgi_typing import StartResponse, WSGIApp
from starlette.types import ASGIApp

from mrq_dashboard.guard import NOT_UTF_8

_ASCII = "".join(map(chr, range(128)))


def wsgi_app(application: ASGIApp) -> WSGIApp:
    """The application for a WSGI server.

    A WSGI server passes the bytes of an address as they came. a2wsgi raises for a path that is not UTF-8, and
    for a query that is not ASCII. Such a path gets replacement characters and a mark, for which the guard
    refuses it, and such a query is quoted.
    """
    inner: WSGIApp = ASGIMiddleware(application)  # type: ignore[arg-type]

    def app(environ: Any, start_response: StartResponse) -> Iterable[bytes]:
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
        return inner(environ, start_response)

    return app
