"""The stream of events: what it names, whom it refuses, what it costs, and how it ends."""

from __future__ import annotations

import contextlib
import http.client
import queue
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient

from mrq_core.client.client import Client
from mrq_core.config.settings import Config
from mrq_core.contract.messages import Note
from mrq_core.contract.queries import LogLine
from mrq_core.contract.record import Status
from mrq_core.operations.measures.watching import Counters
from mrq_dashboard import create_dashboard, live
from mrq_dashboard.rendering import MENU
from mrq_dashboard.serving import _STOP_WITHIN
from tests import brokers
from tests.dashboard import scenes
from tests.dashboard.conftest import MakeSite
from tests.dashboard.html_reading import PageReader
from tests.redis.servers import Server
from tests.support import LOAD, open_project, until

_REGION = re.compile(r'id="([\w-]+)" data-topics="([^"]*)"')
_TOPICS = {*Counters._fields, "job", "log"}


class Tab:
    """The stream of one open page. A thread reads its events."""

    def __init__(self, address: str, path: str = "/events", **headers: str) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=60)
        self._connection.request("GET", path, headers=headers)
        self.answer = self._connection.getresponse()
        self.events: queue.Queue[tuple[str, set[str]]] = queue.Queue()
        self.ended = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        name = ""
        with contextlib.suppress(OSError, ValueError, AttributeError, http.client.HTTPException):
            for line in self.answer:
                field, _, value = line.decode().rstrip("\n").partition(": ")
                if field == "event":
                    name = value
                elif line.startswith(b"data:"):
                    self.events.put((name, set(value.split())))
        self.ended.set()

    def until(self, name: str, patience: float = 60.0) -> set[str]:
        """The topics of the next event with this name."""
        deadline = time.monotonic() + patience
        while True:
            found, topics = self.events.get(timeout=max(0.01, deadline - time.monotonic()))
            if found == name:
                return topics

    def until_topics(self, *wanted: str, patience: float = 60.0) -> set[str]:
        """Reads until all these topics have changed. Returns all that changed."""
        deadline = time.monotonic() + patience
        seen: set[str] = set()
        while not seen >= set(wanted):
            seen |= self.until("changed", deadline - time.monotonic())
        return seen

    def close(self) -> None:
        """What a browser does when the tab is closed."""
        if self._connection.sock is not None:
            self._connection.sock.shutdown(socket.SHUT_RDWR)
        self.answer.close()
        self._connection.close()

    def __enter__(self) -> Tab:
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):
            self.close()


class Served:
    """A dashboard served by uvicorn in a thread."""

    def __init__(self, config: Config, **settings: Any) -> None:
        self.app = create_dashboard(config)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(self.app, log_level="warning", **settings))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]})
        self._thread.start()
        until(lambda: self._server.started)

    @property
    def connections(self) -> set[object]:
        return self._server.server_state.connections  # type: ignore[return-value]

    @property
    def answering(self) -> int:
        """The number of requests that are being answered."""
        return len(self._server.server_state.tasks)

    @property
    def live(self) -> live.Live:
        found: live.Live = self.app.state.live
        return found

    def __enter__(self) -> Served:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.stop()
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()


@pytest.fixture
def served(config: Config) -> Iterator[Served]:
    with Served(config) as made:
        yield made


def queue_until(tab: Tab, client: Client) -> set[str]:
    client.queue_job("a.B", queue="mail")
    return tab.until_topics("jobs", "queues", "tasks", patience=2.0 + LOAD)


def test_a_new_job_is_named_within_two_seconds(served: Served, client: Client) -> None:
    with Tab(served.address) as tab:
        assert tab.answer.headers["content-type"].startswith("text/event-stream")
        assert tab.answer.headers["cache-control"] == "no-store"
        tab.until("ready")
        topics = queue_until(tab, client)
        assert topics == {"jobs", "queues", "tasks"}


