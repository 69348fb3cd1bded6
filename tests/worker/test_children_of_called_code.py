"""A child that is forked by code which mrq calls, or which Python runs amid mrq's own code, ends in silence
where this code ends: it goes on neither as a worker nor as its scheduler."""

from __future__ import annotations

import re
import signal

import pytest

from tests.support import Project, until

CALLED = '''
import atexit
import gc
import logging
import os
import signal
import sys
import time
import weakref

import gevent
from gevent.monkey import get_original
from mrq_core import hookimpl, log, task
from tasks import note

worker = os.getpid()
forked = []
fork = get_original("os", "fork")  # in any greenlet, as a library in C does
wait = get_original("os", "waitpid")
sleep = get_original("time", "sleep")


def fork_once(*ignored, name=os.environ["WAY"], most=1, **more):
    """Forks, and returns in the child, too. Notes the exit code of the child."""
    if os.getpid() != worker or len(forked) >= most:
        return
    forked.append(name)
    child = fork()
    if not child:
        return
    for _ in range(1000):
        done, status = wait(child, os.WNOHANG)
        if done:
            note(f"{name}:{os.waitstatus_to_exitcode(status)}")
            return
        sleep(0.01)
    os.kill(child, signal.SIGKILL)
    wait(child, 0)
    note(f"{name}:goes-on")


class Handler(logging.Handler):
    """Forks when mrq logs this event."""

    def __init__(self, event, raises=False):
        super().__init__()
        self.event, self.raises = event, raises

    def handle(self, record):
        if record.getMessage().startswith(self.event):
            fork_once()
            if self.raises and os.getpid() != worker:
                raise LookupError("of the handler")


def make_record(*arguments, **named):
    record = logging.LogRecord(*arguments, **named)
    if record.getMessage().startswith("job.success"):
        fork_once()
    return record


class Garbage:
    def __init__(self):
        self.me = self


def in_mrq(function, *more):
    """Calls the function while mrq logs the end of a job: mrq's own code goes on after it."""
    class Amid(logging.Handler):
        def handle(self, record):
            if record.getMessage().startswith("job.success"):
                root.removeHandler(self)
                function(*more)
    root.addHandler(Amid())


def collect_soon():
    gc.enable()
    gc.set_threshold(1)


def trace(frame, event, value):
    if "mrq_core/worker" in frame.f_code.co_filename and event == "call":
        sys.settrace(None)
        fork_once()
    return None


def profile(frame, event, value):
    if "mrq_core/worker" in frame.f_code.co_filename and event == "return":
        sys.setprofile(None)
        fork_once()


def collected(phase, info):
    gc.callbacks.remove(collected)
    fork_once()


def soon(start):
    """Forks in a greenlet or in the hub, when the job has ended."""
    gevent.spawn_later(0.05, start)


def leave_garbage():
    gc.disable()
    garbage = Garbage()
    weakref.finalize(garbage, fork_once).atexit = False


def leave_a_reference():
    gc.disable()
    garbage = Garbage()
    references.append(weakref.ref(garbage, fork_once))


references = []
kept = []
root = logging.getLogger()


def by_signal():
    signal.signal(signal.SIGUSR2, fork_once)
    os.kill(os.getpid(), signal.SIGUSR2)


def by_watcher():
    one, other = os.pipe()
    watcher = gevent.get_hub().loop.io(one, 1)
    kept.append((watcher, one, other))
    def readable():
        watcher.stop()
        fork_once()
    watcher.start(readable)
    os.write(other, b"x")


def by_timer():
    timer = gevent.get_hub().loop.timer(0.01)
    kept.append(timer)
    timer.start(fork_once)


def nothing():
    pass


WAYS = {
    "handler_of_a_success": lambda: root.addHandler(Handler("job.success")),
    "handler_of_a_failure": lambda: root.addHandler(Handler("job.failed")),
    "handler_of_the_end": lambda: root.addHandler(Handler("worker.stopped")),
    "handler_of_the_stop": lambda: root.addHandler(Handler("worker.stopping")),
    "handler_that_raises": lambda: root.addHandler(Handler("job.success", raises=True)),
    "record_factory": lambda: logging.setLogRecordFactory(make_record),
    "finalizer": lambda: (leave_garbage(), in_mrq(collect_soon)),
    "weak_reference": lambda: (leave_a_reference(), in_mrq(collect_soon)),
    "callback_of_the_collector": lambda: (gc.callbacks.append(collected), in_mrq(collect_soon)),
    "signal_handler": lambda: in_mrq(by_signal),
    "trace_function": lambda: in_mrq(sys.settrace, trace),
    "profile_function": lambda: in_mrq(sys.setprofile, profile),
    "callback_of_the_loop": lambda: gevent.get_hub().loop.run_callback(fork_once),
    "watcher": by_watcher,
    "timer": by_timer,
    "link": lambda: gevent.spawn(nothing).rawlink(fork_once),
    "greenlet": lambda: soon(fork_once),
    "exit_handler": lambda: atexit.register(fork_once),
}


@task
def arrange(way: str):
    WAYS[way]()
'''

SILENT = re.compile(r"Traceback|\.broke|Error|failed with|disturbed|Exception ignored")


@pytest.fixture(autouse=True)
def called(project: Project) -> None:
    project.write("called.py", CALLED)


