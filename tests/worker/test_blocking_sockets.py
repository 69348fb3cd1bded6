"""What a task does to the connections and pipes of its worker, other than to close them."""

from __future__ import annotations

import os
import signal
import socket
import sys

import pytest

from mrq_core.contract.record import Status
from mrq_core.worker.reporting.process_memory import children_of
from tests.support import Project, until

CHANGING = """
import gc, os, socket, struct, subprocess, time
from mrq_core import set_current_job_progress, task
from tasks import note


def open_ones():
    for number in range(3, 200):
        try:
            yield number, os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            pass


def connections():
    for number, kind in open_ones():
        if kind.startswith("socket:"):
            found = socket.socket(fileno=os.dup(number))
            try:
                if found.family in (socket.AF_INET, socket.AF_INET6) and not found.getsockopt(
                    socket.SOL_SOCKET, socket.SO_ACCEPTCONN
                ):
                    yield found
            finally:
                found.close()


@task
def changes(how):
    match how:
        case "os.set_blocking":
            for number, _ in open_ones():
                os.set_blocking(number, True)
        case "setblocking":
            for one in gc.get_objects():
                if isinstance(one, socket.socket):
                    one.setblocking(True)
                    one._sock.setblocking(True)
        case "timeouts":
            for one in connections():
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 1000))
                one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 1000))
        case "shutdown":
            for one in connections():
                try:
                    one.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
        case "inheritable":
            for number, _ in open_ones():
                os.set_inheritable(number, True)
            child = subprocess.Popen(["sleep", "300"], close_fds=False, start_new_session=True)
            note(child.pid)
        case "standard":
            for number in (1, 2):
                os.set_blocking(number, False)
    time.sleep(0.3)


@task
def standard_streams_block():
    return [os.get_blocking(number) for number in (1, 2)]


@task(isolate=True)
def goes_on():
    note("goes_on")
    while not os.path.exists("tell"):
        time.sleep(0.02)
    set_current_job_progress(0.5)
    while not os.path.exists("end"):
        time.sleep(0.02)


@task(isolate=True)
def solo():
    return os.getpid()
"""


@pytest.fixture(autouse=True)
def changing_tasks(project: Project) -> None:
    project.write("changing.py", CHANGING)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how", ["os.set_blocking", "shutdown", "setblocking", "timeouts"])
def test_a_worker_goes_on_after_a_task_has_changed_its_connections(project: Project, how: str) -> None:
    solo = project.queue("changing.goes_on")
    port = free_port()
    worker = project.worker("--greenlets", "3", "--admin-port", str(port))
    until(lambda: project.ledger() == ["goes_on"], what="the solo job to run")
    with socket.create_connection(("127.0.0.1", port)):  # the worker waits for its request
        assert project.ended(project.queue("changing.changes", {"how": how})).status == Status.SUCCESS
        (project.path / "tell").touch()
        until(lambda: project.client.fetch(solo).progress == 0.5, what="the progress", patience=10)
        for _ in range(3):
            noted = project.queue("tasks.noted", {"word": "a"})
            assert project.job(noted).wait(10).status == Status.SUCCESS
    (project.path / "end").touch()
    assert project.job(solo).wait(10).status == Status.SUCCESS
    with socket.create_connection(("127.0.0.1", port), timeout=10) as asking:
        asking.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert asking.recv(5) == b"HTTP/"
    worker.send(signal.SIGTERM)
    assert worker.wait(10) == 0
    if how == "os.set_blocking":
        assert "descriptor.unblocked" in worker.output


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_whose_descriptors_a_child_of_a_task_has_inherited_ends_with_all_of_its_own(
    project: Project,
) -> None:
    worker = project.start("worker", "--processes", "1", "--greenlets", "2", "--stop-grace", "0")
    assert project.ended(project.queue("changing.solo")).status == Status.SUCCESS
    assert project.ended(project.queue("changing.changes", {"how": "inheritable"})).status == Status.SUCCESS
    child = int(project.ledger()[0])
    try:
        (process,) = children_of(worker.pid)
        servers = children_of(process)
        assert len(servers) == 2  # the child is one of them
        os.kill(process, signal.SIGKILL)
        gone = set(servers) - {child}
        until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in gone), what="the fork server to end")
        until(lambda: children_of(worker.pid) not in ([], [process]), what="another worker process")
        assert project.ended(project.queue("tasks.noted", {"word": "a"})).status == Status.SUCCESS
        worker.send(signal.SIGTERM)
        assert worker.wait(10) == 0
    finally:
        os.kill(child, signal.SIGKILL)


def test_later_jobs_have_blocking_standard_streams(project: Project) -> None:
    project.worker()
    assert project.ended(project.queue("changing.changes", {"how": "standard"})).status == Status.SUCCESS
    assert project.ended(project.queue("changing.standard_streams_block")).result == [True, True]


def test_sockets_that_a_job_makes_and_closes_are_none_of_the_worker(project: Project) -> None:
    project.write(
        "closing.py",
        """
        import socket
        import time
        from mrq_core import task


        @task
        def closes(seconds: float):
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                one, other = socket.socketpair()
                one.setblocking(True)
                one.close()
                other.close()
        """,
    )
    project.queue("closing.closes", {"seconds": 2})
    worker = project.work_off()
    assert "descriptor.unblocked" not in worker.output
    assert "thread.broke" not in worker.output
