"""Exceptions that a task raises outside its greenlet, and greenlets of the worker that it ends."""

from __future__ import annotations

import signal

import pytest

from mrq_core.contract.record import Status
from tests.support import Project, until

STRAY = """
import _thread
import gc
import os
import signal
import sys
import threading
import time

import gevent
import greenlet
from mrq_core import get_current_worker, task
from tasks import note


def stop(kind):
    raise kind("stray")


@task
def spawned(kind: str):
    gevent.spawn(stop, getattr(__builtins__, kind, None) or __builtins__[kind]).join()
    return "done"


@task
def later():
    gevent.spawn_later(0.01, sys.exit, 3)
    gevent.get_hub().loop.run_callback(sys.exit, 3)
    timer = gevent.get_hub().loop.timer(0.02)
    timer.start(stop, KeyboardInterrupt)
    time.sleep(0.1)
    timer.close()
    return "done"


@task
def in_a_thread():
    for kind in (SystemExit, KeyboardInterrupt):
        thread = threading.Thread(target=stop, args=(kind,))
        thread.start()
        thread.join()
    gevent.get_hub().threadpool.spawn(sys.exit, 3)
    time.sleep(0.05)
    return "done"


@task
def destroys_the_hub():
    gevent.get_hub().destroy()
    gevent.get_hub().destroy(destroy_loop=True)
    time.sleep(0.01)
    return "done"


@task(timeout=5)
def throws_into_main(kind: str):
    main = gevent.get_hub().parent
    kinds = {
        "exit": SystemExit, "interrupt": KeyboardInterrupt, "kill": greenlet.GreenletExit, "value": ValueError
    }
    if kind == "switch":
        for _ in range(5):
            gevent.get_hub().loop.run_callback(main.switch, "a value for nothing")
            time.sleep(0.02)
    else:
        gevent.kill(main, kinds[kind]())
    time.sleep(0.2)
    return "done"


@task(timeout=5)
def stops_the_loop():
    gevent.get_hub().loop.break_()
    time.sleep(0.2)
    return "done"


@task
def kills_all():
    me = gevent.getcurrent()
    gc.unfreeze()
    found = [one for one in gc.get_objects() if issubclass(type(one), gevent.Greenlet) and one is not me]
    # A driver has greenlets in the worker's native threads, which this thread cannot kill.
    gevent.killall([one for one in found if one.parent is gevent.get_hub()])
    return "done"


@task
def naps(word: str):
    note(f"nap-{word}")
    while "go" not in os.listdir("."):
        time.sleep(0.02)
    return word


@task
def leaves_a_timeout():
    gevent.Timeout(0.4, ref=False).start()
    return "done"


@task
def sleeps():
    time.sleep(1)
    return "slept"


@task
def signals(kind: str):
    note("signals")
    if kind == "interrupt_main":
        _thread.interrupt_main()
    elif kind == "raise_signal":
        signal.raise_signal(signal.SIGINT)
    else:
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.1)
    return "done"
"""


@pytest.fixture(autouse=True)
def stray(project: Project) -> None:
    project.write("stray.py", STRAY)


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("spawned", {"kind": "SystemExit"}),
        ("spawned", {"kind": "KeyboardInterrupt"}),
        ("spawned", {"kind": "SystemError"}),
        ("later", {}),
        ("in_a_thread", {}),
        ("destroys_the_hub", {}),
        ("throws_into_main", {"kind": "exit"}),
        ("throws_into_main", {"kind": "interrupt"}),
        ("throws_into_main", {"kind": "kill"}),
        ("throws_into_main", {"kind": "value"}),
        ("throws_into_main", {"kind": "switch"}),
        ("stops_the_loop", {}),
    ],
)
def test_an_exception_outside_of_the_job_ends_neither_the_worker_nor_its_jobs(
    project: Project, path: str, params: dict[str, object]
) -> None:
    beside = project.queue("stray.naps", {"word": "a"})
    worker = project.worker("--greenlets", "3")
    until(project.ledger, what="the neighbour to start")
    assert project.ended(project.queue(f"stray.{path}", params)).result == "done"
    assert project.ended(project.queue("tasks.Add", {"a": 1, "b": 1})).result == 2
    project.write("go", "")
    record = project.ended(beside)
    assert (record.status, record.claims) == (Status.SUCCESS, 1)
    worker.send(signal.SIGINT)
    assert worker.wait() == 0, worker.output


def test_a_timeout_that_a_job_leaves_behind_reaches_no_other_job(project: Project) -> None:
    # The first job is slow, because it imports the task: later jobs share a greenlet.
    jobs = [project.queue(f"stray.{path}") for path in (*["leaves_a_timeout"] * 4, "sleeps")]
    project.work_off("--greenlets", "1")
    assert [project.ended(job).result for job in jobs] == [*["done"] * 4, "slept"]


def test_greenlets_of_the_worker_that_a_task_kills_start_again(project: Project) -> None:
    worker = project.worker("--greenlets", "3", "--name", "w", "--paused-queues-refresh-interval", "0.05")
    for n in range(2):
        project.queue("stray.kills_all")
        assert project.ended(project.queue("tasks.Add", {"a": n, "b": 1})).result == n + 1
    assert worker.output.count("greenlet.ended") >= 6
    job = project.queue("stray.naps", {"word": "a"})
    until(lambda: "nap-a" in project.ledger(), what="the job to start")
    project.job(job).cancel(interrupt=True)  # the loop that asks for requests runs again
    assert project.ended(job).status == Status.CANCEL
    worker.send(signal.SIGINT)
    assert worker.wait() == 0, worker.output


@pytest.mark.parametrize("kind", ["interrupt_main", "raise_signal", "sigterm"])
def test_a_signal_that_a_task_sends_to_its_process_stops_the_worker(project: Project, kind: str) -> None:
    job = project.queue("stray.signals", {"kind": kind})
    worker = project.worker("--stop-grace", "5")
    assert worker.wait() == 0, worker.output
    assert project.client.fetch(job).result == "done"


def test_threads_of_the_worker_go_on_after_a_task_has_raised_exceptions_in_all_threads(
    project: Project,
) -> None:
    project.write(
        "killing.py",
        """
        import ctypes
        import sys
        import threading
        import time
        from mrq_core import task
        from tasks import note


        @task
        def raises_in_all_threads(number: int):
            kind = (SystemExit, ValueError)[number]
            for ident in list(sys._current_frames()):
                if ident != threading.main_thread().ident:
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(kind))


        @task(timeout=0.5)
        def spins():
            note("begins")
            while True:
                pass
        """,
    )
    worker = project.worker("-g", "2", "--lease", "2")
    for number in range(2):
        project.ended(project.queue("killing.raises_in_all_threads", {"number": number}))
    assert project.ended(project.queue("killing.spins")).status == "timeout"
    assert project.ledger() == ["begins"]
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
