"""TRACE_IO: a worker knows what the I/O of its running jobs waits for, and nothing of it without TRACE_IO."""

from __future__ import annotations

import json
import socket
import sqlite3
from collections.abc import Iterator

import pytest

from mrq_core.operations.workers import RunningJob, list_workers
from tests.support import Project, until

TASKS = """
import http.client
import os
import socket
import sys

import gevent
import gevent.socket
from mrq_core import spawn, task
from tasks import note

PORT = int(os.environ["SILENT"])


def redis():
    import redis
    return redis.Redis(host="127.0.0.1", port=PORT, socket_timeout=None)


def get():
    redis().get("user:42")


def ask():
    connection = http.client.HTTPConnection("127.0.0.1", PORT)
    connection.request("GET", "/path?token=hunter2")
    connection.getresponse()


@task
def command():
    get()


@task
def subclassed():
    import redis

    class Own(redis.Redis):
        def execute_command(self, *args, **options):
            return super().execute_command(*args, **options)

    Own(host="127.0.0.1", port=PORT, socket_timeout=None).set("user:43", "hunter2")


@task
def request():
    ask()


@task
def receive():
    socket.create_connection(("127.0.0.1", PORT)).recv(1)


@task
def in_greenlets():
    gevent.joinall([gevent.spawn(get), spawn(ask)])


@task
def odd():
    # Objects that raise when they are asked, in greenlets without the context of the job.
    import contextvars
    import redis

    class Odd(gevent.Greenlet):
        __hash__ = None
        spawning_greenlet = property(lambda self: 1 / 0)

        def __eq__(self, other):
            raise ValueError

    class Client(redis.Redis):
        connection_kwargs = property(lambda self: 1 / 0)

    class Key(str):
        def __str__(self):
            raise ValueError

    greenlet = Odd(gevent.sleep, 0)
    greenlet.start()
    greenlet.join()
    contextvars.Context().run(Client(host="127.0.0.1", port=PORT, socket_timeout=None).get, Key("odd"))


@task(isolate=True)
def alone():
    redis().get("solo")


@task
def kept_in():
    import sqlite3
    connection = sqlite3.connect(os.environ["LOCKED"], timeout=1000)
    note("kept")
    connection.execute("insert into orders values ('hunter2')")


@task
def swallows():
    connection = socket.create_connection(("127.0.0.1", PORT))
    for timeout in (gevent.Timeout(0.05), gevent.Timeout(0.05)):
        try:
            with timeout:
                redis().get("swallowed")
        except gevent.Timeout:
            pass
    connection.recv(1)


@task
def patched():
    import redis
    found = [redis.Redis.execute_command, http.client.HTTPConnection.getresponse]
    found += [gevent.socket.socket._wait, gevent.get_hub().resolver]
    modules = [type(one).__module__ if not hasattr(one, "__mrq_traces__") else "patched" for one in found]
    return modules + [name for name in sys.modules if name.startswith("mrq_core.debug.io_lib")]

"""


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as server:
        yield server.getsockname()[1]


@pytest.fixture(autouse=True)
def traced(project: Project, silent: int) -> None:
    project.env["SILENT"] = str(silent)
    project.env["LOCKED"] = str(project.path / "orders.sqlite3")
    project.write("traced.py", TASKS)


def waiting(project: Project, *names: str) -> dict[str, RunningJob]:
    """The running jobs of these tasks, by name, once each of them waits in a call."""
    seen: dict[str, RunningJob] = {}

    def is_known() -> bool:
        for worker in list_workers(project.client.broker):
            seen.update({job.path.removeprefix("traced."): job for job in worker.running})
        return all(name in seen and calls_of(seen[name]) for name in names)

    try:
        until(is_known, patience=20)
    except AssertionError:
        raise AssertionError(f"not all of {names} wait in a call: {seen}") from None
    return seen


def calls_of(job: RunningJob) -> list[str]:
    return [f"{call.kind} {call.text}" for call in job.io.calls] if job.io is not None else []


def seconds_of(job: RunningJob) -> float:
    assert job.io is not None
    return job.io.calls[0].seconds


def test_the_calls_of_running_jobs_are_reported(project: Project, silent: int) -> None:
    names = ("command", "subclassed", "request", "receive", "in_greenlets", "odd", "alone")
    for name in names:
        project.queue(f"traced.{name}")
    project.worker("--trace_io", "-g", "10", "--name", "web")
    jobs = waiting(project, *names)
    at = f"at 127.0.0.1:{silent}"
    assert calls_of(jobs["command"]) == [f"redis GET user:42 {at}"]
    assert calls_of(jobs["subclassed"]) == [f"redis SET user:43 {at}"]
    assert calls_of(jobs["request"]) == [f"http GET http://127.0.0.1:{silent}/path?..."]
    assert calls_of(jobs["receive"]) == [f"socket recv from 127.0.0.1:{silent}"]
    assert calls_of(jobs["odd"]) == [f"redis GET ? {at}"]
    assert calls_of(jobs["alone"]) == [f"redis GET solo {at}"]
    both = {f"redis GET user:42 {at}", f"http GET http://127.0.0.1:{silent}/path?..."}
    until(lambda: set(calls_of(waiting(project, "in_greenlets")["in_greenlets"])) == both, what="both calls")
    before = seconds_of(jobs["command"])
    until(lambda: seconds_of(waiting(project, "command")["command"]) > before, what="a longer call")
    told = project.mrq("stack", "web")
    assert f"  in redis GET user:42 {at}, for " in told
    assert f"  in redis GET solo {at}, for " in told
    assert "hunter2" not in json.dumps(json.loads(project.mrq("workers", "show", "web", "--json"))["running"])


def test_a_call_that_blocks_the_hub_is_reported(project: Project) -> None:
    with sqlite3.connect(project.env["LOCKED"]) as connection:
        connection.execute("create table orders (name)")
        connection.execute("begin exclusive")
        project.queue("traced.kept_in")
        project.worker("--trace-io")
        until(lambda: "kept" in project.ledger(), what="the job")
        assert calls_of(waiting(project, "kept_in")["kept_in"]) == ["sqlite INSERT on orders"]


def test_an_interrupted_call_is_over(project: Project, silent: int) -> None:
    job = project.queue("traced.swallows")
    project.worker("--trace-io")
    until(
        lambda: (
            calls_of(waiting(project, "swallows")["swallows"]) == [f"socket recv from 127.0.0.1:{silent}"]
        ),
        what="the last call",
    )
    io = waiting(project, "swallows")["swallows"].io
    assert io is not None
    assert io.totals["redis"].calls == 2
    assert project.client.fetch(job).status == "started"


def test_without_tracing_nothing_is_replaced_and_stacks_tell_peers(project: Project, silent: int) -> None:
    patched = project.queue("traced.patched")
    project.queue("traced.receive")
    project.worker("-g", "2", "--name", "web")
    record = project.ended(patched)
    assert isinstance(record.result, list)
    assert "patched" not in record.result
    assert [name for name in record.result if str(name).startswith("mrq_core.debug")] == []
    told = until(lambda: [text for text in [project.mrq("stack", "web")] if "waits: " in text], what="a peer")
    assert f"  waits: recv from 127.0.0.1:{silent}\n" in told[0]
    assert [job.io for worker in list_workers(project.client.broker) for job in worker.running] == [None]
