"""The hosts and machines that a dashboard in another application or in a WSGI server answers."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from mrq_core.errors import ConfigError
from mrq_core.testing import MemoryBroker
from mrq_dashboard.hosts import is_from_this_machine
from mrq_dashboard.wsgi import wsgi_app
from tests.dashboard.conftest import MakeSite, local_client

LOGIN = "anna:secret"
BASIC = "Basic YW5uYTpzZWNyZXQ="
KNOWN = ["localhost", "LOCALHOST:5555", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:5555",
         "10.0.0.7:8000", "[fd00::7]:8000"]  # fmt: skip
FOREIGN = ["evil.example", "evil.example:5555", "localhost.evil.example", "127.0.0.1.evil.example",
           "2130706433", "mrq.example.com.evil.example", "[evil.example]", "::1", ""]  # fmt: skip

Ask = Callable[..., tuple[int, str]]
"""Asks with this path, host, address of the visitor, and credentials; posts, if it is told so."""


@pytest.fixture(params=["mounted", "wsgi"])
def make_ask(request: pytest.FixtureRequest, make_site: MakeSite) -> Callable[..., Ask]:
    """Makes dashboards with these settings, and returns what asks them."""

    def make(**options: Any) -> Ask:
        app = make_site(**options).app
        return _mounted(app) if request.param == "mounted" else _by_wsgi(app)

    return make


def _mounted(app: Any) -> Ask:
    outer = Starlette(routes=[Mount("/tools/mrq", app)])

    def ask(
        path: str, host: str, *, client: str = "127.0.0.1", login: str = "", posts: bool = False
    ) -> tuple[int, str]:
        site = local_client(outer, client=(client, 50_000))
        headers = {"host": host, "authorization": login, "origin": f"http://{host}"}
        if posts:
            answer = site.post(f"/tools/mrq{path}", headers=headers, json={"name": "mail"})
        else:
            answer = site.get(f"/tools/mrq{path}", headers=headers)
        return answer.status_code, answer.text

    return ask


def _by_wsgi(app: Any) -> Ask:
    inner = wsgi_app(lambda: app)

    def ask(
        path: str, host: str, *, client: str = "127.0.0.1", login: str = "", posts: bool = False
    ) -> tuple[int, str]:
        body = b'{"name": "mail"}' if posts else b""
        environ: dict[str, Any] = {
            "PATH_INFO": path, "HTTP_HOST": host, "REMOTE_ADDR": client, "HTTP_AUTHORIZATION": login,
            "HTTP_ORIGIN": f"http://{host}", "REQUEST_METHOD": "POST" if posts else "GET",
            "CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
        }  # fmt: skip
        setup_testing_defaults(environ)
        statuses: list[str] = []

        def start_response(status: str, *rest: Any) -> Any:
            statuses.append(status)

        text = b"".join(inner(environ, start_response)).decode()  # type: ignore[arg-type]
        return int(statuses[0].split()[0]), text

    return ask


@pytest.mark.parametrize("host", KNOWN)
def test_localhost_and_addresses_are_answered(host: str, make_ask: Callable[..., Ask]) -> None:
    broker = MemoryBroker()
    ask = make_ask(broker=broker)
    assert ask("/queues", host)[0] == 200
    assert ask("/api/queue/pause", host, posts=True)[0] == 200
    assert len(broker.rules().queues) == 1


@pytest.mark.parametrize("settings", [{}, {"dashboard_hosts": ("mrq.example.com",)}], ids=str)
@pytest.mark.parametrize("host", FOREIGN)
def test_a_page_whose_name_leads_here_neither_reads_nor_acts(
    host: str, settings: dict[str, Any], make_ask: Callable[..., Ask]
) -> None:
    broker = MemoryBroker()
    ask = make_ask(broker=broker, **settings)
    for path in ("/queues", "/api/jobs", "/nothing", "/api/openapi.json"):
        status, text = ask(path, host)
        assert status == 403
        assert "set DASHBOARD_HOSTS" in text
    assert ask("/api/queue/pause", host, posts=True)[0] == 403
    assert not broker.rules().queues
    assert ask("/healthz", host) == (200, "ok\n")


def test_a_name_in_the_settings_is_answered(make_ask: Callable[..., Ask]) -> None:
    ask = make_ask(dashboard_hosts=("MRQ.example.com", "jobs"))
    for host in ("mrq.example.com", "mrq.example.com:443", "jobs", "localhost", "10.0.0.7"):
        assert ask("/queues", host)[0] == 200


def test_the_program_may_name_the_hosts_or_check_them_itself(make_ask: Callable[..., Ask]) -> None:
    ask = make_ask(hosts=["mrq.example.com"])
    assert [ask("/queues", host)[0] for host in ("mrq.example.com", "evil.example", "10.0.0.7")] == [
        200,
        403,
        403,
    ]
    assert make_ask(hosts=["*"])("/queues", "any.example")[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        *("https://mrq.example.com", "mrq.example.com:443", "*.example.com", "*", "", "[::1]"),
        *(".example.com", "mrq..com", "b\xfccher.example"),
    ],
)
def test_a_setting_that_no_host_header_fits_is_refused(host: str, make_site: MakeSite) -> None:
    with pytest.raises(ConfigError, match="DASHBOARD_HOSTS"):
        make_site(dashboard_hosts=(host,))


@pytest.mark.parametrize("client", ["10.0.0.7", "fd00::7", "::ffff:10.0.0.7", "127.0.0.1.evil.example", "x"])
def test_another_machine_needs_a_login(client: str, make_ask: Callable[..., Ask]) -> None:
    broker = MemoryBroker()
    ask = make_ask(broker=broker)
    status, text = ask("/queues", "10.0.0.1:8000", client=client)
    assert status == 403
    assert "DASHBOARD_HTTPAUTH=user:password or DASHBOARD_TOKEN" in text
    assert ask("/api/queue/pause", "10.0.0.1", client=client, posts=True)[0] == 403
    assert not broker.rules().queues
    assert ask("/healthz", "10.0.0.1:8000", client=client) == (200, "ok\n")

    ask = make_ask(dashboard_httpauth=LOGIN)
    assert ask("/queues", "10.0.0.1:8000", client=client)[0] == 401
    assert ask("/queues", "10.0.0.1:8000", client=client, login=BASIC)[0] == 200
    ask = make_ask(dashboard_token="t0ken")
    assert ask("/api/queues", "10.0.0.1:8000", client=client, login="Bearer t0ken")[0] == 200


@pytest.mark.parametrize(
    "options", [{"authorize": lambda request: "read"}, {"insecure": True}], ids=["authorize", "insecure"]
)
def test_the_program_decides_about_other_machines(
    options: dict[str, Any], make_ask: Callable[..., Ask]
) -> None:
    ask = make_ask(**options)
    assert ask("/queues", "10.0.0.1:8000", client="10.0.0.7")[0] == 200
    assert ask("/queues", "evil.example", client="127.0.0.1")[0] == 403


@pytest.mark.parametrize("client", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_this_machine_needs_no_login(client: str, make_ask: Callable[..., Ask]) -> None:
    assert make_ask()("/queues", "localhost", client=client)[0] == 200


@pytest.mark.parametrize(
    ("scope", "is_local"),
    [
        ({"client": None, "server": None}, True),  # a socket in the file system
        ({"client": None, "server": ("/run/mrq.sock", None)}, True),
        ({"client": ("", 0), "server": None}, True),
        ({"server": ("/run/mrq.sock", None)}, True),
        ({"client": None, "server": ("10.0.0.1", 80)}, False),  # a connection that its client has closed
        ({"client": ("10.0.0.7", 80), "server": None}, False),
        ({"wsgi_environ": {"REMOTE_ADDR": ""}}, True),
        ({"wsgi_environ": {"REMOTE_ADDR": "localhost"}}, True),  # waitress, at a socket in the file system
        ({"wsgi_environ": {"REMOTE_ADDR": "10.0.0.7"}}, False),
        ({"wsgi_environ": {}}, False),
    ],
    ids=str,
)
def test_a_socket_in_the_file_system_is_of_this_machine(scope: dict[str, Any], is_local: bool) -> None:
    assert is_from_this_machine(scope) is is_local
