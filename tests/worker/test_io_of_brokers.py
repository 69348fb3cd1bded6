"""With TRACE_IO, calls of the broker count for a job if its code makes them: those of the worker do not."""

from __future__ import annotations

from tests.support import Project

TASKS = """
import time

from mrq_core import queue_job, set_current_job_progress, task


@task
def enqueues():
    for _ in range(3):
        queue_job("tasks.Add", {"a": 1, "b": 2}, queue="other")


@task
def rests():
    set_current_job_progress(0.5)
    time.sleep(1.2)


@task(isolate=True)
def rests_alone():
    time.sleep(0.1)
"""


def test_only_calls_of_the_job_count_and_its_log_keeps_the_totals(project: Project) -> None:
    project.write("calling.py", TASKS)
    rests = [project.queue(f"calling.{name}") for name in ("rests", "rests_alone")]
    enqueues = project.queue("calling.enqueues")
    project.work_off("--trace-io", "-g", "3")
    assert [project.log_of(job) for job in rests] == [[], []]
    [line] = project.log_of(enqueues)
    scheme = project.address.broker.partition(":")[0]
    assert line.startswith("I/O: "), line
    assert f"{scheme} " in line
