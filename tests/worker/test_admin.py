"""The admin port of a worker: its pages, also while a job blocks the hub, and hostile clients."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import time
from typing import Any, NamedTuple

import pytest

from mrq_core.config.settings import Config
from mrq_core.worker.reporting.admin import admin_port
from tests.support import PATIENCE, Process, Project, until


class Reply(NamedTuple):
    code: int
    kind: str
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Admin:
    """A worker with an admin port, and a client of it."""

    def __init__(self, project: Project, *flags: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.worker: Process = project.worker("--admin-port", str(self.port), *flags)

    def get(self, path: str, method: str = "GET", body: bytes | None = None) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            text = answer.read().decode()
            return Reply(answer.status, answer.headers["Content-Type"] or "", text)
        finally:
            connection.close()

    def raw(self, data: bytes) -> bytes:
        """What the worker answers to these bytes, until it closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as client:
            client.sendall(data)
            received = b""
            while part := client.recv(4096):
                received += part
            return received


def test_the_pages_of_a_worker(project: Project) -> None:
    done, failed = project.queue("tasks.Add", {"a": 1, "b": 2}), project.queue("tasks.fail")
    admin = Admin(project, "--name", 'we"b', "-g", "3")
    project.ended(done)
    project.ended(failed)
    running = project.queue("tasks.noted", {"word": "x", "seconds": 1000})
    until(project.ledger, what="the job to run")
    until(lambda: admin.get("/report").json["done_jobs"] == 2, what="the counts")
    for path in ("/", "/report", "/report_mem"):
        answer = admin.get(path)
        assert (answer.code, answer.kind) == (200, "application/json")
        report = answer.json
        assert (report["pid"], report["greenlets"]) == (admin.worker.pid, 3)
        assert [job["id"] for job in report["running"]] == [running]
        assert report["jobs"] == {"success": 1, "failed": 1}
    assert report["mem"]["total"] >= report["mem"]["rss"] > 1_000_000
    shown = json.loads(project.mrq("workers", "show", report["name"], "--json"))
    assert admin.get("/report").json.keys() == shown.keys()
    assert admin.get("/healthz")[::2] == (200, "ok\n")
    assert admin.get("/readyz")[::2] == (200, "ok\n")
    assert admin.get("/nothing").code == 404
    assert admin.get("/report", "HEAD").text == ""
    assert admin.get("/report", "POST").code == 405


def test_the_metrics_are_in_the_text_format_of_prometheus(project: Project) -> None:
    job = project.queue("tasks.fail")
    admin = Admin(project, "--name", 'we"b\\')
    project.ended(job)
    until(lambda: admin.get("/report").json["done_jobs"] == 1, what="the counts")
    answer = admin.get("/metrics")
    assert answer.kind == "text/plain; version=0.0.4; charset=utf-8"
    sample = re.compile(r'[a-z_]+(\{[a-z_]+="(\\.|[^"\\\n])*"(,[a-z_]+="(\\.|[^"\\\n])*")*\})? [0-9.e+-]+')
    lines = answer.text.splitlines()
    assert all(line.startswith(("# HELP ", "# TYPE ")) or sample.fullmatch(line) for line in lines)
    assert 'mrq_jobs_total{status="failed"} 1' in lines
    assert "mrq_running_jobs 0" in lines
    assert any(line.startswith('mrq_worker_info{name="we\\"b\\\\.') for line in lines)
    names = [line.split()[2] for line in lines if line.startswith("# TYPE ")]
    assert len(names) == len(set(names)) > 8


def test_the_port_answers_while_a_job_blocks_the_hub(project: Project) -> None:
    admin = Admin(project)
    job = project.queue("tasks.busy", {"seconds": 6})
    until(project.ledger, what="the job to block the hub")
    until(lambda: "blocks the hub" in admin.get("/healthz").text, what="the native thread to answer")
    assert admin.get("/healthz").code == 200
    ready = admin.get("/readyz")
    assert (ready.code, ready.text.startswith("a job blocks the hub for ")) == (503, True)
    [running] = admin.get("/report").json["running"]
    assert running["id"] == job
    assert [line for line in running["stack"] if line.endswith(" busy")]
    assert "mrq_running_jobs 1" in admin.get("/metrics").text
    assert admin.get("/wait_for_idle").code == 503
    assert admin.raw(b"GARBAGE\r\n\r\n").startswith(b"HTTP/1.1 405 ")
    assert project.client.fetch(job).status == "started"
    project.ended(job)
    until(lambda: admin.get("/healthz").text == "ok\n", what="the hub to answer again")


