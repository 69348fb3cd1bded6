"""`mrq worker --processes N`: a parent runs N workers, replaces them, and stops with them."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from mrq_core.contract.record import Status
from mrq_core.worker.guards.process_end import LEAVE_WITHIN
from tests.support import LOAD, Project, tree_of, until
from tests.worker.parents import (
    SETTINGS,
    SLOW_IN_WORKERS,
    TASKS,
    is_running,
    start_parent,
    until_started,
    workers_of,
)

ORPHANS_END_WITHIN = 5.0
SECONDS: dict[str, dict[str, object]] = {
    "owned.pid": {"seconds": 1000}, "owned.solo": {}, "owned.holds_gil_long": {}
}  # fmt: skip


@pytest.fixture(autouse=True)
def _tasks(project: Project) -> None:
    project.write("owned.py", TASKS)


def test_each_worker_has_a_name_and_a_report(project: Project) -> None:
    parent = start_parent(project, number=3)
    pids = workers_of(parent.pid)
    assert len(pids) == 3
    assert [os.getsid(pid) for pid in pids] == pids
    found: list[dict[str, Any]] = []

    def are_listed() -> bool:
        found[:] = json.loads(project.mrq("workers", "list", "--json"))
        return len(found) == 3

    until(are_listed, what="three reports")
    assert sorted(report["pid"] for report in found) == sorted(pids)
    assert len({report["name"] for report in found}) == 3


def test_all_workers_run_jobs(project: Project) -> None:
    parent = start_parent(project)
    jobs = [project.queue("owned.pid", {"seconds": 1}) for _ in range(2)]
    assert {project.ended(job).result for job in jobs} == set(workers_of(parent.pid))


RECORDER = """
import os, sys

class Recorder:
    def find_spec(self, name, *more):
        with open(f"imports-{os.getpid()}", "a") as file:
            file.write(name + "\\n")

with open(f"imports-{os.getpid()}", "w") as file:
    file.write("\\n".join(sys.modules) + "\\n")
sys.meta_path.insert(0, Recorder())
print("the config file prints", flush=True)
"""
HEAVY = ("gevent", "greenlet", "sqlite3", "redis", "pymongo", "mrq_core.embedded", "mrq_broker_redis")


def imported(project: Project, pid: int) -> set[str]:
    return set((project.path / f"imports-{pid}").read_text().split())


@pytest.mark.parametrize("is_in_file", [False, True])
def test_the_parent_imports_neither_gevent_nor_a_driver(project: Project, is_in_file: bool) -> None:
    project.write("mrq-config.py", f"{RECORDER}\nPROCESSES = {2 if is_in_file else 0}\n")
    parent = project.start("worker", *SETTINGS, *([] if is_in_file else ["-p", "2"]))
    until_started(parent, 2)
    pids = workers_of(parent.pid)
    parent.send(signal.SIGTERM)
    assert parent.wait() == 0
    names = imported(project, parent.pid)
    assert "mrq_core.worker.processes.parent" in names
    assert [name for name in names if name.startswith((*HEAVY, "mrq_core.worker.worker"))] == []
    for pid in pids:
        names = imported(project, pid)
        assert "gevent" in names
        assert [name for name in names if name.startswith(("typer", "click", "pydantic"))] == []
    assert parent.output.count("the config file prints") == (4 if is_in_file else 3)


# --- stopping -------------------------------------------------------------------------------------


def test_the_signal_of_a_rotated_log_does_no_harm_to_a_parent_and_a_scheduler(project: Project) -> None:
    parent = start_parent(project)
    scheduler = project.start("scheduler")
    scheduler.until_output("scheduler.started")
    assert has_handler(scheduler.pid, signal.SIGUSR1)
    for process in (parent, scheduler):
        process.send(signal.SIGUSR1)
    job = project.queue("owned.pid")
    assert project.ended(job).status == "success"
    for process in (parent, scheduler):
        assert process.popen.poll() is None
        process.send(signal.SIGINT)
        assert process.wait() == 0


def has_handler(pid: int, signum: signal.Signals) -> bool:
    """Whether the process ignores or handles the signal."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigIgn", "SigCgt"))]
    return any(mask >> signum - 1 & 1 for mask in masks)


def test_sigint_finishes_what_runs_and_takes_nothing_new(project: Project) -> None:
    running = [project.queue("owned.pid", {"seconds": 1}) for _ in range(2)]
    parent = start_parent(project)
    until(lambda: len(project.ledger()) == 2, what="both jobs to start")
    parent.send(signal.SIGINT)
    until(lambda: parent.output.count("worker.stopping") == 2, what="both workers to hear of it")
    waiting = project.queue("owned.pid")
    assert parent.wait() == 0
    assert [project.client.fetch(job).status for job in running] == [Status.SUCCESS] * 2
    assert project.client.fetch(waiting).claims == 0


