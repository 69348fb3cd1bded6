"""What a task's code can reach while it runs, and the log that it leaves."""

from __future__ import annotations

import re
import socket

import pytest

from mrq_core.contract.record import Status
from mrq_core.running.helpers import subpool_map
from mrq_core.running.job_log import JobLog
from tests.support import Project, until

CONTEXT_TASKS = """
import datetime
import logging
import sys
import time
import gevent
from mrq_core import (
    Job, Task, get_current_config, get_current_job, get_current_worker, log, queue_job, run_task,
    set_current_job_progress, spawn, subpool_map, task,
)


class Inner(Task):
    def run(self, params):
        return {"main": self.is_main_task, "job": get_current_job().id, **params}


class Outer(Task):
    def run_wrapped(self, params):
        log.info("before")
        try:
            return self.run(params)
        finally:
            log.info("after")

    def run(self, params):
        return {"main": self.is_main_task, "inner": run_task("ctx.Inner", {"x": 1})}


@task
def who():
    job = get_current_job()
    return {
        "id": job.id,
        "same": job.fetch().id == job.id,
        "status": str(job.fetch().status),
        "worker": get_current_worker().name,
        "mine": get_current_config()["MY_OWN"],
        "greenlets": get_current_config()["GREENLETS"],
    }


@task
def mapped(n: int):
    def square(i):
        log.info("item %d", i)
        time.sleep(0.001 * (n - i))
        return [i * i, get_current_job().id]
    return subpool_map(4, square, range(n))


@task
def mapped_failure():
    def step(i):
        if i == 3:
            raise LookupError(f"item {i}")
        time.sleep(0.01)
        return i
    return subpool_map(2, step, range(1000))


@task
def spawns():
    def inside():
        log.info("from spawn")
    def foreign():
        logging.info("from a foreign greenlet")
    spawn(inside).join()
    gevent.spawn(foreign).join()
    return get_current_job().id


@task
def chatty(name: str, lines: int):
    for n in range(lines):
        (log if n % 2 else logging.getLogger("some.library")).info("%s %d", name, n)
        time.sleep(0)


@task
def slow_progress():
    import os
    log.info("at work")
    set_current_job_progress(0.25)
    while not os.path.exists("go"):
        time.sleep(0.01)
    try:
        set_current_job_progress(2)
    except ValueError as error:
        log.warning("%s", error)


@task
def odd_logs():
    log.info(b"\\xff\\x00 bytes")
    log.info("surrogate \\udcff and NUL \\x00")
    log.info("two\\nlines")
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("caught")
    log.info("%s %s", "too few arguments")
    log.debug("not at this level")
    odd = dict(msg="made by hand", levelno=20, levelname="INFO")
    for created in (None, "2020-01-01", datetime.datetime.now()):
        logging.getLogger().handle(logging.makeLogRecord(odd | {"created": created}))


@task
def shouts():
    for n in range(100):
        log.info("%d %s", n, "x" * 100)


@task
def shouts_once(size: int):
    log.info("begin %s end", "ü" * (size // 2))
    log.info("after")


@task
def parent(n: int):
    return [queue_job("tasks.Add", {"a": i, "b": 1}) for i in range(n)]
"""


def run(project: Project, path: str, params: dict[str, object] | None = None, *flags: str) -> str:
    project.write("ctx.py", CONTEXT_TASKS)
    project.write("mrq-config.py", "MY_OWN = {'a': 1}")
    job = project.queue(path, params)
    project.work_off(*flags)
    return job


def test_the_context_gives_job_worker_and_configuration(project: Project) -> None:
    job = run(project, "ctx.who", None, "--greenlets", "7", "--name", "me")
    result = project.ended(job).result
    assert isinstance(result, dict)
    assert str(result.pop("worker")).startswith(f"me.{socket.gethostname()}.")
    assert result == {
        "id": job,
        "same": True,
        "status": "started",
        "mine": {"a": 1},
        "greenlets": 7,
    }


def test_run_task_runs_another_task_inside_the_job(project: Project) -> None:
    job = run(project, "ctx.Outer")
    assert project.ended(job).result == {"main": True, "inner": {"main": False, "job": job, "x": 1}}
    assert project.log_of(job) == ["before", "after"]


def test_subpool_map_gives_results_in_order_and_each_greenlet_the_job(project: Project) -> None:
    job = run(project, "ctx.mapped", {"n": 20})
    assert project.ended(job).result == [[i * i, job] for i in range(20)]
    assert sorted(project.log_of(job)) == sorted(f"item {i}" for i in range(20))


