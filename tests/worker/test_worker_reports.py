"""What a worker reports about itself, and how a dead worker is told from a stopped one."""

from __future__ import annotations

import ipaddress
import json
import signal
import socket

from mrq_core.operations.workers import list_workers
from tests.support import Project, until


def test_a_killed_worker_is_dead_and_a_worker_that_stopped_is_not(project: Project) -> None:
    killed = project.worker("--name", "killed", "--report-interval", "0.5")
    stopped = project.worker("--name", "stopped", "--report-interval", "0.5")
    until(lambda: len(list_workers(project.client.broker)) == 2, what="the reports")
    killed.send(signal.SIGKILL)
    killed.wait()
    stopped.send(signal.SIGTERM)
    assert stopped.wait() == 0
    until(
        lambda: [one.status for one in list_workers(project.client.broker)] == ["dead", "stop"],
        what="the death",
    )
    name = f"killed.{socket.gethostname()}.{killed.pid}"
    assert {worker["name"]: worker["status"] for worker in json.loads(project.mrq("workers", "--json"))} == {
        name: "dead",
        f"stopped.{socket.gethostname()}.{stopped.pid}": "stop",
    }
    for which, state, error in (("killed", "dead", "is dead"), ("stopped", "stop", "has stopped")):
        shown = project.start("workers", "show", which)
        assert shown.wait() == 1
        assert f"  {state}\n" in shown.output
        assert error in shown.output
    project.queue("tasks.fail")
    said = project.mrq("explain", "default")
    assert "No worker claims from the queue default." in said
    assert f"{name} is dead." in said


def test_a_report_has_the_oldest_jobs_with_their_stacks_and_the_machine(project: Project) -> None:
    worker = project.worker("--greenlets", "30")
    jobs = [project.queue("tasks.noted", {"word": str(n), "seconds": 1000}) for n in range(25)]
    report = until(
        lambda: [
            w
            for w in list_workers(project.client.broker)
            if w.busy == 25 and w.usage > 0.1 and all(job.stack for job in w.running[:1])
        ],
        what="the jobs in the report",
    )[0]
    assert len(report.running) == 20
    assert {job.id for job in report.running} < set(jobs)
    ages = [job.age for job in report.running]
    assert ages == sorted(ages, reverse=True)
    stack = report.running[0].stack
    assert 0 < len(stack) <= 10
    assert [line for line in stack if "/tasks.py:" in line and line.endswith(" noted")]
    assert ipaddress.ip_address(report.ip)
    assert len(report.memory_history) == len(report.cpu_history)
    assert len(report.memory_history) in (1, 2)  # a sample each minute
    assert report.memory_history[0] > 1_000_000
    assert len(json.dumps(json.loads(project.mrq("workers", "show", report.name, "--json")))) < 16_000
    told = project.mrq("workers", "show", report.name)
    assert "25 of 30" in told
    assert "The oldest 20 of 25 running jobs" in project.mrq("workers", "show", report.name, errors=True)
    assert worker.popen.poll() is None
