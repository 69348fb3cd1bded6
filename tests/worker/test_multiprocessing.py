"""A task uses `multiprocessing` as a plain program does, and lets other greenlets run while it waits."""

from __future__ import annotations

import json

import pytest

from tests.support import Project

USES = '''
import multiprocessing
import os
import threading
from multiprocessing.connection import Client, Listener, wait

import gevent

from mrq_core import Queue, task


def size(queue):
    return Queue(queue).size()


def returned(value=None):
    return value


def puts(queue, value):
    gevent.sleep(0.2)
    queue.put(value)


def pool(method):
    with multiprocessing.get_context(method).Pool(2) as pool:
        return pool.map(abs, [-1, -2, -3])


def forked():
    return pool("fork")


def spawned():
    return pool("spawn")


def served():
    return pool("forkserver")


def raised():
    with multiprocessing.Pool(2) as pool:
        try:
            list(pool.imap_unordered(int, ["1", "x"]))
        except ValueError as error:
            return str(error)


def large():
    """A message is larger than a pipe."""
    with multiprocessing.Pool(1) as pool:
        return [len(one) for one in pool.map(returned, [b"x" * 3_000_000, b"y" * 1_000_000])]


def late():
    with multiprocessing.Pool(1) as pool:
        try:
            pool.apply_async(gevent.sleep, (60,)).get(0.2)
        except multiprocessing.TimeoutError:
            return "late"


def dies():
    with multiprocessing.Pool(1) as pool:
        try:
            pool.apply_async(os._exit, (3,)).get(0.5)
        except multiprocessing.TimeoutError:
            return "late"


def asks_the_broker():
    with multiprocessing.Pool(2) as pool:
        return pool.map(size, ["empty", "also"])


def manages():
    with multiprocessing.Manager() as manager:
        shared = manager.dict()
        process = multiprocessing.Process(target=shared.update, args=({"a": 1},))
        process.start()
        process.join()
        return dict(shared)


def gets():
    """What a queue without a limit of time gives, and whether other greenlets ran meanwhile."""
    queue, rounds = multiprocessing.Queue(), []
    ticks = gevent.spawn(lambda: [rounds.append(gevent.sleep(0.01)) for _ in range(1000)])
    process = multiprocessing.Process(target=puts, args=(queue, "late"))
    process.start()
    value = queue.get()
    process.join()
    ticks.kill()
    return [value, len(rounds) > 3]


def locks():
    """A lock that a child has for a while: what is found in it, and whether other greenlets run meanwhile."""
    lock, held, value = multiprocessing.Lock(), multiprocessing.Event(), multiprocessing.Value("i", 0)

    def holds():
        with lock:
            held.set()
            gevent.sleep(0.2)
            value.value += 1

    process, rounds = multiprocessing.Process(target=holds), []
    process.start()
    assert held.wait(10)
    ticks = gevent.spawn(lambda: [rounds.append(gevent.sleep(0.01)) for _ in range(1000)])
    taken = [lock.acquire(False), lock.acquire(timeout=0.01), lock.acquire(timeout=-1)]
    with lock:
        found = value.value
    process.join()
    ticks.kill()
    return [taken, found, len(rounds) > 3]


def meets():
    barrier = multiprocessing.Barrier(2)
    process = multiprocessing.Process(target=barrier.wait)
    process.start()
    barrier.wait(10)
    process.join()
    return process.exitcode


def talks():
    with Listener(("127.0.0.1", 0), authkey=b"key") as listener:
        heard = []

        def answers():
            with listener.accept() as connection:
                heard.append(connection.recv())
                connection.send("pong")

        thread = threading.Thread(target=answers)
        thread.start()
        with Client(listener.address, authkey=b"key") as connection:
            connection.send("ping")
            heard.append(connection.recv())
        thread.join()
        return heard


def of_a_native_thread():
    """A native thread without a hub sends and receives."""
    near, far = multiprocessing.Pipe()
    in_thread = gevent.get_hub().threadpool

    def answers():
        near.send(near.recv() + 1)
        return near.poll(5) and near.recv()

    answer = in_thread.spawn(answers)
    far.send(1)
    value = far.recv()
    far.send("end")
    return [value, answer.get()]


def ends():
    """Whether the end of each spawned process is seen, the first one's too."""
    seen = []
    for _ in range(2):
        process = multiprocessing.get_context("spawn").Process(target=returned)
        process.start()
        seen.append(wait([process.sentinel], 20) == [process.sentinel])
        process.join()
        seen.append(process.exitcode)
    return seen


def closed():
    """What is read from a pipe right after all of its ends for writing were closed."""
    reader, writer = os.pipe()
    os.write(writer, b"x")
    os.close(writer)
    return [os.read(reader, 10).decode(), os.read(reader, 10).decode(), os.close(reader)]


@task(timeout=60)
def uses(name: str):
    return globals()[name]()


@task(timeout=60, isolate=True)
def uses_solo(name: str):
    return globals()[name]()


@task(timeout=0.5)
def runs_long():
    with multiprocessing.Pool(1) as pool:
        pool.map(gevent.sleep, [60])


@task
def survives():
    return [child.pid for child in multiprocessing.active_children()]
'''
RESULTS: dict[str, object] = {
    "forked": [1, 2, 3],
    "spawned": [1, 2, 3],
    "served": [1, 2, 3],
    "raised": "invalid literal for int() with base 10: 'x'",
    "large": [3_000_000, 1_000_000],
    "late": "late",
    "dies": "late",
    "asks_the_broker": [0, 0],
    "manages": {"a": 1},
    "gets": ["late", True],
    "locks": [[False, False, False], 1, True],
    "meets": 0,
    "talks": ["ping", "pong"],
    "of_a_native_thread": [2, "end"],
    "ends": [True, 0, True, 0],
    "closed": ["x", "", None],
}
SOLO = ("forked", "spawned", "manages", "ends", "closed")
"""What isolated jobs do here."""


