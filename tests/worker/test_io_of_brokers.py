"""With TRACE_IO, calls of the broker count for a job if its code makes them: those of the worker do not."""

from __future__ import annotations

import re

import pytest

from mrq_core.operations.workers import list_workers
from tests.support import Project, until

TASKS = """
import time

from mrq_core import queue_job, set_current_job_progress, task


@task
def enqueues():
    for _ in range(3):
        queue_job("tasks.Add", {"a": 1, "b": 2}, queue="other")


@task
def rests():
    set_current_job_progress(0.5)
    time.sleep(1.2)


@task(isolate=True)
def rests_alone():
    time.sleep(0.1)
"""

ASKING = """
import os
import socket
import time

import gevent
import pymongo
from mrq_core import task


@task
def asks():
    orders = pymongo.MongoClient(os.environ["MONGO"]).shop.orders
    orders.insert_one({})
    try:
        with gevent.Timeout(3):
            list(orders.find({"$where": "sleep(10000) || true"}))
    except gevent.Timeout:
        pass
    time.sleep(2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).recv(1)
"""


def test_only_calls_of_the_job_count_and_its_log_keeps_the_totals(project: Project) -> None:
    project.write("calling.py", TASKS)
    rests = [project.queue(f"calling.{name}") for name in ("rests", "rests_alone")]
    enqueues = project.queue("calling.enqueues")
    project.work_off("--trace-io", "-g", "3")
    assert [project.log_of(job) for job in rests] == [[], []]
    [line] = project.log_of(enqueues)
    scheme = project.address.broker.partition(":")[0]
    assert line.startswith("I/O: "), line
    assert f"{scheme} " in line


def test_a_command_of_mongodb_is_named_while_its_server_answers_late(project: Project) -> None:
    """Also after an interrupt, which keeps pymongo from telling the end of a command."""
    if not project.address.broker.startswith("mongodb:"):
        pytest.skip("needs a server of MongoDB")
    project.env["MONGO"] = project.address.broker
    project.write("asking.py", ASKING)
    project.queue("asking.asks")
    project.worker("--trace-io")
    wanted = [["mongodb find on shop.orders"], [], ["socket recv from 127.0.0.1"]]

    def seen() -> bool:
        for worker in list_workers(project.client.broker):
            for job in worker.running:
                calls = [] if job.io is None else [f"{call.kind} {call.text}" for call in job.io.calls]
                if wanted and [re.split(r" at |:", one)[0] for one in calls] == wanted[0]:
                    del wanted[0]
        return not wanted

    until(seen, what="the calls, in this order")
