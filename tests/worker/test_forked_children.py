"""A process that a task forks ends where the code of the task ends, with the exit code that Python gives, and
never acts as a second worker."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support import Project, until

FORKS = '''
import atexit
import gc
import multiprocessing
import os
import pty
import signal
import subprocess
import sys
import threading
import time

import gevent
import gevent.lock
import gevent.os
from gevent.monkey import get_original

from mrq_core import get_current_job, queue_job, spawn, subpool_map, task
from tasks import note


class Refused(Exception):
    pass


def returns():
    pass


def raises():
    raise Refused("in the child")


class Unreadable(Exception):
    def __getattribute__(self, name):
        raise Refused(name)


class Claiming(Exception):
    @property
    def __class__(self):
        raise Refused("__class__")


def raises_unreadable():
    raise Unreadable


def raises_without_a_class():
    raise Claiming


class Closed:
    def write(self, text):
        raise SystemExit(31)

    flush = fileno = write


def leaves_broken_streams():
    sys.stdout = sys.stderr = Closed()


def deletes_its_streams():
    del sys.stdout, sys.stderr


def exits_with_a_large_number():
    sys.exit(10**30)


def exits():
    sys.exit(3)


def exits_with_text():
    sys.exit("a text for standard error")


def leaves():
    os._exit(4)


def is_killed():
    gevent.getcurrent().kill()


def kills_itself():
    os.kill(os.getpid(), signal.SIGKILL)


def is_terminated():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(1000)


def spawns():
    def step():
        time.sleep(0.01)
        note("spawned")
    gevent.spawn(step).join()
    threads = [threading.Thread(target=step) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.exit(5)


def spawned_exits():
    gevent.spawn(sys.exit, 6)
    time.sleep(1000)


def leaves_a_thread():
    def step():
        time.sleep(0.1)
        note("thread")
    threading.Thread(target=step).start()
    sys.exit(7)


def waits_for_ever():
    gevent.event.Event().wait()


def destroys_the_hub():
    gevent.get_hub().destroy(destroy_loop=True)
    time.sleep(1000)


def breaks_the_hub():
    gevent.get_hub().throw(Refused("in the hub of the child"))
    time.sleep(1000)


def forks_again():
    if os.fork() == 0:
        sys.exit(8)
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))


def starts_a_program():
    sys.exit(subprocess.run([sys.executable, "-c", "raise SystemExit(9)"]).returncode)


def enqueues():
    queue_job("tasks.noted", {"word": "child"})


def registers():
    atexit.register(note, "at-exit")


one_fork = gevent.lock.BoundedSemaphore()
WAYS = {name: way for name, way in list(globals().items()) if callable(way)}


def ended(pid):
    for _ in range(1000):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "it did not end"


def by_fork(way):
    """Returns in the parent and, after the code of the child, in the child too."""
    pid = os.fork()
    if pid:
        return ended(pid)
    WAYS[way]()


@task(timeout=60)
def forks(way: str):
    return by_fork(way)


@task(timeout=60, isolate=True)
def forks_solo(way: str):
    return by_fork(way)


@task(timeout=60)
def forks_in_a_greenlet(way: str):
    return spawn(by_fork, way).get()


@task(timeout=60)
def forks_in_a_bare_greenlet(way: str):
    return gevent.spawn(by_fork, way).get()


@task(timeout=60)
def forks_in_a_map(way: str):
    return subpool_map(2, by_fork, [way])[0]


@task(timeout=60)
def forks_in_a_thread(way: str):
    codes = []
    thread = threading.Thread(target=lambda: codes.append(by_fork(way)))
    thread.start()
    thread.join()
    return codes[0]


@task(timeout=60)
def forks_in_the_pool(way: str):
    def fork():
        pid = get_original("os", "fork")()  # the patched function refuses in a native thread
        if pid:
            return pid
        WAYS[way]()
    with one_fork:  # a fork takes a lock of concurrent.futures; gevent loses wake-ups between threads
        pid = gevent.get_hub().threadpool.apply(fork)
    return ended(pid)


@task(timeout=60)
def forks_with_gevent(way: str):
    pid = gevent.os.fork()
    if pid:
        return ended(pid)
    WAYS[way]()


@task(timeout=60)
def forks_with_a_terminal(way: str):
    pid, terminal = pty.fork()
    if pid:
        code = ended(pid)
        os.close(terminal)
        return code
    WAYS[way]()


@task(timeout=60)
def forks_with_multiprocessing(way: str):
    child = multiprocessing.get_context("fork").Process(target=WAYS[way])
    child.start()
    child.join()
    return child.exitcode


@task(timeout=60)
def prepares(way: str):
    try:
        return subprocess.run([sys.executable, "-c", "pass"], preexec_fn=WAYS[way]).returncode
    except BaseException:
        return "refused"
'''

CODES = {
    "returns": 0,
    "raises": 1,
    "raises_unreadable": 1,
    "leaves_broken_streams": 0,
    "deletes_its_streams": 0,
    "exits_with_a_large_number": 255,
    "raises_without_a_class": 1,
    "exits": 3,
    "exits_with_text": 1,
    "leaves": 4,
    "is_killed": 1,
    "kills_itself": -9,
    "is_terminated": -15,
    "spawns": 5,
    "spawned_exits": 6,
    "leaves_a_thread": 7,
    "waits_for_ever": 1,
    "destroys_the_hub": 0,
    "breaks_the_hub": 1,
    "forks_again": 8,
    "starts_a_program": 9,
    "enqueues": 0,
    "registers": 0,
}
KINDS = (
    "forks",
    "forks_in_the_pool",
    "forks_with_multiprocessing",
    *(
        pytest.param(kind, marks=pytest.mark.campaign)
        for kind in (
            "forks_in_a_greenlet",
            "forks_in_a_bare_greenlet",
            "forks_in_a_map",
            "forks_in_a_thread",
            "forks_with_gevent",
            "forks_with_a_terminal",
        )
    ),
)


def codes_of(kind: str) -> dict[str, int]:
    """The exit codes of children that are forked in this way."""
    codes = dict(CODES)
    if kind == "forks_in_a_thread":  # Python ignores what ends a thread
        codes.update({way: 0 for way, code in CODES.items() if code > 0})
        codes.update(leaves=4, spawned_exits=6, breaks_the_hub=1)
    if kind == "forks_with_multiprocessing":  # the pipe that it has closed keeps gevent from noticing
        del codes["waits_for_ever"]
        codes.update(exits_with_a_large_number=1, leaves_broken_streams=1)  # multiprocessing does so
    return codes


HOOKS = """
import os
from mrq_core import hookimpl
from tasks import note

