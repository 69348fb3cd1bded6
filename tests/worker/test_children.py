"""A task waits for the processes that it starts, as it would in a plain program."""

from __future__ import annotations

import json

from tests.support import Project

WAITS = '''
import os
import subprocess
import gevent
from gevent import os as gevent_os
from gevent.monkey import get_original
from mrq_core import task
from mrq_core.worker.guards import children

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


def kept():
    """Whether a child that has ended is there until its parent has waited, and not afterwards."""
    child = subprocess.Popen(["sh", "-c", "kill -9 $$"], stdout=subprocess.PIPE)
    child.stdout.read()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    gevent.sleep(0.01)  # the loop learns of the end
    os.close(os.pidfd_open(child.pid))
    code = child.wait()
    try:
        os.pidfd_open(child.pid)
    except ProcessLookupError:
        return code


def of_a_thread():
    """The results of child processes that a native thread starts and waits for."""
    pool = gevent.get_hub().threadpool
    done = pool.apply(subprocess.run, (["cat"],), {"input": b"read", "stdout": subprocess.PIPE})
    try:
        pool.apply(subprocess.run, (["sleep", "60"],), {"timeout": 0.1})
    except subprocess.TimeoutExpired as late:
        timeout = late.timeout
    started = pool.apply(subprocess.Popen, (["sh", "-c", "exit 5"],))
    forked = pool.apply(lambda: os.waitstatus_to_exitcode(os.waitpid(fork(), 0)[1]))
    return [done.stdout.decode(), timeout, started.wait(), forked]


def fork():
    child = os.fork()
    if child == 0:
        os._exit(6)
    return child


def lets_others_go_on():
    """Whether other greenlets run while this waits for a child that gevent does not watch, or for a group."""
    for group in (False, True):
        child = get_original("os", "posix_spawnp")("sleep", ["sleep", "0.2"], os.environ, setpgroup=0)
        rounds = []
        ticks = gevent.spawn(lambda: [rounds.append(gevent.sleep(0.01)) for _ in range(100)])
        os.waitpid(-child if group else child, 0)
        ticks.kill()
        if len(rounds) < 3:
            return False
    return True


def abandoned():
    """Whether children for which nothing waits are left: two that know their status, and one that was started
    otherwise, before and after there are too many."""
    abandoned = [
        subprocess.Popen(["true"]).pid,
        gevent.get_hub().threadpool.apply(subprocess.Popen, (["true"],)).pid,
        get_original("os", "posix_spawnp")("true", ["true"], os.environ),
    ]
    for child in abandoned:
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    limits = children._KEPT, children._UNTAKEN_MOST
    children._KEPT = 0.0
    for _ in range(2):
        subprocess.run(["true"])
    left = [os.path.exists(f"/proc/{child}") for child in abandoned]
    children._UNTAKEN_MOST = 0
    subprocess.run(["true"])
    children._KEPT, children._UNTAKEN_MOST = limits
    return [*left, os.path.exists(f"/proc/{abandoned[2]}")]


def waits():
    any_child = all_children(lambda: os.waitpid(-1, 0))
    waited = [spawned(), any_child, all_children(os.wait), of_a_child(), written()]
    return [*waited, kept(), of_a_thread(), lets_others_go_on(), abandoned()]


@task(timeout=20)
def beside_others():
    return waits()


@task(timeout=20, isolate=True)
def solo():
    return waits()
'''
EXPECTED = [3, 3, 3, [13, 0], 32, -9, ["read", 0.1, 5, 6], True, [False, False, True, False]]


def test_a_task_waits_for_the_processes_that_it_starts(project: Project) -> None:
    project.write("waits.py", WAITS)
    jobs = [project.queue("waits.solo"), project.queue("waits.beside_others")]
    worker = project.work_off("--greenlets", "2")
    assert [project.ended(job).result for job in jobs] == [EXPECTED, EXPECTED], worker.output
    assert [project.ended(job).claims for job in jobs] == [1, 1]


def test_a_run_waits_for_the_processes_that_it_starts(project: Project) -> None:
    project.write("waits.py", WAITS)
    assert json.loads(project.mrq("run", "waits.solo")) == EXPECTED
