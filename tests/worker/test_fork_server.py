"""The fork server of a worker: what its end, its silence and its signals do to solo jobs."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from mrq_core.contract.record import Status
from tests.support import Project, until

FORKED = '''
import os, signal, socket, subprocess, sys, time
from mrq_core import task
from tasks import note


def start(**options):
    return subprocess.Popen(["sleep", "1000"], **options).pid


def daemon():
    code = """if True:
        import subprocess
        print(subprocess.Popen(["sleep", "1000"], start_new_session=True, stdout=subprocess.DEVNULL).pid)
    """
    return int(subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True).stdout)


@task(isolate=True)
def leave(how: str, seconds: float):
    child = daemon() if how == "daemon" else start(start_new_session=how == "session")
    note(f"{os.getpid()},{child}")
    time.sleep(seconds)


@task(memory="150MB")
def feed_a_daemon():
    code = """if True:
        import os, time
        if os.fork():
            os._exit(0)
        os.setsid()
        taken = bytearray(250_000_000)
        time.sleep(1000)
    """
    subprocess.run([sys.executable, "-c", code], check=True)
    time.sleep(1000)


@task(isolate=True)
def write_everywhere():
    for descriptor in range(5, 64):
        try:
            socket.socket(fileno=os.dup(descriptor)).detach()
        except OSError:
            continue
        note(f"a socket at {descriptor}")
        os.write(descriptor, b"garbage" * 100)


@task(isolate=True)
def nap(seconds: float):
    note(os.getpid())
    time.sleep(seconds)
    return "slept"


@task(isolate=True, at_most_once=True)
def nap_once(seconds: float):
    note(os.getpid())
    time.sleep(seconds)


@task(isolate=True, timeout=1)
def nap_too_long():
    note(os.getpid())
    time.sleep(1000)


@task(isolate=True)
def freeze_the_server():
    note(os.getpid())
    os.kill(os.getppid(), signal.SIGSTOP)


@task(isolate=True)
def signals_of_a_child():
    return subprocess.run(
        [sys.executable, "-c", "import signal; print(*map(signal.getsignal, (15, 1)))"],
        capture_output=True, text=True, check=True,
    ).stdout


@task
def write_to_the_server():
    for descriptor in range(3, 64):
        try:
            found = socket.socket(fileno=os.dup(descriptor))
        except OSError:
            continue
        if found.family == socket.AF_UNIX and found.type == socket.SOCK_STREAM:
            note(f"wrote to {descriptor}")
            try:
                os.write(descriptor, b"garbage" * 100)
            except OSError:
                pass
'''


@pytest.fixture
def forked(project: Project) -> Project:
    project.write("forked.py", FORKED)
    return project


@pytest.mark.parametrize("how", ["child", "session", "daemon"])
@pytest.mark.parametrize("end", ["the job's end", "SIGTERM", "SIGKILL"])
def test_nothing_that_a_solo_job_has_started_outlives_it(forked: Project, how: str, end: str) -> None:
    job = forked.queue("forked.leave", {"how": how, "seconds": 0 if end == "the job's end" else 1000})
    worker = forked.worker("--stop-grace", "0")
    until(forked.ledger, what="the job to start")
    pids = [int(pid) for pid in forked.ledger()[0].split(",")]
    if end == "the job's end":
        assert forked.ended(job).status is Status.SUCCESS
    else:
        worker.send(signal.Signals[end])
        worker.wait()
    for pid in pids:
        _gone(pid)


def test_a_child_in_another_session_counts_in_the_memory_of_its_job(forked: Project) -> None:
    job = forked.queue("forked.feed_a_daemon")
    forked.worker()
    assert forked.ended(job).exception_type == "mrq_core.errors.MemoryLimitExceeded"


def test_a_solo_job_reaches_no_descriptor_of_the_fork_server(forked: Project) -> None:
    job = forked.queue("forked.write_everywhere")
    forked.worker()
    assert forked.ended(job).status is Status.SUCCESS
    assert forked.ledger() == []
    later = forked.queue("forked.nap", {"seconds": 0})
    assert forked.ended(later).result == "slept"


def test_jobs_run_solo_after_code_has_written_to_the_fork_server(forked: Project) -> None:
    first = forked.queue("forked.nap", {"seconds": 0})
    forked.worker()
    assert forked.ended(first).result == "slept"
    assert forked.ended(forked.queue("forked.write_to_the_server")).status is Status.SUCCESS
    assert any(line.startswith("wrote") for line in forked.ledger())
    later = forked.queue("forked.nap", {"seconds": 0})
    assert forked.ended(later).result == "slept"


def test_the_end_of_the_fork_server_does_not_count_against_its_jobs(forked: Project) -> None:
    job = forked.queue("forked.nap", {"seconds": 2})
    once = forked.queue("forked.nap_once", {"seconds": 1000})
    worker = forked.worker("--greenlets", "2", "--solo-processes", "2", "--lease", "3")
    for starts in (2, 3, 4):
        until(lambda starts=starts: len(forked.ledger()) == starts, what=f"{starts} starts")  # type: ignore[misc]
        _server_of(worker.pid).kill()
    record = forked.ended(job)
    assert (record.status, record.solo_deaths) == (Status.SUCCESS, 0)
    assert record.claims in (4, 5)  # after the third loss it goes back for a lease
    record = forked.ended(once)
    assert (record.status, record.exception_type) == (Status.FAILED, "mrq_core.errors.ClaimLost")


def test_a_fork_server_that_stands_still_is_replaced(forked: Project) -> None:
    overdue = forked.queue("forked.nap_too_long")
    worker = forked.worker("--greenlets", "3", "--solo-processes", "3")
    until(forked.ledger, what="the job to start")
    server = _server_of(worker.pid)
    server.suspend()
    waiting = forked.queue("forked.nap", {"seconds": 0})
    assert forked.ended(overdue).status is Status.TIMEOUT
    assert forked.ended(waiting).result == "slept"
    _gone(server.pid)


SLOW_START = """
import os, pathlib, socket, sys
from mrq_core.worker.guards.patching import patch_all
patch_all()
from mrq_core.worker.solo import fork_server