def test_each_part_has_its_topic(served: Served, client: Client) -> None:
    state = client.broker.state
    with Tab(served.address) as tab:
        tab.until("ready")
        scenes.report(client.broker, "w.host.1")
        assert tab.until_topics("workers") == {"workers"}
        client.broker.pause(["mail"])
        assert tab.until_topics("rules") == {"rules"}
        state.put("schedules", "nightly", {"any": "value"})
        assert tab.until_topics("schedules") == {"schedules"}
        client.queue_job("a.B", queue="mail")
        tab.until_topics("jobs")
        client.broker.resume(["mail"])
        scenes.fail(client.broker, scenes.take(client.broker, "mail"), Status.FAILED)
        tab.until_topics("jobs", "exceptions")


def test_nothing_is_named_while_nothing_changes(served: Served, client: Client) -> None:
    client.queue_job("a.B", queue="mail")
    scenes.report(client.broker, "w.host.1")
    with Tab(served.address) as tab:
        tab.until("ready")
        before = served.live.readings
        until(lambda: served.live.readings >= before + 3)
        assert tab.events.empty()


def test_a_watched_job_names_its_changes_and_its_log(served: Served, client: Client) -> None:
    job_id = client.queue_job("a.B", queue="mail")
    [taken] = scenes.take(client.broker, "mail")
    with Tab(served.address, f"/events?job={job_id}") as tab, Tab(served.address) as other:
        tab.until("ready")
        other.until("ready")
        line = LogLine(
            job_id=job_id, attempt=1, seq=0, at=client.broker.now(), level="INFO", message="a line"
        )
        client.broker.append_logs([line], 10_000)
        assert tab.until_topics("log", patience=2.0 + LOAD) == {"log"}
        client.broker.annotate([Note(id=job_id, token=taken.token or "", progress=0.5)])
        assert tab.until_topics("job", patience=2.0 + LOAD) == {"job"}
        assert other.events.empty()


def test_the_poller_runs_while_a_stream_is_open(served: Served) -> None:
    assert served.live.readings == 0
    with Tab(served.address) as tab:
        tab.until("ready")
        assert served.live.number == 1
    until(lambda: served.live.number == 0)
    with Tab(served.address) as tab:
        tab.until("ready")


def test_a_quiet_stream_has_heartbeats(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "HEARTBEAT", 0.05)
    connection = http.client.HTTPConnection(served.address, timeout=30)
    connection.request("GET", "/events")
    answer = connection.getresponse()
    until(lambda: answer.readline() == b":\n")
    connection.close()


def test_a_broker_that_is_away_is_named_once(tmp_path: Path) -> None:
    server = Server()
    url = server.url
    port = int(re.findall(r":(\d+)", url)[0])
    config = Config(broker=url, dashboard_timeout=1.0)
    with Served(config) as served, Tab(served.address) as tab:
        tab.until("ready")
        server.stop()
        tab.until("away")
        with Tab(served.address) as later:
            later.until("away")
        server = Server(port=port)
        try:
            tab.until("back")
            assert tab.events.empty() or tab.until("changed")
        finally:
            server.stop()


# --- fragments ----------------------------------------------------------------------------------------


def test_each_page_has_regions_and_a_fragment_with_the_same(site: TestClient, client: Client) -> None:
    named = scenes.bad_day(client)
    paths = [path for path, _, _ in MENU if path != "/system"]
    paths += [
        "/queues?name=mail",
        f"/tasks/{scenes.MAIL}",
        f"/workers/{scenes.WORKER}",
        "/schedules?name=carts",
    ]
    paths += [f"/jobs/{job_id}" for job_id in named.values()]
    for path in paths:
        page, fragment = site.get(path).text, site.get(path, headers={"x-fragment": "1"}).text
        regions = _REGION.findall(page)
        assert regions, path
        assert [name for name, _ in _REGION.findall(fragment)] == [name for name, _ in regions]
        assert {topic for _, topics in regions for topic in topics.split()} <= _TOPICS, path
        assert 'id="asof"' in fragment
        assert "<!doctype" not in fragment
        assert "<script" not in fragment
        assert len(fragment) < len(page)
        ids = [attributes["id"] for _, attributes in PageReader(page).elements if "id" in attributes]
        assert sorted(ids) == sorted(set(ids)), path


