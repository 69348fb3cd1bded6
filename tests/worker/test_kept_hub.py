"""The limits of a job leave out time in which an observer, another job or a left greenlet kept the hub."""

from __future__ import annotations

import signal

import pytest

from mrq_core.contract.record import Status
from tests.support import Project

KEEPING = """
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import gevent
from gevent.event import Event
from mrq_core import hookimpl, spawn, subpool_map, task
from tasks import note


def compute(seconds: float):
    note("computes")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


@task(timeout=1)
def waits(seconds: float = 0.3):
    note("waits")
    time.sleep(seconds)
    return "waited"


@task(timeout=1000)
def computes(seconds: float, wait: float):
    time.sleep(wait)
    compute(seconds)
    return "computed"


def hold_the_gil():
    pow(3, 6 * 10**6)


@task(timeout=1)
def waits_in_steps():
    for _ in range(8):
        time.sleep(0.05)
    return "waited"


@task(timeout=1000)
def computes_in_c(calls: int):
    time.sleep(0.1)
    for _ in range(calls):
        hold_the_gil()
        time.sleep(0.01)
    return "computed"


@task(timeout=0.5)
def computes_too_long_in_c():
    for _ in range(40):
        hold_the_gil()


@task(timeout=0.5)
def computes_in_a_greenlet():
    spawn(compute, 1000).join()


@task(timeout=0.5)
def computes_in_a_pool():
    subpool_map(2, compute, [1000])


@task(timeout=0.5)
def computes_in_a_greenlet_of_gevent():
    gevent.spawn(compute, 1000).join()


def in_thread(seconds):
    thread = threading.Thread(target=compute, args=[seconds])
    thread.start()
    thread.join()


@task(timeout=0.5)
def computes_in_a_thread():
    in_thread(1000)


@task(timeout=0.5)
def computes_in_a_thread_of_a_thread():
    with ThreadPoolExecutor() as threads:
        threads.submit(in_thread, 1000).result()


@task(timeout=0.5)
def computes_in_a_greenlet_of_one_that_has_ended():
    gevent.spawn(gevent.spawn, compute, 1000)
    time.sleep(1000)


@task(timeout=0.5)
def computes_in_an_executor():
    with ThreadPoolExecutor() as threads:
        list(threads.map(compute, [1000]))


@task(timeout=1000)
def computes_long_in_a_thread():
    from mrq_core.worker import hub_time
    hub_time._STRANGERS_MOST = 1.0
    in_thread(3)
    return "computed"


@task
def leaves_a_greenlet():
    from mrq_core.worker import hub_time
    hub_time._STRANGERS_MOST = 1.0
    gevent.spawn_later(0.3, compute, 1000)
"""

OBSERVERS = {
    "mrq_jobs_started": "records",
    "mrq_jobs_settled": "settled",
}
OBSERVING = """
import keeping
from mrq_core import hookimpl

left = [1]

@hookimpl
def {hook}({argument}):
    if left:
        left.pop()
        keeping.compute(7.5)
"""


@pytest.fixture(autouse=True)
def keeping(project: Project) -> None:
    project.write("keeping.py", KEEPING)


@pytest.mark.parametrize("hook", OBSERVERS)
def test_the_time_of_a_job_does_not_contain_that_of_an_observer(project: Project, hook: str) -> None:
    project.write("observing.py", OBSERVING.format(hook=hook, argument=OBSERVERS[hook]))
    jobs = [project.queue("tasks.Add", {"a": 1, "b": 1})] if hook == "mrq_jobs_settled" else []
    jobs += [project.queue("keeping.waits") for _ in range(2)]
    worker = project.worker("--plugins", "observing", "--greenlets", "3")
    records = [project.ended(job) for job in jobs]
    assert {(record.status, record.claims) for record in records} == {(Status.SUCCESS, 1)}
    assert "computes" in project.ledger()
    worker.send(signal.SIGINT)
    assert worker.wait() == 0


