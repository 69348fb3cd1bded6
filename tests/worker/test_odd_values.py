"""Odd values that a task's code gives, and jobs that wait for jobs."""

from __future__ import annotations

import pytest

from tests.support import Project, until

ODD = """
import math
import pickle
from decimal import Decimal
from fractions import Fraction

from mrq_core import (
    Job, MrqError, Queue, Task, abort_current_job, get_current_config, get_current_job, log, queue_job,
    retry_current_job, run_task, set_current_job_progress, spawn, subpool_map, task,
)

class Unshowable:
    def __repr__(self):
        raise RuntimeError("no repr")

    __str__ = __repr__

class Zero:
    def __float__(self):
        return 0 / 0

class Other(Task):
    def run(self, params):
        return params["n"]

@task
def other(n: int):
    return n

ODDS = ["x", b"1", "0.5", math.nan, math.inf, -math.inf, -1, True, [1], 10**400, Unshowable(), Zero()]
COUNTS = ["1", -1, True, 1.0, math.nan, Unshowable()]
NAMES = ["", 5, "a\\0", "q" * 201, "x_raw", Unshowable()]
TASKS = [None, 5, Task, Task(), Other(), dict, len, Unshowable()]

CALLS = [
    *(("the progress is", lambda odd=odd: set_current_job_progress(odd)) for odd in ODDS + [2, None]),
    *(("the progress is", lambda odd=odd: get_current_job().set_progress(odd)) for odd in ODDS + [2, None]),
    *(("delay is", lambda odd=odd: retry_current_job(delay=odd)) for odd in ODDS),
    *(("max_retries is", lambda odd=odd: retry_current_job(max_retries=odd)) for odd in COUNTS),
    *(("queue is", lambda odd=odd: retry_current_job(queue=odd)) for odd in NAMES),
    *(("task is", lambda odd=odd: run_task(odd, {})) for odd in TASKS),
    *(("params is", lambda odd=odd: run_task(Other, odd)) for odd in (None, 5, "x", [1], Unshowable())),
    *(("pool_size is", lambda odd=odd: subpool_map(odd, str, [])) for odd in [*COUNTS, 0, None]),
    *(("function is", lambda odd=odd: subpool_map(1, odd, [1])) for odd in (None, 5, "str")),
    *(("function is", lambda odd=odd: spawn(odd)) for odd in (None, 5, "str")),
]

@task
def odd_calls():
    wrong = []
    for number, (words, call) in enumerate(CALLS):
        try:
            wrong.append(f"{number}: {words}: {call()!r}")
        except MrqError as error:
            text = str(error)
            is_clear = len(text) < 500 and text.isprintable()
            is_clear = is_clear and ("expected" in text or "use another" in text)
            if not is_clear or not text.startswith(words):
                wrong.append(f"{number}: {words}: {text}")
        except BaseException as error:
            wrong.append(f"{number}: {words}: {type(error).__name__}")
    for good in (0, 1, 0.5, Decimal("0.25"), Fraction(1, 2), -0.0):
        set_current_job_progress(good)
    try:
        run_task("odd." + "x" * 100_000, {})
    except MrqError as error:
        if len(str(error)) > 500 or "is no path of a task" not in str(error):
            wrong.append(f"run_task: {error}"[:1000])
    if run_task("odd.other", {"n": 1}) != run_task(Other, {"n": 1}) != run_task(other, {"n": 1}):
        wrong.append("run_task")
    return wrong

@task
def odd_logs():
    for odd in (None, 5, b"x", [1], {"a": 1}, "%s %d", Unshowable):
        log.info(odd)
    log.info("%s", Unshowable())
    log.info("%d", "x")
    log.info("too many", 1, 2)
    log.info("\\udcff\\0\\x1b[31m")
    log.info("x" * 3_000_000)
    return "done"

queue = Queue("somewhere")  # a module may have a handle

@task
def handles():
    job = get_current_job()
    copy = pickle.loads(pickle.dumps(job))
    return [copy == job, copy.fetch().id == job.id, queue.size(), Job(job.id).fetch().status]

@task
def wait_for(job_id: str, timeout: float | None = None):
    return Job(job_id).wait(timeout).status

@task
def wait_for_new(seconds: float):
    return Job(queue_job(other, {"n": 1}, queue="behind")).wait(seconds).status

@task
def wait_for_itself():
    texts = []
    for job in (get_current_job(), Job(get_current_job().id)):
        try:
            job.wait()
        except MrqError as error:
            texts.append(f"{type(error).__name__}: {error}")
    return texts
"""