def test_wait_for_idle_returns_when_all_jobs_have_ended(project: Project) -> None:
    admin = Admin(project, "-g", "4", "--max-latency", "30")
    assert admin.get("/wait_for_idle?timeout=20").json == {"idle": True}
    jobs = [project.queue("tasks.noted", {"word": str(n), "seconds": 0.2}) for n in range(12)]
    assert admin.get("/wait_for_idle").json == {"idle": True}
    assert {project.client.fetch(job).status for job in jobs} == {"success"}
    endless = project.queue("tasks.noted", {"word": "endless", "seconds": 1000})
    project.until_status(endless, "started")
    busy = admin.get("/wait_for_idle?timeout=0.3")
    assert (busy.code, busy.json) == (503, {"idle": False})
    assert admin.get("/wait_for_idle?timeout=x").code == 400
    assert admin.get("/wait_for_idle?timeout=nan").code == 400


def test_a_worker_that_stops_is_not_ready_and_still_answers(project: Project) -> None:
    project.queue("tasks.noted", {"word": "x", "seconds": 1000})
    admin = Admin(project, "--stop-grace", "0")
    until(project.ledger, what="the job to run")
    admin.worker.send(signal.SIGINT)
    ready = until(lambda: (found := admin.get("/readyz")).code == 503 and found, what="the stop")
    assert isinstance(ready, Reply)
    assert "its state is join" in ready.text
    assert admin.get("/healthz").code == 200
    admin.worker.send(signal.SIGTERM)
    assert admin.worker.wait() == 0


def test_a_port_that_is_taken_is_one_clear_error(project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        worker = project.start("worker", "--burst", "--quiet", "--admin-port", str(port))
        assert worker.wait() == 1
    assert worker.output.startswith(f"mrq: the admin port {port} cannot be opened at 127.0.0.1: ")
    assert len(worker.output.splitlines()) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000 + b"\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\nx",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\nx",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\r\n\r\n",
    ],
)
def test_no_request_of_a_client_harms_the_worker(project: Project, data: bytes) -> None:
    admin = Admin(project)
    with socket.create_connection(("127.0.0.1", admin.port), timeout=PATIENCE) as client:
        try:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            answer = client.recv(100)
        except OSError:  # it has closed the connection before it read all
            answer = b""
    assert not answer.startswith(b"HTTP/1.1 200")
    assert admin.get("/healthz").code == 200
    assert project.ended(project.queue("tasks.Add", {"a": 1, "b": 1})).result == 2
    assert "Traceback" not in admin.worker.output


def test_clients_that_send_nothing_are_disconnected(project: Project) -> None:
    admin = Admin(project)
    silent = [socket.create_connection(("127.0.0.1", admin.port), timeout=PATIENCE) for _ in range(50)]
    for client in silent:
        client.sendall(b"GET / HT")
    started = time.monotonic()
    assert admin.get("/healthz").code == 200  # once one of them was disconnected
    assert [client.recv(100) for client in silent] == [b""] * 50
    assert time.monotonic() - started < 30
    for client in silent:
        client.close()


def test_a_child_of_a_task_does_not_keep_the_port(project: Project) -> None:
    project.write(
        "forks.py",
        """
        import os
        import time
        from mrq_core import task
        from tasks import note


        @task
        def leaves_a_child():
            if os.fork() == 0:
                note("child")
                time.sleep(1000)
                os._exit(0)
        """,
    )
    admin = Admin(project)
    project.ended(project.queue("forks.leaves_a_child"))
    until(project.ledger, what="the child")
    admin.worker.send(signal.SIGINT)
    assert admin.worker.wait() == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", admin.port), timeout=5).close()


def test_the_workers_of_one_parent_have_ports_in_a_row(project: Project) -> None:
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port = first.getsockname()[1]
            try:
                socket.create_server(("127.0.0.1", port + 1)).close()
                break
            except (OSError, OverflowError):
                continue
    parent = project.start("worker", "--processes", "2", "--admin-port", str(port), "--max-latency", "0.05")
    until(lambda: parent.output.count("worker.started") == 2, what="two workers")
    reports = []
    for number in (0, 1):
        connection = http.client.HTTPConnection("127.0.0.1", port + number, timeout=PATIENCE)
        connection.request("GET", "/report")
        reports.append(json.loads(connection.getresponse().read()))
        connection.close()
    assert len({report["pid"] for report in reports}) == 2
    parent.send(signal.SIGINT)
    assert parent.wait() == 0


def test_the_ports_of_workers_follow_the_first() -> None:
    assert [admin_port(Config(admin_port=9000), child) for child in (0, 1, 2)] == [9000, 9001, 9002]
    assert admin_port(Config(), 3) == 0
