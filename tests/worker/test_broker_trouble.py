"""What a worker does when the file of its broker is locked, full, or not what it should be."""

from __future__ import annotations

import json
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from mrq_core.contract.record import Status
from mrq_core.operations.workers import list_workers
from tests.support import Project, until

pytestmark = pytest.mark.parametrize("project", ["sqlite"], indirect=True)


def database(project: Project) -> Path:
    return project.path / "jobs.sqlite3"


def test_a_locked_file_loses_nothing_and_the_worker_goes_on(project: Project) -> None:
    jobs = [project.queue("tasks.noted", {"word": f"w{n}", "seconds": 0.2}) for n in range(3)]
    worker = project.worker("--greenlets", "3", "--broker-timeout", "0.2", "--lease", "30")
    until(lambda: len(project.ledger()) >= 3, what="the jobs to start")
    lock = sqlite3.connect(database(project), isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    try:
        until(lambda: len(project.ledger()) == 6, what="the jobs to end")
        worker.until_output("broker.away")
        assert "locked" in worker.output
    finally:
        lock.execute("ROLLBACK")
        lock.close()
    assert [project.ended(job).status for job in jobs] == [Status.SUCCESS] * 3
    assert [project.ended(job).claims for job in jobs] == [1] * 3
    assert project.ended(project.queue("tasks.Add", {"a": 1, "b": 1})).result == 2
    assert worker.popen.poll() is None


FILLING = """
import time
from mrq_core import task
from tasks import note


@task
def noted_while_full():
    note("start-w")
    time.sleep(0.5)
    note("end-w")
"""


def test_a_full_disk_loses_nothing_and_the_worker_goes_on(project: Project) -> None:
    # No file of the worker may grow any more: to it, the disk is full. Its tiny ledger still fits. A
    # limit that a module sets on import stays.
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (4096, {hard}))\n"
    project.write("filling.py", limit + FILLING)
    job = project.queue("filling.noted_while_full")
    worker = project.worker("--lease", "30")
    try:
        until(lambda: project.ledger() == ["start-w", "end-w"], what="the job to end")
        worker.until_output("broker.away")
        assert project.client.fetch(job).status == Status.STARTED
    finally:
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (hard, hard))
    assert project.ended(job).status == Status.SUCCESS
    assert project.ended(job).claims == 1
    assert worker.popen.poll() is None


def test_a_file_that_breaks_under_a_worker_is_named_and_the_worker_stays(project: Project) -> None:
    project.queue("tasks.fail", queue="elsewhere")
    worker = project.worker("--lease", "30")
    other = sqlite3.connect(database(project), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("UPDATE numbers SET value = value")
    # Written over, not made anew: the index of the write-ahead log is mapped into memory. By another process:
    # this one uses the database.
    write = "import sys\nfor path in sys.argv[1:]:\n  open(path, 'r+b').write(b'garbage' * 4096)"
    files = [database(project), project.path / "jobs.sqlite3-wal"]
    subprocess.run([sys.executable, "-c", write, *files], check=True)
    other.execute("COMMIT")  # after which the worker has to read again what it has in memory
    worker.until_output(".failed")  # claim, or housekeeping: whichever meets a broken page first
    assert "jobs.sqlite3" in worker.output
    assert "Traceback" not in worker.output
    assert worker.popen.poll() is None
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    other.close()


def start_fails(project: Project, *words: str, code: int = 1) -> None:
    worker = project.start("worker")
    assert worker.wait() == code
    assert "Traceback" not in worker.output
    for word in words:
        assert word in worker.output


def test_a_worker_does_not_start_on_a_file_that_is_no_database(project: Project) -> None:
    database(project).write_bytes(b"this is not a database, but some other file" * 100)
    start_fails(project, "jobs.sqlite3")
    assert database(project).read_bytes().startswith(b"this is not")


def test_a_worker_does_not_start_on_a_foreign_database(project: Project) -> None:
    other = sqlite3.connect(database(project))
    other.execute("CREATE TABLE customers (name)")
    other.close()
    start_fails(project, "jobs.sqlite3")


def test_a_worker_does_not_start_on_the_file_of_a_newer_version(project: Project) -> None:
    project.queue("tasks.fail")
    newer = sqlite3.connect(database(project))
    newer.execute("PRAGMA user_version = 1000")
    newer.execute("UPDATE numbers SET value = 900 WHERE name = 'oldest_version'")
    newer.commit()
    newer.close()
    start_fails(project, "1000", "upgrade mrq")


def test_a_worker_does_not_start_where_the_file_is_a_folder(project: Project) -> None:
    database(project).mkdir()
    start_fails(project, "jobs.sqlite3", code=2)


def test_a_worker_reports_itself_and_is_listed_as_stopped_afterwards(project: Project) -> None:
    worker = project.worker("--name", "seen", "--greenlets", "3")
    job = project.queue("tasks.noted", {"word": "x", "seconds": 1000})
    report = until(lambda: [w for w in list_workers(project.client.broker) if w.running], what="a report")[0]
    assert (report.name, report.pid, report.greenlets) == (
        f"seen.{socket.gethostname()}.{worker.pid}",
        worker.pid,
        3,
    )
    assert [running.id for running in report.running] == [job]
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    [last] = list_workers(project.client.broker)
    assert (last.name, last.status, last.running, last.is_at_work) == (report.name, "stop", (), False)
    assert last.jobs == {"interrupt": 1}
    [said] = json.loads(project.mrq("workers", "--json"))
    assert (said["status"], said["done_jobs"]) == ("stop", 1)


@pytest.mark.parametrize("arguments", [(), ("--burst",)])
def test_a_worker_does_not_start_on_a_file_that_can_be_read_and_not_written(
    project: Project, arguments: tuple[str, ...]
) -> None:
    project.queue("tasks.Add", {"a": 1, "b": 1})
    lock = sqlite3.connect(database(project), isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    try:
        worker = project.start("worker", "--broker-timeout", "0.2", *arguments)
        assert worker.wait() == 1
        assert "mrq: " in worker.output
        assert "locked by another process" in worker.output
        assert "worker.started" not in worker.output
    finally:
        lock.close()
