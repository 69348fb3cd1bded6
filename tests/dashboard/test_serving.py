"""`mrq dashboard` as a process, and the application inside a WSGI server."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mrq_core.config.settings import Config
from mrq_core.config.sources import load_config
from mrq_core.errors import ConfigError
from mrq_dashboard import serving
from mrq_dashboard.hosts import is_local_address
from mrq_dashboard.serving import serve
from tests import brokers
from tests.redis.servers import Server
from tests.support import PATIENCE, Process, Project, open_project, until


@pytest.fixture(params=brokers.PARAMS)
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Project]:
    with open_project(tmp_path, *brokers.address_of(request.param, tmp_path)) as opened:
        yield opened


def started(project: Project, *flags: str) -> tuple[Process, str]:
    """A dashboard at a free port, and its address."""
    process = project.start("dashboard", "--port", "0", *flags)
    process.until_output("The dashboard is at ")
    found = re.search(r"The dashboard is at (http://\S+)/", process.output)
    assert found is not None
    return process, found[1]


def read(address: str, **headers: str) -> str:
    request = urllib.request.Request(address, headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        text: str = answer.read().decode()
        return text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_serves_this_machine_until_it_is_stopped(number: signal.Signals, project: Project) -> None:
    job = project.queue("a.B", {"n": 1}, queue="mail/fast")
    process, address = started(project)
    assert address.startswith("http://127.0.0.1:")
    assert "mail/fast" in read(f"{address}/queues")
    assert json.loads(read(f"{address}/api/jobs/{job}"))["params"] == {"n": 1}
    with pytest.raises(urllib.error.HTTPError, match="403"):
        read(f"{address}/queues", Host="evil.example")
    process.send(number)
    assert process.wait() == 0
    assert "Traceback" not in process.output


def test_other_machines_need_a_login(project: Project) -> None:
    process = project.start("dashboard", "--port", "0", "--dashboard-ip", "0.0.0.0")
    assert process.wait() == 2
    assert "without a login" in process.output
    assert len(process.output.splitlines()) == 1
    project.env["MRQ_DASHBOARD_HTTPAUTH"] = "anna:secret"
    process, address = started(project, "--dashboard-ip", "0.0.0.0")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        read(f"{address}/queues")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        read(f"{address}/queues", Host="evil.example")
    assert "secret" not in process.output


def test_a_port_that_is_taken_is_named(project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        process = project.start("dashboard", "--port", port)
        assert process.wait() == 2
    assert port in process.output
    assert len(process.output.splitlines()) == 1


@pytest.mark.parametrize(
    "flags",
    [
        ("--dashboard-ip", "nowhere.invalid"),
        ("--port", "70000"),
        ("--port", "-1"),
        ("--port", "x"),
        ("--dashboard-token", "two words"),
        ("--dashboard-httpauth", "no-colon"),
        ("--dashboard-httpauth", "anna:"),
        ("--dashboard-color", "url(x)"),
        ("--dashboard-hosts", "https://mrq.example.com"),
        ("--dashboard-hosts", "mrq.example.com:443"),
        ("--dashboard-hosts", "*.example.com"),
        ("--broker", "nothing"),
    ],
)
def test_a_wrong_setting_is_one_sentence_and_exit_code_2(flags: tuple[str, ...], project: Project) -> None:
    process = project.start("dashboard", *flags)
    assert process.wait() == 2
    assert "Traceback" not in process.output


def test_it_starts_before_its_broker_and_recovers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with open_project(tmp_path, f"redis://127.0.0.1:{port}/0") as project:
        _, address = started(project)
        with pytest.raises(urllib.error.HTTPError, match="503"):
            read(f"{address}/queues")
        server = Server(port=port)
        try:
            until(lambda: _answers(f"{address}/queues"), what="the page")
        finally:
            server.stop()


def _answers(address: str) -> bool:
    try:
        return "Queues" in read(address)
    except urllib.error.HTTPError:
        return False


@pytest.mark.parametrize(
    ("address", "is_local"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False),
     ("::", False), ("192.168.1.7", False), ("example.org", False), ("", False)],
)  # fmt: skip
def test_only_loopback_addresses_need_no_login(address: str, is_local: bool) -> None:
    assert is_local_address(address) is is_local
    if not is_local:
        with pytest.raises(ConfigError, match="without a login"):
            serve(load_config({"dashboard_ip": address}, environ={}), announce=print)


def asked(address: str, *parts: bytes) -> bytes:
    """What the dashboard answers to a request of any bytes, until it or the client has said all."""
    port = int(address.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        for part in parts[:-1]:
            connection.sendall(part)
            assert connection.recv(65_536)
        connection.sendall(parts[-1])
        connection.shutdown(socket.SHUT_WR)
        return connection.makefile("rb").read()


def test_requests_that_break_off_and_a_forced_end_log_no_traceback(project: Project) -> None:
    process, address = started(project, "--dashboard-token", "secret")
    host = b"Host: localhost\r\nAuthorization: Bearer secret\r\n"
    post = b"POST /api/queue/pause HTTP/1.1\r\n" + host + b"Content-Type: application/json\r\n"
    chunked = b"Transfer-Encoding: chunked\r\n\r\n"
    asked(address, post + b'Content-Length: 50\r\n\r\n{"name"')
    asked(address, post + chunked + b"zz\r\n")
    asked(address, post.replace(b"secret", b"wrong") + chunked, b"zz\r\n")  # it has answered already
    asked(address, b"GET /events HTTP/1.1\r\n" + host + chunked, b"zz\r\n")
    assert b"event-stream" in asked(
        address, b"HEAD /events HTTP/1.1\r\nConnection: close\r\n" + host + b"\r\n"
    )
    assert b"200" in asked(address, b"GET /healthz HTTP/1.0\r\n\r\n").splitlines()[0]
    with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as page:
        page.sendall(b"GET /events HTTP/1.1\r\n" + host + b"\r\n")
        assert page.recv(100)
        process.send(signal.SIGINT)
        process.send(signal.SIGINT)
        assert process.wait() == 0
    assert "Traceback" not in process.output
    assert "ERROR" not in process.output


def test_a_request_that_the_stop_cuts_off_is_answered_and_logs_no_traceback(project: Project) -> None:
    process, address = started(project, "--dashboard-token", "secret")
    head = b"POST /api/queue/pause HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer secret\r\n"
    port = int(address.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(head + b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
        assert b"200" in asked(address, b"GET /healthz HTTP/1.0\r\n\r\n").splitlines()[0]  # it has read both
        process.send(signal.SIGTERM)
        assert connection.makefile("rb").readline() == b"HTTP/1.1 503 Service Unavailable\r\n"
    assert process.wait() == 0
    assert "Traceback" not in process.output


def first_line(port: int, address: bytes) -> bytes:
    """The first line of the answer at an address of any bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(b"GET " + address + b" HTTP/1.0\r\nHost: localhost\r\n\r\n")
        return connection.makefile("rb").readline()


