"""Native threads of a task use brokers beside the worker's, and do not keep the worker from its broker."""

from __future__ import annotations

import signal

import pytest

from mrq_core.contract.record import Status
from tests.support import Project

TASKS = """
import os
import time
from concurrent.futures import ThreadPoolExecutor

import gevent
from gevent.monkey import get_original
from gevent.threadpool import ThreadPoolExecutor as NativeExecutor
from mrq_core import Job, Queue, get_current_job, queue_job, task


def look(_=None):
    job = queue_job("threads.nothing")
    assert Job(job).fetch().path == "threads.nothing"
    assert not Queue("other").is_paused()
    return job


@task
def nothing():
    pass


@task(timeout=30)
def in_pool(number: int):
    pool = gevent.get_hub().threadpool
    return [result.get() for result in [pool.spawn(look) for _ in range(number)]]


@task(timeout=30)
def in_executor(number: int):
    with NativeExecutor(5) as pool:
        return list(pool.map(look, range(number)))


@task(timeout=30)
def in_threads(number: int):
    with ThreadPoolExecutor(5) as pool:
        return list(pool.map(look, range(number)))


@task(timeout=60)
def queues_natively(number: int):
    pool = gevent.get_hub().threadpool
    return [pool.spawn(queue_job, "threads.nothing").get() for _ in range(number)]


@task(timeout=60)
def forks(number: int):
    for _ in range(number):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        time.sleep(0.01)


@task
def fills_the_pool():
    pool = gevent.get_hub().threadpool
    for _ in range(pool.maxsize):
        pool.spawn(get_original("time", "sleep"), 1000)


@task(timeout=30)
def natively(number: int):
    ids = []

    def work():
        try:
            ids.append(look())
        except BaseException as error:
            ids.append(repr(error))

    for _ in range(number):
        get_original("_thread", "start_new_thread")(work, ())
    while len(ids) < number:
        time.sleep(0.01)
    return ids


@task(timeout=60)
def short_threads(number: int):
    sizes = []

    def size():
        sizes.append(Queue("other").size())

    def start_many():
        for _ in range(number):
            get_original("_thread", "start_new_thread")(size, ())
            get_original("time", "sleep")(0.002)

    for _ in range(3):
        get_original("_thread", "start_new_thread")(start_many, ())
    while len(sizes) < 3 * number:
        time.sleep(0.01)
    return set(sizes) == {0}


@task(timeout=60)
def opens_files(job: str):
    while Job(job).fetch().status in ("queued", "started"):
        for _ in range(100):
            with open("/dev/null"), open("/dev/zero"):
                time.sleep(0.001)
"""


@pytest.mark.parametrize("task", ["in_pool", "in_executor", "in_threads", "natively"])
def test_native_threads_of_a_job_use_the_client_beside_the_worker(project: Project, task: str) -> None:
    project.write("threads.py", TASKS)
    project.worker("--greenlets", "10")
    jobs = [project.queue(f"threads.{task}", {"number": 10}) for _ in range(3)]
    for job in jobs:
        record = project.ended(job)
        assert (record.status, record.claims) == (Status.SUCCESS, 1), record.traceback
        assert isinstance(record.result, list)
        made = [project.ended(str(one)) for one in record.result]
        assert [(one.status, one.claims) for one in made] == [(Status.SUCCESS, 1)] * 10


def test_many_short_native_threads_use_the_client_beside_jobs_that_open_files(project: Project) -> None:
    project.write("threads.py", TASKS)
    job = project.queue("threads.short_threads", {"number": 200})
    others = [project.queue("threads.opens_files", {"job": job}) for _ in range(3)]
    worker = project.work_off("--greenlets", "4")
    assert project.ended(job).result is True, worker.output
    for other in others:
        record = project.ended(other)
        assert record.status is Status.SUCCESS, record.traceback
    assert "Traceback" not in worker.output


def test_a_job_that_fills_the_threads_of_the_hub_keeps_the_worker_from_nothing(project: Project) -> None:
    project.write("threads.py", TASKS)
    worker = project.worker("--greenlets", "20")
    project.ended(project.queue("threads.fills_the_pool"))
    jobs = [project.queue("threads.in_threads", {"number": 10}) for _ in range(10)]
    assert {project.ended(job).status for job in jobs} == {Status.SUCCESS}
    worker.send(signal.SIGINT)
    assert worker.wait() == 0


def test_a_child_leaves_the_connections_of_the_native_threads_of_its_parent_alone(project: Project) -> None:
    project.write("threads.py", TASKS)
    jobs = [project.queue("threads.queues_natively", {"number": 30}) for _ in range(3)]
    jobs += [project.queue("threads.forks", {"number": 20}) for _ in range(3)]
    worker = project.work_off("--greenlets", "8")
    records = [project.ended(job) for job in jobs]
    assert [record.status for record in records] == [Status.SUCCESS] * 6
    ids = [job_id for record in records[:3] for job_id in record.result]  # type: ignore[union-attr]
    assert len(set(ids)) == 90
    assert {project.ended(str(job_id)).status for job_id in ids} == {Status.SUCCESS}
    assert "broker.away" not in worker.output


def test_a_greenlet_gets_a_lock_that_a_native_thread_took_before_it(project: Project) -> None:
    project.write(
        "locking.py",
        """
        import threading
        import time

        import gevent
        from gevent.monkey import get_original
        from mrq_core import spawn, task

        sleep_natively = get_original("time", "sleep")


        @task(timeout=5)
        def contends():
            lock = threading.Lock()
            taken = []

            def take_natively():
                while not lock.acquire(False):
                    sleep_natively(0.001)
                taken.append(1)
                sleep_natively(0.1)
                lock.release()

            def wait():
                with lock:
                    taken.append(2)

            with lock:
                waiting = spawn(wait)
                gevent.sleep(0)
                native = gevent.get_hub().threadpool.spawn(take_natively)
                gevent.sleep(0.05)
            while not taken:  # the waiting greenlet does not run yet
                sleep_natively(0.001)
            native.get()
            waiting.join()
            return taken
        """,
    )
    job = project.queue("locking.contends")
    worker = project.work_off()
    assert project.ended(job).result == [1, 2], worker.output


def test_forks_in_a_native_thread_keep_no_other_job_from_starting_programs(project: Project) -> None:
    project.write(
        "forks.py",
        """
        import os
        import subprocess

        import gevent

        from mrq_core import task

        left = []


        def fork():
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            return pid


        @task(timeout=60)
        def forks():
            left.append(None)
            try:
                for _ in range(100):
                    os.waitpid(gevent.get_hub().threadpool.apply(fork), 0)
            finally:
                left.clear()


        @task(timeout=60)
        def starts():
            number = 0
            while not number or left:
                subprocess.run(["true"], check=True)
                number += 1
            return number
        """,
    )
    jobs = [project.queue("forks.forks"), project.queue("forks.starts")]
    worker = project.work_off("--greenlets", "2")
    assert [project.ended(job).status for job in jobs] == ["success"] * 2, worker.output
    assert "Exception ignored" not in worker.output