def test_the_time_of_a_job_does_not_contain_that_of_a_neighbour_that_computes(project: Project) -> None:
    computing = project.queue("keeping.computes", {"seconds": 7.5, "wait": 0.1})
    waiting = project.queue("keeping.waits")
    overdue = project.queue("keeping.waits", {"seconds": 1000})
    worker = project.worker("--greenlets", "3")
    assert project.ended(computing).result == "computed"
    assert project.ended(waiting).result == "waited"
    assert project.ended(overdue).status == Status.TIMEOUT
    worker.send(signal.SIGINT)
    assert worker.wait() == 0


@pytest.mark.parametrize("calls", [1, 2])
def test_the_time_of_a_job_does_not_contain_that_of_a_neighbour_that_holds_the_gil(
    project: Project, calls: int
) -> None:
    computing = project.queue("keeping.computes_in_c", {"calls": calls})
    waiting = [project.queue("keeping.waits_in_steps") for _ in range(3)]
    worker = project.work_off("--greenlets", "4")
    assert project.ended(computing).result == "computed"
    assert [project.ended(job).result for job in waiting] == ["waited"] * 3, worker.output


def test_a_job_that_holds_the_gil_again_and_again_has_a_timeout(project: Project) -> None:
    overdue = project.queue("keeping.computes_too_long_in_c")
    neighbour = project.queue("keeping.waits_in_steps")
    worker = project.work_off("--greenlets", "2")
    assert project.ended(overdue).status == Status.TIMEOUT, worker.output
    assert project.ended(neighbour).result == "waited"


@pytest.mark.parametrize(
    "path",
    [
        "computes_in_a_greenlet",
        "computes_in_a_pool",
        "computes_in_a_greenlet_of_gevent",
        "computes_in_a_thread",
        "computes_in_a_thread_of_a_thread",
        "computes_in_a_greenlet_of_one_that_has_ended",
        "computes_in_an_executor",
    ],
)
def test_the_time_of_a_job_contains_that_of_its_greenlets(project: Project, path: str) -> None:
    worker = project.worker()
    assert project.ended(project.queue(f"keeping.{path}")).status == Status.TIMEOUT
    assert project.ended(project.queue("keeping.waits")).status == Status.SUCCESS
    assert worker.popen.poll() is None


def test_a_thread_of_a_job_may_compute_longer_than_code_outside_of_jobs(project: Project) -> None:
    computing = project.queue("keeping.computes_long_in_a_thread")
    waiting = project.queue("keeping.waits")
    worker = project.work_off("--greenlets", "2")
    assert [project.ended(job).result for job in (computing, waiting)] == ["computed", "waited"], (
        worker.output
    )


def test_a_worker_whose_hub_a_left_greenlet_keeps_is_given_up_with_its_jobs_given_back(
    project: Project,
) -> None:
    jobs = [
        project.queue("keeping.computes", {"seconds": 0, "wait": 1000}),
        project.queue("keeping.waits", {"seconds": 1}),
    ]
    leaving = project.queue("keeping.leaves_a_greenlet")
    worker = project.worker("--greenlets", "3")
    assert worker.wait() == 1
    assert "code outside of jobs" in worker.output
    statuses = [project.client.fetch(job).status for job in jobs]
    assert statuses == [Status.INTERRUPT, Status.TIMEOUT]
    assert project.client.fetch(leaving).status == Status.SUCCESS


CONTEXTS = """
from contextvars import Context, copy_context

from mrq_core import task

ELSEWHERE = []


def spin():
    while True:
        pass


@task(timeout=0.5)
def in_a_fresh_context():
    Context().run(spin)


@task
def copies_its_context():
    ELSEWHERE.append(copy_context())


@task(timeout=0.5)
def in_the_context_of_another_job():
    ELSEWHERE[0].run(spin)
"""


def test_a_job_that_computes_in_another_context_is_interrupted_alone(project: Project) -> None:
    project.write("contexts.py", CONTEXTS)
    assert project.queue("contexts.copies_its_context")
    jobs = [
        project.queue(f"contexts.{name}") for name in ("in_a_fresh_context", "in_the_context_of_another_job")
    ]
    neighbour = project.queue("tasks.noted", {"word": "x", "seconds": 3})
    worker = project.work_off("--greenlets", "2")
    assert [project.ended(job).status for job in jobs] == [Status.TIMEOUT] * 2, worker.output
    ended = project.ended(neighbour)
    assert (ended.status, ended.claims) == (Status.SUCCESS, 1)