@pytest.mark.parametrize(
    "signals",
    [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM,), (signal.SIGTERM, signal.SIGTERM), (signal.SIGHUP,)],
)
def test_a_second_sigint_or_a_sigterm_interrupts_what_runs(
    project: Project, signals: tuple[signal.Signals, ...]
) -> None:
    jobs = [project.queue("owned.pid", {"seconds": 1000}) for _ in range(2)]
    parent = start_parent(project)
    until(lambda: len(project.ledger()) == 2, what="both jobs to start")
    since = time.monotonic()
    for signum in signals:
        parent.send(signum)
        parent.until_output(f"processes.stopping on {signum.name}")
    assert parent.wait() == 0
    assert time.monotonic() - since < LEAVE_WITHIN + LOAD
    for job in jobs:
        record = project.client.fetch(job)
        assert (record.status, record.lost_claims, record.claims) == (Status.INTERRUPT, 0, 1)
    assert "Traceback" not in parent.output


def test_a_job_has_stop_grace_to_end_after_sigterm(project: Project) -> None:
    job = project.queue("owned.pid", {"seconds": 1})
    late = project.queue("owned.pid", {"seconds": 1000})
    parent = start_parent(project, "--stop-grace", "2")
    until(lambda: len(project.ledger()) == 2, what="both jobs to start")
    since = time.monotonic()
    parent.send(signal.SIGTERM)
    parent.send(signal.SIGTERM)
    assert parent.wait() == 0
    assert 2 <= time.monotonic() - since < 2 + LEAVE_WITHIN + LOAD
    assert project.client.fetch(job).status == Status.SUCCESS
    assert project.client.fetch(late).status == Status.INTERRUPT


def test_sigint_to_all_processes_does_not_count_twice(project: Project) -> None:
    job = project.queue("owned.pid", {"seconds": 2})
    parent = start_parent(project, number=1)
    (pid,) = until(project.ledger, what="the job to start")
    parent.send(signal.SIGINT)
    parent.until_output("worker.stopping on a command of its parent")
    os.kill(int(pid), signal.SIGINT)
    parent.until_output("worker.stopping on SIGINT")
    assert parent.wait() == 0
    assert project.client.fetch(job).status == Status.SUCCESS


@pytest.mark.parametrize("signals", [(signal.SIGTERM,), (signal.SIGINT, signal.SIGINT)])
@pytest.mark.parametrize("path", ["owned.holds_gil_long", "owned.pid"])
def test_a_worker_that_does_not_respond_is_killed_when_the_parent_stops(
    project: Project, path: str, signals: tuple[signal.Signals, ...]
) -> None:
    project.queue(path, SECONDS[path])
    parent = start_parent(project, number=1)
    (pid,) = until(project.ledger, what="the job to start")
    if path == "owned.pid":
        os.kill(int(pid), signal.SIGSTOP)
    since = time.monotonic()
    for signum in signals:
        parent.send(signum)
        parent.until_output(f"processes.stopping on {signum.name}")
    assert parent.wait() == 0
    assert time.monotonic() - since < LEAVE_WITHIN + 0.5 + LOAD
    assert not is_running(int(pid))
    assert "process.killed" in parent.output


# --- replacing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_ends_is_replaced(project: Project, signum: signal.Signals) -> None:
    parent = start_parent(project)
    first, second = workers_of(parent.pid)
    os.kill(first, signum)
    until_started(parent, 3)
    assert second in workers_of(parent.pid)
    assert first not in workers_of(parent.pid)
    assert len(workers_of(parent.pid)) == 2
    assert ("process.died" in parent.output) == (signum in (signal.SIGKILL, signal.SIGSEGV))


def test_a_worker_that_reached_max_jobs_is_replaced_also_in_a_burst(project: Project) -> None:
    jobs = [project.queue("owned.pid", {"seconds": 0.1}) for _ in range(6)]
    parent = project.start("worker", "-p", "2", "--burst", "--max-jobs", "2", "--max-latency", "0.05")
    assert parent.wait() == 0
    pids = [project.client.fetch(job).result for job in jobs]
    assert None not in pids
    assert len(set(pids)) >= 3
    assert max(map(pids.count, pids)) <= 2


def test_a_worker_that_reached_max_time_is_replaced(project: Project) -> None:
    parent = start_parent(project, "--max-time", "1", number=1)
    until_started(parent, 3)
    assert "process.failed" not in parent.output


def test_a_worker_that_reached_max_memory_is_replaced(project: Project) -> None:
    parent = start_parent(project, "--max-memory", "200", number=1)
    project.ended(project.queue("owned.grows"))
    until_started(parent, 2)
    assert str(workers_of(parent.pid)[0]) not in project.ledger()