forked = set()


def fork(hook):
    if hook not in forked:
        forked.add(hook)
        child = os.fork()
        if child:
            note(f"{hook}-{os.waitpid(child, 0)[1]}")


@hookimpl
def mrq_jobs_started(records):
    fork("started")


@hookimpl
def mrq_jobs_settled(settled):
    fork("settled")


@hookimpl
def mrq_worker_event(worker, event):
    fork(event)


@hookimpl
def mrq_retry_decision(job, exception):
    fork("decision")


@hookimpl
def mrq_encode(value):
    fork("encode")


@hookimpl
def mrq_decode(value):
    fork("decode")


@hookimpl(wrapper=True)
def mrq_around_job(context):
    fork("before")
    try:
        return (yield)
    finally:
        fork("after")
"""

OTHER_HOOKS = """
import os
from mrq_core import hookimpl
from tasks import note

worker = os.getpid()


@hookimpl
def mrq_jobs_started(records):
    note("same" if os.getpid() == worker else "other")
"""


def test_a_child_that_a_hook_forks_ends_where_the_hook_ends(project: Project) -> None:
    project.write("hooks.py", HOOKS)
    project.write("other_hooks.py", OTHER_HOOKS)
    project.queue("tasks.noted", {"word": "one"})
    project.queue("tasks.fail")
    worker = project.start("worker", "--burst", "--greenlets", "1", "--plugins", "hooks other_hooks")
    assert worker.wait() == 0, worker.output
    ledger = project.ledger()
    assert (ledger.count("start-one"), ledger.count("other")) == (1, 0)
    forks = {word for word in ledger if word.endswith("-0")}
    hooks = {
        "started",
        "settled",
        "decision",
        "encode",
        "decode",
        "before",
        "after",
        "stop",
    }  # a burst may end without a wait
    assert {f"{hook}-0" for hook in hooks} <= forks  # a burst may end without a wait


@pytest.fixture(autouse=True)
def forking(project: Project) -> None:
    project.write("forking.py", FORKS)


def check_neighbours(project: Project, jobs: list[str]) -> None:
    """The neighbours ran once, in this worker alone."""
    assert [project.ended(job).claims for job in jobs] == [1] * len(jobs)
    starts = [word for word in project.ledger() if word.startswith("start-n")]
    assert sorted(starts) == sorted({f"start-n{n}" for n in range(len(jobs))})


def neighbours(project: Project) -> list[str]:
    return [project.queue("tasks.noted", {"word": f"n{n}", "seconds": 0.05}) for n in range(20)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_forked_child_ends_where_its_code_ends(project: Project, kind: str) -> None:
    codes = codes_of(kind)
    jobs = {way: project.queue(f"forking.{kind}", {"way": way}) for way in codes}
    beside = neighbours(project)
    worker = project.work_off("--greenlets", "4")
    found = {way: project.ended(job).result for way, job in jobs.items()}
    assert found == codes, worker.output
    assert {project.ended(job).claims for job in jobs.values()} == {1}
    check_neighbours(project, beside)
    ledger = project.ledger()
    assert ledger.count("spawned") == 3
    if kind != "forks_with_multiprocessing":  # which leaves that to its versions
        assert (ledger.count("thread"), ledger.count("at-exit")) == (1, 1)
    assert ("Refused: in the child" in worker.output) == (kind != "forks_with_a_terminal")


def test_a_child_of_a_solo_process_ends_where_its_code_ends(project: Project) -> None:
    jobs = {way: project.queue("forking.forks_solo", {"way": way}) for way in CODES}
    beside = neighbours(project)
    worker = project.work_off("--greenlets", "4")
    assert {way: project.ended(job).result for way, job in jobs.items()} == CODES, worker.output
    assert {project.ended(job).claims for job in jobs.values()} == {1}
    check_neighbours(project, beside)


def test_code_before_exec_ends_with_its_child(project: Project) -> None:
    jobs = {way: project.queue("forking.prepares", {"way": way}) for way in ("returns", "raises", "exits")}
    beside = neighbours(project)
    project.work_off("--greenlets", "4")
    found = {way: project.ended(job).result for way, job in jobs.items()}
    assert found == {"returns": 0, "raises": "refused", "exits": "refused"}
    check_neighbours(project, beside)


def test_a_child_neither_renews_nor_removes_what_belongs_to_its_worker(project: Project) -> None:
    project.write(
        "lasting.py",
        """
        import os, sys, time
        from mrq_core import task
        from tasks import note

        @task
        def leaves_a_child():
            if os.fork() == 0:
                note("child")
                while "go" not in os.listdir("."):
                    time.sleep(0.01)
                note("end")
                sys.exit(0)
            return os.getpid()
    """,
    )
    job = project.queue("lasting.leaves_a_child")
    worker = project.worker("--name", "parent")
    assert project.ended(job).result == worker.pid
    until(lambda: "child" in project.ledger(), what="the child")
    project.write("go", "")
    until(lambda: "end" in project.ledger(), what="the child's end")
    after = project.queue("tasks.Add", {"a": 1, "b": 1})
    assert project.ended(after).result == 2
    assert "parent" in project.mrq("workers")


def test_a_child_closes_descriptors_at_once(project: Project) -> None:
    project.write(
        "closing.py",
        """
        import os
        from mrq_core import task


        def is_closed(descriptor):
            try:
                os.fstat(descriptor)
            except OSError:
                return True
            return False


        @task
        def closes():
            _, pending = os.pipe()
            os.close(pending)
            child = os.fork()
            if not child:
                code = 10 + 2 * is_closed(pending)
                _, own = os.pipe()
                os.close(own)
                os._exit(code + is_closed(own))
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        """,
    )
    project.worker()
    assert project.ended(project.queue("closing.closes")).result == 13


def test_locks_are_free_in_a_child_and_wake_no_greenlet_of_its_parent(project: Project) -> None:
    project.write(
        "waiting.py",
        """
        import concurrent.futures.thread
        import os
        import threading

        import gevent
        from mrq_core import task
        from tasks import note

        lock = threading.Lock()
        os.register_at_fork(
            before=lock.acquire, after_in_child=lock._at_fork_reinit, after_in_parent=lock.release
        )


        def waits():
            with lock:
                note("woken" if os.getpid() == worker else "woken in the child")


        def holds():
            with concurrent.futures.thread._global_shutdown_lock:
                gevent.sleep(0.1)


        def code_of(child):
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


        @task(timeout=10)
        def forks():
            global worker
            worker = os.getpid()
            with lock:
                waiting = gevent.spawn(waits)
                gevent.sleep(0)
            if (child := os.fork()) == 0:
                with lock:
                    pass
                gevent.sleep(0.05)
                with lock:
                    os._exit(7)
            waiting.join()
            return code_of(child)


        @task(timeout=10)
        def forks_beside_executors():
            gevent.spawn(holds)
            gevent.sleep(0)
            if (child := os.fork()) == 0:
                with concurrent.futures.ThreadPoolExecutor(1) as pool:
                    os._exit(pool.submit(int, 8).result())
            return code_of(child)
        """,
    )
    project.worker()
    assert project.ended(project.queue("waiting.forks")).result == 7
    assert project.ended(project.queue("waiting.forks_beside_executors")).result == 8
    assert project.ledger() == ["woken"]


def test_a_child_goes_on_with_selectors_and_loops_of_its_parent(project: Project) -> None:
    project.write(
        "looping.py",
        """
        import asyncio
        import os
        import selectors
        import socket
        import subprocess
        from mrq_core import task


        def code_of(child):
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


        async def forks():
            await asyncio.sleep(0.01)
            return os.fork()


        @task(timeout=10)
        def in_a_loop():
            child = asyncio.run(forks())
            return code_of(child) if child else None


        @task(timeout=10)
        def after_a_loop():
            loop = asyncio.new_event_loop()
            loop.run_until_complete(asyncio.sleep(0.01))
            if (child := os.fork()) == 0:
                loop.run_until_complete(asyncio.sleep(0.01))
                loop.close()
                os._exit(7)
            loop.close()
            return code_of(child)


        @task(timeout=10)
        def with_a_selector():
            one, other = socket.socketpair()
            selector = selectors.DefaultSelector()
            selector.register(one, selectors.EVENT_READ)
            selector.select(0)
            if (child := os.fork()) == 0:
                other.send(b"x")
                os._exit(8 + len(selector.select(1)))
            selector.close()
            return code_of(child)


        @task(timeout=10)
        def with_a_pipe():
            program = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            if (child := os.fork()) == 0:
                program.stdin.write(b"from the child\\n")
                program.stdin.flush()
                line = program.stdout.readline()
                program.stdout.close()
                os._exit(len(line))
            code = code_of(child)
            program.kill()
            program.wait()
            return code


        @task(timeout=10)
        def with_a_socket():
            listener = socket.create_server(("127.0.0.1", 0))
            if (child := os.fork()) == 0:
                connection, _ = listener.accept()
                listener.close()
                connection.sendall(connection.recv(1))
                connection.shutdown(socket.SHUT_WR)
                connection.close()
                os._exit(10)
            with socket.create_connection(listener.getsockname()) as connection:
                connection.sendall(b"y")
                received = connection.recv(1)
            listener.close()
            return [code_of(child), received.decode()]
        """,
    )
    project.worker()
    names = ("in_a_loop", "after_a_loop", "with_a_selector", "with_a_socket", "with_a_pipe")
    jobs = [project.queue(f"looping.{name}") for name in names]
    assert [project.ended(job).result for job in jobs] == [0, 7, 9, [10, "y"], 15]


@pytest.mark.parametrize("kind", ["garbage", "signal"])
def test_a_child_of_a_finalizer_or_signal_handler_does_not_go_on_with_the_code_of_the_worker(
    project: Project, kind: str
) -> None:
    project.write(
        "interrupting.py",
        """
        import gc
        import os
        import signal
        import threading

        from mrq_core import task
        from tasks import note

        FORKS_MOST = 40  # a second worker would fork again


        def fork(*ignored):
            if os.path.exists("ledger") and open("ledger").read().count("fork") >= FORKS_MOST:
                os._exit(9)
            note("fork")
            if os.fork() == 0:
                note(f"child-{os.getpid()}")


        class Forks:
            def __init__(self):
                self.me = self

            def __del__(self):
                fork()


        @task
        def leaves(kind: str):
            if kind == "garbage":
                for _ in range(3):
                    Forks()
                gc.set_threshold(1)
            else:
                signal.signal(signal.SIGUSR2, fork)


        @task
        def works(number: int):
            note(f"work-{number}-{os.getpid()}")
        """,
    )
    worker = project.worker("-g", "2")
    project.ended(project.queue("interrupting.leaves", {"kind": kind}))
    if kind == "signal":
        worker.send(signal.SIGUSR2)
    expected = 3 if kind == "garbage" else 1
    until(lambda: [line[:5] for line in project.ledger()].count("child") >= expected, what="the children")
    jobs = [project.queue("interrupting.works", {"number": number}) for number in range(20)]
    assert [(project.ended(job).status, project.ended(job).claims) for job in jobs] == [("success", 1)] * 20
    lines = [line.split("-") for line in project.ledger()]
    assert [int(line[2]) for line in lines if line[0] == "work"] == [worker.pid] * 20
    children = [int(line[1]) for line in lines if line[0] == "child"]
    assert len(children) == expected, "a child goes on with other finalizers"
    until(lambda: not any(map(has_process, children)), what="the children to end")
    worker.send(signal.SIGINT)
    assert worker.wait() == 0


HANDLERS = """
import asyncio
import multiprocessing
import os
import signal
import time

