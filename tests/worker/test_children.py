"""A task waits for the processes that it starts, as it would in a plain program."""

from __future__ import annotations

import json

from tests.support import Project

WAITS = '''
import os
import subprocess
from gevent import os as gevent_os
from gevent.monkey import get_original
from mrq_core import task

pause = get_original("time", "sleep")


def spawned():
    """The status of a child that has ended before gevent watches it."""
    watch = gevent_os._watch_child
    gevent_os._watch_child = lambda pid: (pause(0.3), watch(pid))
    child = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 3"], os.environ)
    gevent_os._watch_child = watch
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def all_children(wait):
    """The number of children that calls have returned before one says that there are no more."""
    for _ in range(2):
        os.posix_spawnp("true", ["true"], os.environ)
    subprocess.Popen(["true"])
    ended = []
    while True:
        try:
            ended.append(wait()[0])
        except ChildProcessError:
            return len(ended) if len(set(ended)) == len(ended) else ended


def of_a_child():
    """What a forked child finds, which has no children, though its parent has one that ended."""
    os.posix_spawnp("true", ["true"], os.environ)
    pause(0.1)
    if (child := os.fork()) == 0:
        os._exit(all_children(os.wait) + 10)
    found = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return [found, os.waitstatus_to_exitcode(os.wait()[1])]


def written():
    """The error of a write to a program that reads nothing."""
    program = subprocess.Popen(["true"], stdin=subprocess.PIPE)
    program.wait()
    try:
        os.write(program.stdin.fileno(), b"x")
    except BrokenPipeError as error:
        return error.errno


def waits():
    any_child = all_children(lambda: os.waitpid(-1, 0))
    return [spawned(), any_child, all_children(os.wait), of_a_child(), written()]


@task(timeout=20)
def beside_others():
    return waits()


@task(timeout=20, isolate=True)
def solo():
    return waits()
'''
EXPECTED = [3, 3, 3, [13, 0], 32]


def test_a_task_waits_for_the_processes_that_it_starts(project: Project) -> None:
    project.write("waits.py", WAITS)
    jobs = [project.queue("waits.solo"), project.queue("waits.beside_others")]
    worker = project.work_off("--greenlets", "2")
    assert [project.ended(job).result for job in jobs] == [EXPECTED, EXPECTED], worker.output
    assert [project.ended(job).claims for job in jobs] == [1, 1]


def test_a_run_waits_for_the_processes_that_it_starts(project: Project) -> None:
    project.write("waits.py", WAITS)
    assert json.loads(project.mrq("run", "waits.solo")) == EXPECTED