def test_a_burst_ends_with_its_last_worker(project: Project) -> None:
    jobs = [project.queue("owned.pid") for _ in range(20)]
    parent = project.work_off("--processes", "3")
    assert [project.client.fetch(job).status for job in jobs] == [Status.SUCCESS] * 20
    assert parent.output.count("its burst is over") == 3


def test_a_worker_that_dies_in_a_burst_is_replaced(project: Project) -> None:
    project.queue("owned.pid", {"seconds": 1000})
    waiting = project.queue("owned.pid")
    parent = project.start("worker", "-p", "1", "--burst", *SETTINGS)
    (pid,) = until(project.ledger, what="the first job to start")
    os.kill(int(pid), signal.SIGKILL)
    assert parent.wait() == 0
    assert project.client.fetch(waiting).status == Status.SUCCESS


def test_a_worker_whose_gil_is_held_past_the_limit_is_killed_and_its_attempt_lost(project: Project) -> None:
    project.write("mrq-config.py", "TASKS = {'owned.holds_gil': {'at_most_once': True}}")
    job = project.mrq("run", "owned.holds_gil", "--async").strip()
    parent = start_parent(project, "--lease", "2")
    beside = project.queue("owned.pid", {"seconds": 5})
    record = project.ended(job)
    assert (record.status, record.lost_claims) == (Status.FAILED, 1)
    (pid,) = (word for word in project.ledger() if int(word) != project.ended(beside).result)
    until(lambda: not is_running(int(pid)), what="the worker to be killed")
    until_started(parent, 3)
    assert project.client.fetch(beside).lost_claims == 0
    assert "it does not respond" in parent.output


def test_a_worker_that_its_first_job_suspends_beside_others_is_killed(project: Project) -> None:
    project.write(
        "suspends.py",
        """
        import os
        import signal
        import time
        from mrq_core import task

        @task(timeout=1)
        def suspends():
            if not os.path.exists("suspended"):
                open("suspended", "w").close()
                os.kill(os.getpid(), signal.SIGSTOP)

        @task(timeout=5)
        def beside():
            time.sleep(0.1)
        """,
    )
    jobs = [project.queue("suspends.suspends"), *(project.queue("suspends.beside") for _ in range(3))]
    parent = start_parent(project, "--greenlets", "3", "--lease", "2", number=1)
    parent.until_output("it does not respond")
    assert [project.ended(job).status for job in jobs] == [Status.SUCCESS] * 4


def test_a_worker_that_gives_itself_up_is_replaced(project: Project) -> None:
    job = project.queue("owned.in_c_code")
    parent = start_parent(project, number=1)
    assert project.ended(job).status == Status.TIMEOUT
    until_started(parent, 2)
    assert "process.died" in parent.output
    assert "process.killed" not in parent.output


# --- orphans --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["owned.pid", "owned.solo"])
def test_workers_interrupt_at_once_when_their_parent_is_killed(project: Project, path: str) -> None:
    jobs = [project.queue(path, SECONDS[path]) for _ in range(2)]
    parent = start_parent(project)
    until(lambda: len(project.ledger()) == 2, what="both jobs to start")
    processes = tree_of(parent.pid)
    assert set(map(int, project.ledger())) <= set(processes)
    since = time.monotonic()
    os.kill(parent.pid, signal.SIGKILL)
    until(lambda: not any(map(is_running, processes)), what="all processes to end")
    assert time.monotonic() - since < ORPHANS_END_WITHIN
    assert [project.client.fetch(job).status for job in jobs] == [Status.INTERRUPT] * 2


@pytest.mark.parametrize("path", ["owned.holds_gil_long", "owned.pid"])
def test_a_worker_that_does_not_respond_is_no_orphan_either(project: Project, path: str) -> None:
    project.queue(path, SECONDS[path])
    parent = start_parent(project, number=1)
    (pid,) = until(project.ledger, what="the job to start")
    processes = tree_of(parent.pid)
    if path == "owned.pid":
        os.kill(int(pid), signal.SIGSTOP)
    since = time.monotonic()
    os.kill(parent.pid, signal.SIGKILL)
    until(lambda: not any(map(is_running, processes)), what="all processes to end")
    assert time.monotonic() - since < ORPHANS_END_WITHIN


def test_a_worker_that_starts_is_no_orphan(project: Project) -> None:
    project.write("mrq-config.py", SLOW_IN_WORKERS)
    parent = project.start("worker", "-p", "2")
    until((project.path / "loading").exists, what="a worker to start")
    processes = tree_of(parent.pid)
    since = time.monotonic()
    os.kill(parent.pid, signal.SIGKILL)
    until(lambda: not any(map(is_running, processes)), what="all processes to end")
    assert time.monotonic() - since < ORPHANS_END_WITHIN