@pytest.fixture(autouse=True)
def using(project: Project) -> None:
    project.write("using.py", USES)


def test_tasks_use_processes_of_multiprocessing(project: Project) -> None:
    jobs = {name: project.queue("using.uses", {"name": name}) for name in RESULTS}
    project.work_off("-g", "4")
    assert {name: project.ended(job).result for name, job in jobs.items()} == RESULTS


def test_an_isolated_task_uses_processes_of_multiprocessing(project: Project) -> None:
    jobs = {name: project.queue("using.uses_solo", {"name": name}) for name in SOLO}
    project.work_off("-g", "4")
    assert {name: project.ended(job).result for name, job in jobs.items()} == {
        name: RESULTS[name] for name in SOLO
    }


def test_a_task_that_runs_at_once_uses_processes_of_multiprocessing(project: Project) -> None:
    assert json.loads(project.mrq("run", "using.uses", "name", "forked")) == RESULTS["forked"]
    assert json.loads(project.mrq("run", "using.uses", "name", "manages")) == RESULTS["manages"]


POOLS = """
import multiprocess
from mrq_core import task


@task(timeout=20)
def pools():
    with multiprocess.get_context("fork").Pool(2) as pool:
        return pool.map(lambda number: 2 * number, [1, 2])
"""


def test_tasks_use_processes_of_the_copy_of_multiprocessing_that_pickles_lambdas(project: Project) -> None:
    project.write("pooling.py", POOLS)
    jobs = [project.queue("pooling.pools") for _ in range(4)]
    project.work_off("-g", "4")
    assert [project.ended(job).result for job in jobs] == [[2, 4]] * 4


def test_a_job_that_waits_for_a_pool_times_out(project: Project) -> None:
    late = project.queue("using.runs_long")
    project.worker("-g", "1")
    after = project.queue("using.survives")
    assert project.ended(late).status == "timeout"
    assert project.ended(after).result == [], "the pool has ended its processes"
