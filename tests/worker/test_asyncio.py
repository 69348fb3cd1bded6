"""Jobs that run an asyncio loop, several at a time."""

from __future__ import annotations

import pytest

from mrq_core.contract.record import Status
from tests.support import Project, until

LOOPS = '''
import asyncio
import os
import sys
import threading
import time
from asyncio import get_running_loop

import gevent
from mrq_core import log, task
from tasks import note


async def steps(n):
    loop = asyncio.get_running_loop()
    seen = 0
    for _ in range(20):
        await asyncio.sleep(0.005)
        assert get_running_loop() is loop is asyncio.get_event_loop()
        assert asyncio.current_task() in asyncio.all_tasks()
        future = asyncio.Future()
        assert future.get_loop() is loop
        time.sleep(0.001)  # which lets other greenlets run in the middle of the coroutine
        assert get_running_loop() is loop
        seen += 1
    return seen


async def child():
    code = "import sys; sys.stdout.write(sys.stdin.read().upper()); sys.exit(3)"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate(b"text")
    return [out.decode(), process.returncode]


async def together():
    async with asyncio.TaskGroup() as group:
        first = group.create_task(asyncio.to_thread(time.sleep, 0.05))
        second = group.create_task(steps(2))
    assert first.done()
    return second.result()


async def waits():
    async with asyncio.timeout(0.1):
        await asyncio.sleep(1000)


async def serves():
    async def answer(reader, writer):
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"line\\n")
    line = await reader.readline()
    server.close()
    return line.decode()


@task
def runs(what: str):
    note(what)
    while "go" not in os.listdir("."):
        time.sleep(0.005)
    try:
        return asyncio.run({"steps": steps, "child": child, "together": together, "waits": waits,
                            "serves": serves}[what](*([1] if what == "steps" else [])))
    except TimeoutError:
        return "timeout"


@task
def has_none():
    """Runs beside the loops of others."""
    note("none")
    found = []
    for _ in range(100):
        time.sleep(0.003)
        found.append(asyncio._get_running_loop())
    return found == [None] * 100


@task(timeout=0.5)
def for_ever():
    async def sleep():
        note("sleeping")
        await asyncio.sleep(1000)
    asyncio.run(sleep())
'''

RESULTS = {
    "steps": 20,
    "child": ["TEXT", 3],
    "together": 20,
    "waits": "timeout",
    "serves": "line\n",
}


@pytest.fixture(autouse=True)
def loops(project: Project) -> None:
    project.write("loops.py", LOOPS)


def test_jobs_run_asyncio_loops_at_the_same_time(project: Project) -> None:
    jobs = [(what, project.queue("loops.runs", {"what": what})) for what in [*RESULTS] * 2]
    beside = project.queue("loops.has_none")
    worker = project.worker("--greenlets", "20")
    until(lambda: len(project.ledger()) == len(jobs) + 1, what="all jobs to start")
    project.write("go", "")
    for what, job in jobs:
        record = project.ended(job)
        assert record.result == RESULTS[what], (what, record.traceback, worker.output)
    assert project.ended(beside).result is True


def test_a_timeout_ends_a_loop_and_leaves_the_thread_without_one(project: Project) -> None:
    project.write("go", "")
    job = project.queue("loops.for_ever")
    again = project.queue("loops.runs", {"what": "steps"})
    project.work_off()
    assert project.ended(job).status == Status.TIMEOUT
    assert project.ended(again).result == 20
