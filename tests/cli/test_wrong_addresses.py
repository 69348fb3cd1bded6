"""A wrong address of a broker: one sentence with the reason and the advice, without a password."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests import brokers
from tests.cli.conftest import Shell
from tests.redis.servers import Server
from tests.support import Project

SECONDS = 20.0
"""The time that a command may take with BROKER_TIMEOUT 1, on any machine."""


class Listener:
    """A server that speaks another protocol: it sends `greeting` to what it receives, and closes."""

    def __init__(self, greeting: bytes | None) -> None:
        self._greeting = greeting
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                accepted, _ = self._socket.accept()
            except OSError:
                return
            self._open.append(accepted)
            if self._greeting is not None:
                accepted.recv(65_536)
                accepted.sendall(self._greeting)
                accepted.close()

    def close(self) -> None:
        self._socket.close()
        for accepted in self._open:
            accepted.close()


@pytest.mark.parametrize("setting", ["REDIS", "MONGODB", "BROKER", "STORE"])
@pytest.mark.parametrize(
    "address",
    ["{0}:/:S3cretPw@127.0.0.1:1/0", "{0}//:S3cretPw@127.0.0.1:1/0", "{0}:anna:S3cretPw@127.0.0.1",
     "{0}/anna:S3cretPw@127.0.0.1", "anna:S3cretPw@127.0.0.1:1", "{0}:///anna:S3cretPw@127.0.0.1"],
)  # fmt: skip
def test_a_mistyped_url_does_not_show_its_password(
    mrq: Shell, project: Project, setting: str, address: str
) -> None:
    scheme = {"MONGODB": "mongodb"}.get(setting, "redis")
    kind = {"MONGODB": "mongo"}.get(setting, "redis")
    project.env.update({"MRQ_STORE": "", "MRQ_BROKER": kind, f"MRQ_{setting}": address.format(scheme)})
    if setting == "STORE":
        project.env["MRQ_REDIS"] = "redis://127.0.0.1:1/0"
    for command in (["check"], ["queues"], ["run", "tasks.x", "--async"]):
        said = mrq(*command, code=None)
        assert "S3cretPw" not in said.out + said.err


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[str, int]]:
    """The ports of servers by name."""
    servers = {
        "silent": Listener(None),
        "closing": Listener(b""),
        "http": Listener(b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/html\r\n\r\n<html></html>\r\n"),
    }
    locked = Server("--requirepass", "geheim")
    plain = int(brokers.server_url("redis").rpartition(":")[2].partition("/")[0])
    try:
        yield {
            **{name: server.port for name, server in servers.items()},
            "locked": locked.port,
            "redis": plain,
        }
    finally:
        locked.stop()
        for server in servers.values():
            server.close()


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with closing(Project(tmp_path, f"sqlite:///{tmp_path}/jobs.sqlite3")) as opened:
        yield opened


AWAY = [
    ("rediss://127.0.0.1:{redis}", "a server without TLS needs redis:// in the URL"),
    ("rediss://127.0.0.1:{silent}", "a server without TLS needs redis:// in the URL"),
    (
        "redis://127.0.0.1:{closing}",
        "a server with TLS needs rediss://, and another program may have this port",
    ),
    ("redis://127.0.0.1:{http}", "does not speak the protocol of Redis"),
    ("redis+cluster://127.0.0.1:{http}", "does not speak the protocol of Redis"),
    ("redis://127.0.0.1:{silent}", "did not answer within"),
    ("redis+sentinel://127.0.0.1:{silent}/jobs", "did not answer within"),
    ("redis+cluster://127.0.0.1:{silent}", "did not answer within"),
    ("redis://127.0.0.1:{locked}", "it wants a password: put it in the URL"),
    ("redis://:geheimx@127.0.0.1:{locked}", "user or password is wrong: correct them in the URL"),
    ("redis://anna:geheimx@127.0.0.1:{locked}", "user or password is wrong: correct them in the URL"),
    ("redis://127.0.0.1:{redis}/999", "it has fewer databases: use a smaller number"),
    ("redis+sentinel://127.0.0.1:{redis}/jobs", "it is no sentinel"),
    ("redis+sentinel://:geheim@127.0.0.1:1/jobs", "start them, or correct the URL"),
    ("redis+cluster://127.0.0.1:{redis}", "it is a single server, which needs redis:// in the URL"),
    ("rediss+cluster://127.0.0.1:{redis}", "a server without TLS needs redis+cluster:// in the URL"),
    ("rediss+cluster://127.0.0.1:{silent}", "a server without TLS needs redis+cluster:// in the URL"),
    (
        "redis+cluster://127.0.0.1:{closing}",
        "a server with TLS needs rediss+cluster://, and another program may have this port",
    ),
    ("redis://127.0.0.1:1", "start it, or correct the URL and the network"),
    ("mongodb://127.0.0.1:{http}/x", "does not speak the protocol of MongoDB"),
    ("mongodb://anna:geheim@127.0.0.1:{redis}/x", "another program may have this port"),
    ("mongodb://127.0.0.1:{closing}/x", "another program may have this port"),
    ("mongodb://127.0.0.1:{closing}/x?tls=true", "a server without TLS needs a URL without tls=true"),
    ("sqlite:///mrq-config.py/jobs.sqlite3", "is a file: name another path in SQLITE or the URL"),
    ("sqlite:///mrq-config.py", "is not an SQLite database"),
    ("sqlite:////proc/none/jobs.sqlite3", "cannot be made"),
]
WRONG = [
    ("sqlite:////dev/full", "is a device, pipe or socket: name a file in SQLITE or the URL"),
    ("sqlite:////dev", "is a directory: name a file in SQLITE or the URL"),
    ("redis://127.0.0.1:6379/abc", "the database is 'abc', not a number"),
    ("redis://127.0.0.1:0", "the port is 0"),
    ("unix://", "it names no socket"),
    ("redis://[::1", "Invalid IPv6 URL"),
    ("mongodb://[::1/x", "Invalid IPv6 URL"),
    ("redis://:geheim#x@127.0.0.1", "expected %23 in place of a #"),
    ("redis://:ab@geheim#1@127.0.0.1", "expected %23 in place of a #"),
    ("redis://:4711#geheim@127.0.0.1", "expected %23 in place of a #"),
    ("redis+cluster://:4711#geheim@127.0.0.1", "expected %23 in place of a #"),
    ("redis://127.0.0.1:1?prefix=a#b", "expected %23 in place of a #"),
    ("unix:///run/redis#1.sock", "expected %23 in place of a #"),
    ("mongodb://anna:47#geheim@127.0.0.1/x", "expected %23 in place of a #"),
    ("redis:/:geheim@127.0.0.1", "did you mean redis or a URL that starts with redis://?"),
    ("anna:geheim@127.0.0.1:6379", "installed are mongo, redis, sqlite"),
    ("rabbit://anna:geheim@127.0.0.1", "no installed broker driver opens URLs that start with rabbit://"),
    ("mongodb", "did you mean mongo or a URL that starts with mongodb://?"),
    ("mogno", "did you mean mongo?"),
    ("sqlite:///folder/", "does not name a file"),
    ("sqlite:///a%00b", "does not name a file"),
    ("sqlite://anna:geheim@h/x", "the URL 'sqlite://anna:***@h/x' does not name a file"),
    ("sqlite:///x?password=geheim", "has options, and the embedded broker has none"),
    ("redis://:geheim", "the URL 'redis://:***' is wrong (are user and password percent-encoded"),
    ("redis://127.0.0.1:1?pasword=geheim", "unknown options pasword"),
    ("redis://127.0.0.1:1?prefix=a&prefix=b", "has the option prefix 2 times: expected it once"),
    ("mongodb://:geheim", "the URL 'mongodb://:***' is wrong ("),
    ("mongodb://127.0.0.1:1/?pasword=geheim", "the option pasword is unknown"),
    ("mongodb://127.0.0.1:1/?authMechanismProperties=AWS_SESSION_TOKEN:geheim,x", "Malformed auth mechanism"),
    ("mongodb://127.0.0.1:1/?tls=perhaps", "tls must be 'true' or 'false'"),
    ("x:geheim@redis://h", "installed are mongo, redis, sqlite"),
]


@pytest.mark.parametrize(
    ("code", "url", "said"), [(1, *case) for case in AWAY] + [(2, *case) for case in WRONG]
)
def test_a_wrong_address_is_told_in_a_sentence_and_within_seconds(
    mrq: Shell, project: Project, ports: dict[str, int], code: int, url: str, said: str
) -> None:
    project.write("mrq-config.py", "# no database\n" * 100)
    started = time.monotonic()
    flags = ("--broker", url.format(**ports), "--store", "", "--broker-timeout", "1")
    shown = mrq("jobs", "list", *flags, code=code)
    assert time.monotonic() - started < SECONDS
    assert said in shown.err
    assert len(shown.err.splitlines()) == 1
    checked = mrq("check", *flags, code=code)
    assert said in checked.out + checked.err
    assert "geheim" not in shown.err + checked.out + checked.err


def test_a_store_that_is_no_name_and_no_url_names_the_right_one(mrq: Shell) -> None:
    said = mrq("jobs", "list", "--broker", "redis", "--store", "mongodb", code=2)
    assert "no installed store driver has the name 'mongodb'" in said.err
    assert "did you mean mongo or a URL that starts with mongodb://?" in said.err


def test_schemes_of_urls_may_be_written_in_capitals(mrq: Shell, project: Project) -> None:
    assert "no jobs" in mrq("jobs", "list", "--broker", f"SQLITE:///{project.path}/x.sqlite3").err
    for kind, setting, url in (
        ("redis", "MRQ_REDIS", "REDIS://127.0.0.1:1"),
        ("mongo", "MRQ_MONGODB", "MONGODB://127.0.0.1:1/x"),
    ):
        project.env[setting] = url
        flags = ("--broker", kind, "--store", "", "--broker-timeout", "1")
        assert f"{url.lower()} cannot be reached" in mrq("jobs", "list", *flags, code=1).err


@pytest.mark.parametrize("url", ["redis://:p%40s%2Fs@127.0.0.1:{port}", "redis://:p%40s%2Fs@[::1]:{port}"])
def test_encoded_passwords_and_ipv6_addresses_are_understood(mrq: Shell, url: str) -> None:
    server = Server("--requirepass", "p@s/s", "--bind", "127.0.0.1", "::1")
    try:
        assert "no jobs" in mrq("jobs", "list", "--broker", url.format(port=server.port), "--store", "").err
    finally:
        server.stop()