RAW = """
import asyncio
import contextvars
import time

import greenlet
from mrq_core import task


class Bridge(greenlet.greenlet):
    # As SQLAlchemy's asyncio has them.
    def __init__(self, function):
        driver = greenlet.getcurrent()
        super().__init__(function, driver)
        self.gr_context = driver.gr_context


def spin():
    while True:
        pass


def spins_in_steps():
    while True:
        greenlet.getcurrent().parent.switch()
        end = time.monotonic() + 0.1
        while time.monotonic() < end:
            pass


async def bridged():
    Bridge(spin).switch()


@task(timeout=0.5)
def in_asyncio():
    asyncio.run(bridged())


@task(timeout=0.5)
def in_an_empty_context():
    greenlet.greenlet(spin).switch()


@task(timeout=0.5)
def nested():
    greenlet.greenlet(Bridge(spin).switch).switch()


@task(timeout=0.5)
def in_steps():
    one = Bridge(spins_in_steps)
    while True:
        one.switch()
"""


@pytest.mark.parametrize("path", ["in_asyncio", "in_an_empty_context", "nested", "in_steps"])
def test_a_job_that_computes_in_a_greenlet_of_a_library_is_interrupted_alone(
    project: Project, path: str
) -> None:
    project.write("raw.py", RAW)
    overdue = project.queue(f"raw.{path}")
    neighbour = project.queue("tasks.noted", {"word": "x", "seconds": 1})
    worker = project.work_off("--greenlets", "2")
    record = project.ended(overdue)
    assert (record.status, record.claims) == (Status.TIMEOUT, 1), worker.output
    assert record.total_time is not None
    assert record.total_time < 4
    ended = project.ended(neighbour)
    assert (ended.status, ended.claims) == (Status.SUCCESS, 1), worker.output


NO_TIME = """
import socket
import threading
import time

import gevent
from mrq_core import task

NAN = float("nan")


def waits_for_socket():
    one, other = socket.socketpair()
    with one, other:
        one.settimeout(NAN)
        one.recv(1)


WAITS = {
    "timer": lambda: threading.Timer(NAN, print).run(),
    "later": lambda: gevent.spawn_later(NAN, print).join(0.01),
    "sleep": lambda: time.sleep(NAN),
    "event": lambda: threading.Event().wait(NAN),
    "limit": lambda: gevent.Timeout.start_new(NAN),
    "socket": waits_for_socket,
    "stat": lambda: gevent.get_hub().loop.stat("/", NAN),
}


@task
def waits(name: str):
    WAITS[name]()


@task
def naps():
    time.sleep(0.01)
"""


def test_a_wait_for_no_time_is_refused_and_stops_no_timer_of_another_job(project: Project) -> None:
    """The loop of gevent compares the times of all timers: NaN would keep others from ending."""
    project.write("nan.py", NO_TIME)
    names = ["timer", "later", "sleep", "event", "limit", "socket", "stat"]
    waits, naps = [], []
    for name in [*names, *names]:
        waits.append(project.queue("nan.waits", {"name": name}))
        naps += [project.queue("nan.naps") for _ in range(3)]
    worker = project.work_off("--greenlets", "4")
    assert {project.ended(job_id).status for job_id in naps} == {Status.SUCCESS}, worker.output
    ended = [project.ended(job_id) for job_id in waits]
    assert {job.exception_type for job in ended} == {"ValueError"}


LOOP = """
import time

import gevent
from mrq_core import task


@task
def calls(name: str):
    getattr(gevent.get_hub().loop, name)()


@task
def naps():
    time.sleep(0.01)
"""


@pytest.mark.parametrize("name", ["run", "break_"])
def test_a_task_neither_runs_nor_ends_the_loop_of_all_jobs(project: Project, name: str) -> None:
    project.write("looped.py", LOOP)
    calls, naps = [], []
    for _ in range(4):
        calls.append(project.queue("looped.calls", {"name": name}))
        naps += [project.queue("looped.naps") for _ in range(3)]
    worker = project.work_off("--greenlets", "4")
    assert {project.ended(job_id).status for job_id in naps} == {Status.SUCCESS}, worker.output
    assert {project.ended(job_id).exception_type for job_id in calls} == {"RuntimeError"}
