"""Clients that begin requests and do not end them."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mrq_core.config.settings import Config
from mrq_dashboard import guard, protocol
from tests.dashboard.test_live import Served
from tests.support import PATIENCE, until

PAUSE = 0.3
"""Seconds that the limits below have here."""
HOST = b"Host: localhost\r\nAuthorization: Bearer secret\r\n"
POST = b"POST /api/queue/pause HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
BODY = b'{"name": "slow"}'
HEAD = POST + b"Content-Length: %d\r\n\r\n" % len(BODY)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(guard, "BODY_PAUSE", PAUSE)
    monkeypatch.setattr(guard, "BODY_WITHIN", 3 * PAUSE)
    monkeypatch.setattr(protocol, "HEAD_WITHIN", 2 * PAUSE)
    monkeypatch.setattr(protocol, "REST_WITHIN", PAUSE)
    config = Config(broker=f"sqlite:///{tmp_path}/jobs.sqlite3", dashboard_token="secret")
    with Served(config, http=protocol.Protocol) as made:
        yield made


class Client:
    """A connection to the dashboard."""

    def __init__(self, served: Served, *parts: bytes) -> None:
        host, _, port = served.address.partition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE)
        for part in parts:
            self.socket.sendall(part)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def answer(self) -> bytes:
        """All that comes until the dashboard closes the connection."""
        return self.socket.makefile("rb").read()

    def drip(self, data: bytes) -> None:
        """Sends a byte from time to time, until the dashboard does not take more."""
        try:
            for byte in data:
                self.socket.sendall(bytes([byte]))
                time.sleep(PAUSE / 4)
        except OSError:
            pass


def status(answer: bytes) -> int:
    return int(answer.split()[1])


def answers(served: Served) -> bool:
    with Client(served, b"GET /api/queues HTTP/1.0\r\n" + HOST + b"\r\n") as client:
        return status(client.answer()) == 200


@pytest.mark.parametrize("head", [HEAD, POST + b"Transfer-Encoding: chunked\r\n\r\n"])
def test_a_body_that_stops_coming_is_answered_with_408(served: Served, head: bytes) -> None:
    part = b"" if b"chunked" in head else BODY[:5]
    with Client(served, head + part) as client:
        answer = client.answer()
    assert status(answer) == 408
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["status"] == 408


def test_a_body_that_comes_too_slowly_is_answered_with_408(served: Served) -> None:
    with Client(served, HEAD) as client:
        client.drip(BODY)
        assert status(client.answer()) == 408


def test_a_body_that_comes_in_parts_is_whole(served: Served) -> None:
    with Client(served, HEAD.replace(b"Host:", b"Connection: close\r\nHost:")) as client:
        for part in (BODY[:5], BODY[5:]):
            time.sleep(PAUSE / 4)
            client.socket.sendall(part)
        assert status(client.answer()) == 200


def test_a_head_that_does_not_come_in_time_is_answered_with_408(served: Served) -> None:
    with Client(served) as client:
        client.drip(b"GET /healthz HTTP/1.1\r\n" + b"X: x\r\n" * 10)
        assert status(client.answer()) == 408


def test_a_connection_without_a_request_is_closed(served: Served) -> None:
    with Client(served) as client:
        assert client.answer() == b""
    with Client(served, b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n") as client:
        assert status(client.socket.recv(65536)) == 200
        client.socket.sendall(b"G")
        assert b"HTTP/1.1 408" in client.answer()


def test_the_rest_of_a_request_that_is_answered_is_not_awaited_for_long(served: Served) -> None:
    with Client(served, HEAD.replace(b"secret", b"wrong").replace(b"%d" % len(BODY), b"1000000")) as client:
        assert status(client.socket.recv(65536)) == 401
        started = time.monotonic()
        client.drip(b" " * 100)
        assert time.monotonic() - started < 20 * PAUSE


def test_a_stream_whose_request_has_an_unfinished_body_ends(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    with Client(
        served, b"GET /events HTTP/1.1\r\nConnection: close\r\n" + HOST + b"Content-Length: 10\r\n\r\n{"
    ) as client:
        answer = client.answer()
    assert status(answer) == 200
    assert not caplog.records


def test_many_unfinished_requests_leave_the_dashboard_to_others(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "BODY_PAUSE", 2 * PATIENCE)
    monkeypatch.setattr(guard, "BODY_WITHIN", 2 * PATIENCE)
    monkeypatch.setattr(protocol, "UNFINISHED_LEAST", PAUSE)
    clients = [Client(served, HEAD, BODY[:5]) for _ in range(60)]
    try:
        until(lambda: len(served.connections) == 60, what="the connections")
        time.sleep(PAUSE)
        monkeypatch.setattr(protocol, "UNFINISHED_MOST", 20)
        assert all(answers(served) for _ in range(20))
        for client in clients[:20]:
            assert status(client.answer()) == 408
        assert len(served.connections) >= 40
    finally:
        for client in clients:
            client.socket.close()


@pytest.mark.parametrize("head", [POST, POST.replace(b"secret", b"wrong")])
@pytest.mark.parametrize("body", [b"zz\r\n", b'5\r\n{"nam\r\nzz\r\n'])
def test_a_body_that_cannot_be_read_is_refused_once(
    served: Served,
    head: bytes,
    body: bytes,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("uvicorn.error"), "handlers", [caplog.handler])
    with Client(served, head + b"Transfer-Encoding: chunked\r\n\r\n" + body) as client:
        assert status(client.answer()) == 400
    until(lambda: not served.answering)
    assert {record.levelname for record in caplog.records} == {"WARNING"}