def test_subpool_map_raises_what_one_greenlet_raised(project: Project) -> None:
    record = project.ended(run(project, "ctx.mapped_failure"))
    assert (record.status, record.exception_type) == (Status.FAILED, "LookupError")


def test_a_spawned_greenlet_logs_to_the_job_and_a_foreign_one_does_not(project: Project) -> None:
    job = run(project, "ctx.spawns")
    assert project.log_of(job) == ["from spawn"]


def test_a_task_can_queue_jobs(project: Project) -> None:
    job = run(project, "ctx.parent", {"n": 3}, "--greenlets", "2")
    children = project.ended(job).result
    assert isinstance(children, list)
    assert [project.ended(str(child)).result for child in children] == [1, 2, 3]


def test_logs_of_jobs_side_by_side_stay_apart_and_in_order(project: Project) -> None:
    project.write("ctx.py", CONTEXT_TASKS)
    jobs = {f"j{n}": project.queue("ctx.chatty", {"name": f"j{n}", "lines": 50}) for n in range(5)}
    project.work_off("--greenlets", "5")
    for name, job in jobs.items():
        assert project.log_of(job) == [f"{name} {n}" for n in range(50)]


def test_logs_and_progress_can_be_read_while_the_job_runs(project: Project) -> None:
    project.write("ctx.py", CONTEXT_TASKS)
    job = project.queue("ctx.slow_progress")
    project.worker()
    until(lambda: project.log_of(job) == ["at work"], what="the first log line")
    until(lambda: project.client.fetch(job).progress == 0.25, what="the progress")
    project.write("go", "")
    assert project.ended(job).progress == 1.0
    assert project.log_of(job) == ["at work", "the progress is 2: expected a number from 0 to 1"]


def test_mrq_jobs_logs_follow_shows_lines_until_the_job_ends(project: Project) -> None:
    project.write("ctx.py", CONTEXT_TASKS)
    job = project.queue("ctx.slow_progress")
    project.worker()
    following = project.start("jobs", "logs", job, "--follow")
    following.until_output("at work")
    project.write("go", "")
    assert following.wait() == 0
    assert "expected a number from 0 to 1" in following.output


def test_a_pool_may_be_larger_than_gevent_counts() -> None:
    assert subpool_map(10**20, str, [1, 2]) == ["1", "2"]


def test_odd_log_lines_are_kept_printable_and_the_job_goes_on(project: Project) -> None:
    job = run(project, "ctx.odd_logs")
    assert project.ended(job).status == Status.SUCCESS
    lines = project.log_of(job)
    assert lines[:3] == ["b'\\xff\\x00 bytes'", "surrogate \\udcff and NUL \\x00", "two\nlines"]
    assert lines[3].startswith("caught\nTraceback")
    assert "ZeroDivisionError" in lines[3]
    assert not any("not at this level" in line for line in lines)
    assert lines[-3:] == ["made by hand"] * 3


def test_a_log_is_cut_at_its_limit_with_a_line_that_says_so(project: Project) -> None:
    job = run(project, "ctx.shouts", None, "--max-log-size", "1000")
    lines = project.log_of(job)
    assert 5 < len(lines) < 15
    assert "MAX_LOG_SIZE" in lines[-1]
    assert lines[0].startswith("0 x")


@pytest.mark.parametrize("size", [2_000, 20_000_000])
def test_a_line_that_does_not_fit_in_the_log_keeps_its_beginning_and_its_end(
    project: Project, size: int
) -> None:
    limit = "1000" if size == 2_000 else "40000000"
    job = run(project, "ctx.shouts_once", {"size": size}, "--max-log-size", limit)
    lines = project.log_of(job)
    assert re.fullmatch(r"begin ü*\n\[\.\.\. [0-9,]+ bytes are left out \.\.\.\]\nü* end", lines[0])
    if size == 2_000:
        assert 850 < sum(len(line.encode()) for line in lines) <= 1000
        assert lines[1:] == ["the log of this job is longer than MAX_LOG_SIZE: what follows is not kept"]
    else:  # more than a document of MongoDB has room for
        assert 8_000_000 < len(lines[0].encode()) <= 8_388_608
        assert lines[1:] == ["after"]


def test_a_log_has_room_for_thousands_of_short_lines_not_for_all_of_a_tight_loop() -> None:
    log = JobLog("0" * 24, 1, 1_048_576)
    for _ in range(50_000):
        log.write("INFO", "l", 0)
    assert 10_000 < len(log.lines()) < 20_000