fork_server._PATIENCE = 0.2
server = fork_server.ForkServer(["loaded_slowly"])
ours, theirs = socket.socketpair()
beats, beating = os.pipe()
errors = []
while len(errors) < 3:
    try:
        server.fork(theirs.fileno(), beating)
    except OSError as error:
        errors.append(str(error))
assert all("is not ready" in error for error in errors), errors
pathlib.Path("ready").touch()
fork_server._PATIENCE = 30
fork = server.fork(theirs.fileno(), beating)
given_up = len(server._given_up)
server.close()
print(given_up, fork.pid > 0)
"""


def test_a_fork_server_whose_imports_take_long_is_not_killed(tmp_path: Path) -> None:
    (tmp_path / "loaded_slowly.py").write_text(
        "import os, time\nwhile not os.path.exists('ready'):\n    time.sleep(0.01)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", SLOW_START], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("0 True\n", "")


def test_a_worker_stops_although_its_fork_server_stands_still(forked: Project) -> None:
    job = forked.queue("forked.freeze_the_server")
    worker = forked.worker("--stop-grace", "0")
    until(forked.ledger, what="the job to start")
    server = _server_of(worker.pid)
    until(lambda: server.status() == psutil.STATUS_STOPPED, what="the server to stand still")
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    _gone(server.pid)
    assert forked.client.fetch(job).status in (Status.SUCCESS, Status.INTERRUPT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_to_all_processes_of_a_service_end_its_solo_jobs_as_its_others(
    forked: Project, number: signal.Signals
) -> None:
    job = forked.queue("forked.nap", {"seconds": 1})
    worker = forked.worker("--stop-grace", "10")
    until(forked.ledger, what="the job to start")
    processes = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
    assert len(processes) == 3
    for process in processes[::-1]:
        process.send_signal(number)
    assert worker.wait() == 0
    assert forked.client.fetch(job).status is Status.SUCCESS


def test_programs_that_a_solo_job_starts_can_be_ended(forked: Project) -> None:
    job = forked.queue("forked.signals_of_a_child")
    forked.worker()
    assert str(forked.ended(job).result).split() == ["0", "0"]


def _server_of(worker: int) -> psutil.Process:
    [server] = psutil.Process(worker).children()
    return server


def _gone(pid: int) -> None:
    def is_gone() -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    until(is_gone, what=f"process {pid} to be gone")


def test_a_default_timeout_of_sockets_is_none_of_the_fork_server(project: Project) -> None:
    project.write(
        "quick.py",
        """
        import socket, time
        from mrq_core import task

        socket.setdefaulttimeout(0.3)

        @task(isolate=True, at_most_once=True)
        def nap():
            time.sleep(1.5)

        @task
        def nothing():
            pass
    """,
    )
    worker = project.worker("--greenlets", "2")
    project.ended(project.queue("quick.nothing"))  # the worker imports the module
    jobs = [project.queue("quick.nap") for _ in range(2)]
    assert [project.ended(job).status for job in jobs] == [Status.SUCCESS] * 2
    assert "solo.server_died" not in worker.output