def test_a_wsgi_server_serves_it(project: Project) -> None:
    project.queue("a.B", queue="by-wsgi")
    code = (
        "from wsgiref.simple_server import make_server\n"
        "from mrq.dashboard.app import app\n"
        "server = make_server('127.0.0.1', 0, app)\n"
        "print(server.server_port, flush=True)\n"
        "server.serve_forever()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=project.path, env=project.env, stdout=subprocess.PIPE, text=True
    ) as served:
        assert served.stdout is not None
        port = served.stdout.readline().strip()
        try:
            assert "by-wsgi" in read(f"http://127.0.0.1:{port}/queues")
            assert json.loads(read(f"http://127.0.0.1:{port}/api/queues"))["queues"][0]["name"] == "by-wsgi"
            assert read(f"http://127.0.0.1:{port}/events") == ""  # a stream would keep a thread
            assert b"400" in first_line(int(port), b"/\xff")
            assert b"400" in first_line(int(port), b"/%FF")
            assert b"404" in first_line(int(port), "/\N{SNOWMAN}".encode())
            cut = b"POST /api/queue/pause HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: same-origin\r\n"
            cut += b'Content-Type: application/json\r\nContent-Length: 50\r\n\r\n{"name":'
            assert b"400" in asked(f"http://127.0.0.1:{port}", cut).splitlines()[0]
            assert b"400" in first_line(int(port), b"/api/jobs?nothing=\xff")
            with pytest.raises(urllib.error.HTTPError, match="403"):
                read(f"http://127.0.0.1:{port}/queues", Host="evil.example")
        finally:
            served.kill()