def test_the_versions_of_vendored_files_are_noted() -> None:
    files = resources.files("mrq_dashboard").joinpath("static")
    notes = files.joinpath("vendor.md").read_text()
    for name, pattern in (("htmx.min.js", r'version="([\d.]+)"'), ("uplot.min.js", r"\(v([\d.]+)\)")):
        found = re.search(pattern, files.joinpath(name).read_text())
        assert found is not None
        assert re.search(rf"`{re.escape(name)}`.*\| {re.escape(found[1])} \|", notes), name
    assert "Zero-Clause BSD" in notes
    assert "Leon Sorokin" in notes


# --- access -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer x"}, 401),
        ({"authorization": "Bearer t", "origin": "http://evil.example"}, 403),
        ({"authorization": "Bearer t", "sec-fetch-site": "cross-site"}, 403),
        ({"authorization": "Bearer t", "sec-fetch-site": "same-site"}, 403),
        ({"authorization": "Bearer t", "host": "evil.example"}, 403),
    ],
    ids=str,
)
def test_a_stranger_gets_no_stream(headers: dict[str, str], status: int, make_site: MakeSite) -> None:
    site = make_site(dashboard_token="t", hosts=["localhost"])
    assert site.get("/events", headers=headers).status_code == status


def test_a_page_of_the_dashboard_gets_a_stream(served: Served) -> None:
    own = {"sec-fetch-site": "same-origin", "origin": f"http://{served.address}"}
    with Tab(served.address, **own) as tab:
        assert tab.answer.status == 200
        tab.until("ready")


@pytest.mark.parametrize("query", ["job=x", "job=" + "0" * 23, "jobs=1"])
def test_a_wrong_input_is_refused(query: str, make_site: MakeSite) -> None:
    assert make_site().get(f"/events?{query}").status_code == 400


def test_the_number_of_streams_is_bounded(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MOST_STREAMS", 2)
    with Tab(served.address) as one, Tab(served.address) as other:
        one.until("ready")
        other.until("ready")
        with Tab(served.address) as refused:
            assert refused.answer.status == 503
            assert refused.answer.headers["retry-after"]


def test_a_slow_client_holds_each_topic_once() -> None:
    stream = live.Stream(None)
    for _ in range(1000):
        stream.add(frozenset({"jobs", "queues"}))
    assert stream.topics == {"jobs", "queues"}


# --- the end ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("project_broker", brokers.PARAMS)
def test_streams_end_when_the_server_stops(project_broker: str, tmp_path: Path) -> None:
    with open_project(tmp_path, *brokers.address_of(project_broker, tmp_path)) as project:
        process = project.start("dashboard", "--port", "0")
        process.until_output("The dashboard is at ")
        found = re.search(r"http://(\S+)/", process.output)
        assert found is not None
        with Tab(found[1]) as tab:
            tab.until("ready")
            process.send(signal.SIGTERM)
            assert tab.ended.wait(_STOP_WITHIN - 1), "the server waited for the stream"
            assert process.wait() == 0
        assert "Traceback" not in process.output


# --- costs --------------------------------------------------------------------------------------------


@pytest.mark.campaign
def test_fifty_streams_cost_less_than_half_a_core(served: Served, client: Client) -> None:
    stop = threading.Event()
    queued = 0

    def change() -> None:
        nonlocal queued
        while not stop.wait(0.1):
            client.queue_jobs("a.B", [{"n": n} for n in range(50)], queue="mail")
            queued += 50

    with contextlib.ExitStack() as tabs:
        opened = [tabs.enter_context(Tab(served.address)) for _ in range(50)]
        for tab in opened:
            tab.until("ready")
        changing = threading.Thread(target=change)
        idle = process_seconds(10.0)
        changing.start()
        busy = process_seconds(10.0)
        stop.set()
        changing.join()
        print(f"idle {idle / 10:.1%} of a core, busy {busy / 10:.1%}, {queued} jobs")
        assert busy < 5.0


def process_seconds(seconds: float) -> float:
    """The CPU time that this process uses in this time."""
    begin = time.process_time()
    time.sleep(seconds)  # the time that is measured
    return time.process_time() - begin


def test_the_headers_of_the_stream_are_no_stream(make_site: MakeSite) -> None:
    site = make_site()
    answer = site.head("/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert site.app.state.live.number == 0  # type: ignore[attr-defined]
