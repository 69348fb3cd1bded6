"""What a WSGI server passes on."""

from __future__ import annotations

import io
import socket
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from a2wsgi.wsgi_typing import WSGIApp

from mrq_dashboard import wsgi
from tests.dashboard.conftest import MakeSite


def status_of(app: WSGIApp, environ: dict[str, Any]) -> str:
    """The status of the answer."""
    setup_testing_defaults(environ)
    statuses: list[str] = []

    def start_response(status: str, *rest: Any) -> Any:
        statuses.append(status)

    list(app(environ, start_response))  # type: ignore[arg-type]
    return statuses[0]


def test_a_body_that_does_not_come_keeps_no_thread_of_gunicorn(
    make_site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wsgi, "BODY_PAUSE", 0.1)
    app = wsgi.wsgi_app(lambda: make_site().app)
    server, client = socket.socketpair()
    with server, client, server.makefile("rb") as body:
        client.sendall(b"{")
        environ: dict[str, Any] = {
            "PATH_INFO": "/api/queue/pause", "REQUEST_METHOD": "POST", "REMOTE_ADDR": "127.0.0.1",
            "HTTP_SEC_FETCH_SITE": "same-origin", "CONTENT_TYPE": "application/json", "CONTENT_LENGTH": "10",
            "wsgi.input": body, "gunicorn.socket": server,
        }  # fmt: skip
        assert status_of(app, environ) == "400 Bad Request"


def test_a_socket_in_the_file_system_has_no_port(make_site: MakeSite) -> None:
    app = wsgi.wsgi_app(lambda: make_site().app)
    environ: dict[str, Any] = {
        "PATH_INFO": "/api/queues", "REMOTE_ADDR": "localhost", "SERVER_PORT": "/run/mrq.sock",
        "wsgi.input": io.BytesIO(),
    }  # fmt: skip
    assert status_of(app, environ) == "200 OK"