@pytest.mark.parametrize("is_terminated", [True, False])
def test_a_body_in_chunks_is_read_or_refused_by_wsgi(project: Project, is_terminated: bool) -> None:
    project.queue("a.B", queue="mail")
    project.write(
        "chunks.py",
        f"""
        import io
        from wsgiref.util import setup_testing_defaults
        from mrq.dashboard.app import app

        def ask(body):
            environ = {{
                "PATH_INFO": "/api/queue/pause", "REQUEST_METHOD": "POST", "REMOTE_ADDR": "127.0.0.1",
                "REMOTE_PORT": "9", "CONTENT_TYPE": "application/json", "HTTP_TRANSFER_ENCODING": "chunked",
                "HTTP_SEC_FETCH_SITE": "same-origin", "wsgi.input_terminated": {is_terminated},
                "wsgi.input": io.BytesIO(body),
            }}
            setup_testing_defaults(environ)
            found = []
            body = b"".join(app(environ, lambda status, headers, error=None: found.append(status)))
            print(found[0], body.decode().strip(), flush=True)

        ask(b'{{"name": "mail", "duration": "15m"}}')
        ask(b" " * (3 << 20))
        """,
    )
    done = subprocess.run(
        [sys.executable, "chunks.py"],
        cwd=project.path, env=project.env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    first, second = done.stdout.strip().splitlines()
    if is_terminated:
        assert ("200" in first, "resumed" in first) == (True, False), first
        assert "413" in second
    else:
        assert ("411" in first, "Content-Length" in first, "411" in second) == (True, True, True)


@pytest.mark.parametrize("serves_before", [False, True])
def test_a_wsgi_server_that_forks_after_the_import_serves_it(project: Project, serves_before: bool) -> None:
    """As with ``gunicorn --preload``, or a server that forks for each request."""
    project.write(
        "forking.py",
        f"""
        import io, os, sys
        from wsgiref.util import setup_testing_defaults
        from mrq.dashboard.app import app

        def ask(path):
            environ = {{"PATH_INFO": path, "REMOTE_ADDR": "127.0.0.1", "REMOTE_PORT": "9"}}
            setup_testing_defaults(environ)
            environ["wsgi.input"] = io.BytesIO()
            found = []
            body = b"".join(app(environ, lambda status, headers, error=None: found.append(status)))
            return f"{{found[0]}} {{len(body) > 0}}"

        if {serves_before}:
            ask("/healthz")
        for number in range(2):
            child = os.fork()
            if not child:
                print(ask("/healthz"), ask("/queues"), ask("/api/queues"), flush=True)
                os._exit(0)
            os.waitpid(child, 0)
        """,
    )
    done = subprocess.run(
        [sys.executable, "forking.py"],
        cwd=project.path, env=project.env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["200 OK True 200 OK True 200 OK True"] * 2, done.stderr


def test_the_command_says_which_library_is_missing(project: Project) -> None:
    (project.path / "missing").mkdir()
    (project.path / "missing" / "uvicorn.py").write_text("raise ModuleNotFoundError(name='uvicorn')\n")
    project.env["PYTHONPATH"] = str(project.path / "missing")
    process = project.start("dashboard", "--port", "0")
    assert process.wait() == 2
    assert "pip install" in process.output


def test_two_dashboards_that_start_at_the_same_moment_do_not_both_get_a_port() -> None:
    """Before they listen, the system lets both bind it."""
    with serving._bound(replace(Config(), dashboard_port=0)) as first:
        second = replace(Config(), dashboard_port=first.getsockname()[1])
        with pytest.raises(ConfigError, match="the dashboard cannot listen at"):
            serving._bound(second)