import gevent

from mrq_core import task


def ended(pid, signum):
    time.sleep(0.2)
    os.kill(pid, signum)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def forks(signum):
    pid = os.fork()
    if pid == 0:
        time.sleep(1.5)
        os._exit(7)
    return ended(pid, signum)


@task
def handles(signum: int):
    signal.signal(signum, lambda *ignored: os._exit(42))
    return forks(signum)


@task
def handles_beside(signum: int):
    found = signal.getsignal(signum)

    def handle(*arguments):
        if callable(found):
            found(*arguments)

    signal.signal(signum, handle)
    return forks(signum)


@task
def handles_in_a_loop(signum: int):
    async def main():
        asyncio.get_running_loop().add_signal_handler(signum, print)
        return forks(signum)

    return asyncio.run(main())


@task
def handles_with_gevent(signum: int):
    watcher = gevent.signal_handler(signum, print)
    try:
        return forks(signum)
    finally:
        watcher.cancel()


@task
def ignores(signum: int):
    signal.signal(signum, signal.SIG_IGN)
    return forks(signum)


@task
def does_nothing(signum: int):
    return forks(signum)


@task
def starts_a_process(signum: int):
    signal.signal(signum, lambda *ignored: os._exit(43))
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(5,))
    child.start()
    time.sleep(0.2)
    os.kill(child.pid, signum)
    child.join()
    return child.exitcode