def check(project: Project, output: str, way: str, code: int = 0) -> None:
    """The child has ended, and did no work of its parent."""
    found = [line for line in project.ledger() if line.startswith(f"{way}:")]
    assert found == [f"{way}:{code}"], output
    starts = [line for line in project.ledger() if line.startswith("start-")]
    assert len(starts) == len(set(starts))
    assert output.count("worker.stopped") == 1
    assert ("LookupError: of the handler" in output) == bool(code)
    if not code:
        assert SILENT.search(output.replace("error=ValueError: it does not work", "")) is None, output


HOOKS = """
import os
import sys

from mrq_core import hookimpl
from tasks import note

done = []


class Quiet:
    def __enter__(self):
        pass

    def __exit__(self, *ignored):
        try:
            raise KeyError("another exception, which is handled")
        except KeyError:
            pass


def forks(event):
    if event in done:
        return
    done.append(event)
    child = os.fork()
    if child:
        note(f"{event}:{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}")
    elif os.environ["END"] == "exits":
        sys.exit(3)
    elif os.environ["END"] == "raises":
        raise LookupError("of the hook")


@hookimpl
def mrq_worker_event(event):
    try:
        forks("event")
    except KeyError:
        pass
    finally:
        note("finally")


@hookimpl
def mrq_jobs_started(records):
    with Quiet():
        forks("started")


@hookimpl
def mrq_jobs_settled(settled):
    try:
        try:
            forks("settled")
        finally:
            pass
    except (KeyError, ValueError):
        pass
"""


@pytest.mark.parametrize(("end", "code"), [("exits", 3), ("raises", 1), ("returns", 0)])
def test_a_child_of_a_hook_has_the_code_of_what_leaves_the_hook(
    project: Project, end: str, code: int
) -> None:
    project.env.update(WAY="hook", END=end)
    project.write("hooking.py", HOOKS)
    job = project.queue("tasks.noted", {"word": "n"})
    worker = project.work_off("--plugins", "hooking")
    assert project.ended(job).claims == 1
    found = {line for line in project.ledger() if ":" in line}
    assert found == {f"{hook}:{code}" for hook in ("event", "started", "settled")}, worker.output
    assert worker.output.count("LookupError: of the hook") == 3 * (end == "raises")
    assert worker.output.count("worker.stopped") == 1


WAYS = (
    *("handler_of_a_success", "handler_of_the_end", "handler_of_the_stop", "handler_that_raises"),
    "record_factory",
    *("finalizer", "weak_reference", "callback_of_the_collector", "signal_handler"),
    *("trace_function", "profile_function"),
    *("callback_of_the_loop", "watcher", "timer", "link", "greenlet"),
    "exit_handler",
)
AT_THE_END = ("handler_of_the_end", "handler_of_the_stop", "exit_handler")


@pytest.mark.parametrize("way", WAYS)
def test_a_child_of_called_code_ends_where_that_code_ends(project: Project, way: str) -> None:
    project.env["WAY"] = way
    worker = project.worker("-g", "2")
    project.ended(project.queue("called.arrange", {"way": way}))
    jobs = [project.queue("tasks.noted", {"word": f"n{number}", "seconds": 0.01}) for number in range(8)]
    assert [(project.ended(job).status, project.ended(job).claims) for job in jobs] == [("success", 1)] * 8
    if way not in AT_THE_END:
        until(lambda: any(line.startswith(way) for line in project.ledger()), what="the child")
    worker.send(signal.SIGINT)
    assert worker.wait() == 0, worker.output
    check(project, worker.output, way, int(way == "handler_that_raises"))


def test_a_child_of_a_handler_in_a_solo_process_ends_where_the_handler_ends(project: Project) -> None:
    project.env["WAY"] = "solo"
    project.write(
        "alone.py",
        """
        import logging
        from called import Handler
        from mrq_core import task

        @task(isolate=True)
        def arranges():
            logging.getLogger().addHandler(Handler("job.success"))
            return "its result"
        """,
    )
    job = project.queue("alone.arranges")
    worker = project.work_off()
    assert (project.ended(job).result, project.ended(job).claims) == ("its result", 1), worker.output
    check(project, worker.output, "solo")


@pytest.mark.parametrize("hook", ["encode", "before_enqueue", "raising"])
def test_a_child_that_a_hook_forks_in_a_scheduler_makes_no_job(project: Project, hook: str) -> None:
    project.env["WAY"] = hook
    project.write(
        "hooking.py",
        """
        import os
        from called import fork_once
        from mrq_core import get_current_job, hookimpl

        way = os.environ["WAY"]
        worker = os.getpid()

        if way == "encode":
            @hookimpl
            def mrq_encode(value):
                if get_current_job() is None:
                    fork_once()
        else:
            @hookimpl
            def mrq_before_enqueue(record):
                fork_once()
                if way == "raising" and os.getpid() != worker:
                    raise LookupError("of the handler")
        """,
    )
    project.write(
        "mrq-config.py",
        'SCHEDULER_TASKS = [{"path": "tasks.noted", "params": {"word": "s"}, "interval": 1}]\n',
    )
    worker = project.worker("--scheduler", "--plugins", "hooking")
    until(lambda: "end-s" in project.ledger(), what="a job of the scheduler")
    worker.send(signal.SIGINT)
    assert worker.wait() == 0, worker.output
    project.ledger_path.write_text("\n".join(line for line in project.ledger() if line != "start-s"))
    check(project, worker.output, hook, int(hook == "raising"))