@pytest.fixture(autouse=True)
def _tasks(project: Project) -> None:
    project.write("odd.py", ODD)


def warnings_of(project: Project, job_id: str) -> list[str]:
    return [line for line in project.log_of(job_id) if line.startswith("job.wait_blocked")]


def test_odd_values_that_a_task_gives_are_errors_in_the_task(project: Project) -> None:
    calls, logs = project.queue("odd.odd_calls"), project.queue("odd.odd_logs")
    handles = project.queue("odd.handles")
    project.work_off()
    assert project.ended(calls).result == []
    assert project.ended(logs).result == "done"
    assert "%s %d" in project.log_of(logs)
    assert project.ended(handles).result == [True, True, 0, "started"]


def test_a_job_that_waits_for_itself_is_told_so(project: Project) -> None:
    job_id = project.queue("odd.wait_for_itself")
    project.work_off()
    words = f"WaitRefused: job {job_id} waits for itself, and would wait for ever"
    assert project.ended(job_id).result == [words, words]


def test_jobs_that_wait_for_jobs_behind_them_say_what_to_do(project: Project) -> None:
    waiting = [project.queue("odd.wait_for_new", {"seconds": 4}) for _ in range(2)]
    project.worker("default", "behind", "--greenlets", "2")
    # The first timeout frees a greenlet. On a slow machine the other job may then get its answer in time.
    ends = [project.ended(job_id).exception_type for job_id in waiting]
    assert "mrq_core.errors.WaitTimeout" in ends
    for job_id in waiting:
        (line,) = warnings_of(project, job_id)
        assert line.startswith(f"job.wait_blocked id={job_id} waits_for=")
        assert "all 2 greenlets of this worker run jobs that wait for jobs" in line
        assert "start a worker for its queue, raise GREENLETS" in line


def test_jobs_that_wait_for_each_other_say_what_to_do(project: Project) -> None:
    first = project.queue("odd.wait_for_new", {"seconds": 0}, delay=3600)
    one = project.queue("odd.wait_for", {"job_id": first, "timeout": 4})
    other = project.queue("odd.wait_for", {"job_id": one, "timeout": 4})
    project.worker("--greenlets", "2")
    assert (
        project.ended(one).exception_type
        == project.ended(other).exception_type
        == ("mrq_core.errors.WaitTimeout")
    )
    assert len(warnings_of(project, one)) == len(warnings_of(project, other)) == 1


def test_a_job_that_waits_while_a_greenlet_is_free_is_not_warned(project: Project) -> None:
    job_id = project.queue("odd.wait_for_new", {"seconds": 30})
    later = project.queue("odd.other", {"n": 1}, delay=2)
    second = project.queue("odd.wait_for", {"job_id": later})
    project.worker("default", "behind", "--greenlets", "3")
    assert project.ended(job_id).result == project.ended(second).result == "success"
    assert project.log_of(job_id) == project.log_of(second) == []


def test_the_warning_ends_with_the_wait(project: Project) -> None:
    """A job whose wait has ended does not count: the next one that waits finds a free greenlet."""
    behind = project.queue("odd.other", {"n": 1}, delay=2)
    first = project.queue("odd.wait_for", {"job_id": behind, "timeout": 0.1})
    project.worker("--greenlets", "2")
    until(lambda: project.client.fetch(first).is_ended)
    second = project.queue("odd.wait_for", {"job_id": behind})
    assert project.ended(second).result == "success"
    assert project.log_of(second) == []