"""


@pytest.mark.parametrize(
    "signum",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGHUP, marks=pytest.mark.campaign),
        pytest.param(signal.SIGINT, marks=pytest.mark.campaign),
    ],
)
def test_a_child_has_the_signal_handlers_of_its_task_and_none_of_the_worker(
    project: Project, signum: int
) -> None:
    project.write("handlers.py", HANDLERS)
    expected = {
        "handles": 42,
        "handles_beside": -signum if signum == signal.SIGINT else 7,
        "handles_in_a_loop": -signum,
        "handles_with_gevent": -signum,
        "ignores": 7,
        "does_nothing": -signum,
        "starts_a_process": 43,
    }
    jobs = {name: project.queue(f"handlers.{name}", {"signum": int(signum)}) for name in expected}
    project.work_off("--greenlets", "1")
    assert {name: project.ended(job).result for name, job in jobs.items()} == expected


READ = """
import os
import sys

from mrq_core import task
from tasks import note


def forks(way):
    pid = os.fork()
    if pid:
        note(f"code:{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}")
    elif way == "exits":
        sys.exit(3)
    elif way == "raises":
        raise LookupError("in the child")


class Refused(Exception):
    def __init__(self, way):
        self.way = way

    def __str__(self):
        if self.way:
            way, self.way = self.way, ""
            forks(way)
        return "its text"


class Result(dict):
    def items(self):
        forks(self.pop("way"))
        return super().items()


@task
def fails(way: str):
    raise Refused(way)


@task
def returns(way: str):
    return Result(way=way)
"""


@pytest.mark.parametrize("task", ["fails", "returns"])
@pytest.mark.parametrize(("way", "code"), [("exits", 3), ("raises", 1), ("returns", 0)])
def test_a_child_of_code_that_reads_the_end_of_a_task_ends_with_its_code(
    project: Project, task: str, way: str, code: int
) -> None:
    project.write("reading.py", READ)
    job = project.queue(f"reading.{task}", {"way": way})
    beside = neighbours(project)
    worker = project.work_off()
    assert project.ended(job).status == ("success" if task == "returns" else "failed"), worker.output
    assert [line for line in project.ledger() if line.startswith("code")] == [f"code:{code}"]
    check_neighbours(project, beside)


def has_process(pid: int) -> bool:
    """Whether the process runs. A child that has ended stays until its parent waits."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
