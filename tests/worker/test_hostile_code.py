"""Hostile exceptions and results: each job gets a clear outcome."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import greenlet
import pytest

from mrq_core.contract.record import JobRecord, Status
from mrq_core.worker.executions import Execution
from mrq_core.worker.pool import GreenletPool
from tests.support import PATIENCE, Project
from tests.worker.hostile import HOSTILE
from tests.worker.records import execution

EXCEPTIONS = {
    "looks": "hostile.Looks",
    "denies": "hostile.Denies",
    "denies_all": "hostile.DeniesAll",
    "poses": "hostile.Poses",
    "nameless": "hostile.Nameless",
    "odd": "hostile.Odd",
    "named": "\\x00\\udc80.Named",
    "group": "ExceptionGroup",
    "wide_group": "ExceptionGroup",
    "deep_group": "ExceptionGroup",
    "long_chain": "ValueError",
    "cycle": "ValueError",
    "huge": "ValueError",
    "surrogates": "ValueError",
    "greenlet_exit": "greenlet.GreenletExit",
    "generator_exit": "GeneratorExit",
    "timeout_of_gevent": "gevent.timeout.Timeout",
    "keyboard": "KeyboardInterrupt",
    "deep": "ZeroDivisionError",
    "from_denied": "ValueError",
}
"""The exception type of the record, by what the code raises."""

STORED = {"text": "text", "small_number": 7, "odd_key": {"key": 1}}
"""The results that are values all the same."""

REFUSED = {
    "value": "result cannot be read",
    "unreadable": "result cannot be read, reading it raised LookupError: no items",
    "keys": "result is of type hostile.Keys",
    "big_number": "result is an integer of 100 bits",
    "digits": "result is an integer of 39864 bits",
    "recursive": "nested more than 64 levels deep",
    "odd_keys": "result has the key 1 of type int",
    "generator": "result is of type generator",
    "started": "result is of type generator",
    "exception": "result is of type ValueError",
    "bytes": "result is of type bytes",
    "nan": "result[0] is nan",
    "surrogates": "result has a lone surrogate",
}
"""The messages of results that are refused."""


FAULTY = """
from mrq_core import task
from mrq_core.worker.outcomes import Outcomes


def broken(self, context, error, started):
    raise GeneratorExit("a fault of mrq")


Outcomes.of_exception = broken


@task
def fails():
    raise ValueError("text")


@task(isolate=True)
def fails_solo():
    raise ValueError("text")
"""

LOGGING = """
import logging
from mrq_core import log, task
from hostile import OddText


@task
def levels():
    for name in (object(), "I\\udc80", "x" * 5_000_000, OddText("odd"), "INFO"):
        logging.addLevelName(logging.INFO, name)
        log.info("text")
    return "logged"
"""


@pytest.fixture(autouse=True)
def hostile(project: Project) -> None:
    project.write("hostile.py", HOSTILE)


def work_off(project: Project, path: str, hows: list[str], *arguments: str) -> dict[str, JobRecord]:
    """The records of jobs of a task, by what they do. One worker has run all, and a last good job."""
    jobs = {how: project.queue(path, {"how": how}) for how in hows}
    last = project.queue("tasks.Add", {"a": 20, "b": 22})
    project.work_off(*arguments)
    assert project.ended(last).result == 42
    records = {how: project.client.fetch(job) for how, job in jobs.items()}
    assert {record.claims for record in records.values()} == {1}
    return records


@pytest.mark.parametrize("path", ["hostile.raises", "hostile.raises_solo"])
def test_whatever_the_code_raises_fails_its_job_with_the_name_of_the_exception(
    project: Project, path: str
) -> None:
    records = work_off(project, path, list(EXCEPTIONS))
    found = {how: (record.status, record.exception_type) for how, record in records.items()}
    assert found == {how: (Status.FAILED, name) for how, name in EXCEPTIONS.items()}
    for how, record in records.items():
        text = record.traceback or ""
        assert "in raise_error" in text, how
        assert len(text) < 81_000
    assert "hostile.Denies: <exception str() failed>" in (records["group"].traceback or "")
    assert (records["long_chain"].traceback or "").endswith("ValueError: 9999\n")
    assert "ZeroDivisionError" in (records["deep"].traceback or "")
    assert records["from_denied"].original_traceback is not None


@pytest.mark.parametrize("path", ["hostile.raises_in_thread", "hostile.raises_in_greenlet"])
def test_a_job_that_waits_for_a_hostile_exception_gets_it(project: Project, path: str) -> None:
    hows = ["looks", "nameless", "odd", "group", "cycle", "huge"]
    records = work_off(project, path, hows)
    found = {how: (record.status, record.exception_type) for how, record in records.items()}
    assert found == {how: (Status.FAILED, EXCEPTIONS[how]) for how in hows}


@pytest.mark.parametrize("path", ["hostile.returns", "hostile.returns_solo"])
def test_whatever_the_code_returns_is_stored_or_refused_with_one_clear_message(
    project: Project, path: str
) -> None:
    records = work_off(project, path, [*STORED, *REFUSED])
    assert {how: record.result for how, record in records.items() if how in STORED} == STORED
    for how, message in REFUSED.items():
        record = records[how]
        assert (record.status, record.exception_type) == (Status.FAILED, "mrq_core.errors.InvalidValue"), how
        assert message in (record.traceback or ""), how


def test_a_message_that_waits_is_interrupted_by_the_timeout_of_its_job(project: Project) -> None:
    job = project.queue("hostile.sleeps_in_str")
    last = project.queue("tasks.Add", {"a": 20, "b": 22})
    project.work_off()
    record = project.ended(job)
    assert (record.status, record.exception_type) == (Status.FAILED, "hostile.Sleeps")
    assert project.ended(last).result == 42


@pytest.mark.parametrize("path", ["faulty.fails", "faulty.fails_solo"])
def test_a_fault_of_mrq_fails_its_job_and_the_worker_goes_on(project: Project, path: str) -> None:
    project.write("faulty.py", FAULTY)
    jobs = [project.queue(path) for _ in range(2)]
    last = project.queue("tasks.Add", {"a": 20, "b": 22})
    project.work_off()
    for job in jobs:
        record = project.ended(job)
        assert (record.status, record.exception_type, record.claims) == (Status.FAILED, "GeneratorExit", 1)
        assert "a fault of mrq" in (record.traceback or "")
    assert project.ended(last).result == 42


def test_odd_names_of_levels_reach_the_log_as_text_or_not_at_all(project: Project) -> None:
    project.write("logging_tasks.py", LOGGING)
    job = project.queue("logging_tasks.levels")
    project.work_off()
    assert project.ended(job).result == "logged"
    lines = project.client.broker.read_logs(job).lines
    assert [line.level for line in lines] == ["I\\udc80", "x" * 30, "odd", "INFO"]


def test_a_greenlet_whose_run_raises_makes_room_for_another() -> None:
    ran: list[Execution] = []

    def run(one: Execution) -> bool:
        ran.append(one)
        if len(ran) < 3:
            raise GeneratorExit
        return True

    pool = GreenletPool(1, run)
    executions = [execution() for _ in range(3)]
    for one in executions:
        pool.start(one)
    with gevent.Timeout(PATIENCE):
        while len(ran) < 3:
            gevent.sleep(0.001)
    assert ran == executions


def remove_links(this: Any) -> None:
    this.unlink_all()


def have_another_parent(this: Any) -> None:
    this.parent = greenlet.greenlet(int, gevent.get_hub())


def have_the_main_greenlet_as_parent(this: Any) -> None:
    this.parent = gevent.get_hub().parent


def have_another_class(this: Any) -> None:
    def refuse(*arguments: object) -> Any:
        raise ValueError("an attribute")

    this.__class__ = type("Odd", (type(this),), {"__getattribute__": refuse, "__setattr__": refuse})


CHANGES = (remove_links, have_another_parent, have_the_main_greenlet_as_parent, have_another_class)


@pytest.mark.parametrize("change", CHANGES)
def test_a_greenlet_that_a_task_has_changed_makes_room_for_another(change: Callable[[Any], None]) -> None:
    ran: list[Execution] = []

    def run(one: Execution) -> bool:
        ran.append(one)
        change(one.greenlet)
        return False

    pool = GreenletPool(2, run)
    executions = [execution() for _ in range(6)]
    for one in executions:
        pool.start(one)
    with gevent.Timeout(PATIENCE):
        while len(ran) < len(executions):
            gevent.sleep(0.001)
    assert ran == executions


def test_a_job_whose_greenlet_has_another_class_has_its_own_outcome(project: Project) -> None:
    project.write(
        "classes.py",
        """
        import gevent
        from mrq_core import task

        def refuse(*arguments):
            raise ValueError("an attribute")

        @task
        def changes_its_class():
            this = gevent.getcurrent()
            this.__class__ = type("Odd", (type(this),), {"__getattribute__": refuse, "__setattr__": refuse})
            return "done"
    """,
    )
    job = project.queue("classes.changes_its_class")
    later = [project.queue("tasks.Add", {"a": n, "b": 1}) for n in range(3)]
    project.work_off("--greenlets", "1")
    assert project.ended(job).result == "done"
    assert [project.ended(one).result for one in later] == [1, 2, 3]


TRACES = """
import os
import time

import greenlet
from mrq_core import task


@task
def traces(number: int):
    calls = []

    def trace(event, arguments):
        calls.append(event)
        if len(calls) > number:
            raise ValueError("traced")

    greenlet.settrace(trace)
    time.sleep(0.01)


@task(at_most_once=True)
def once(number: int):
    with open(os.environ["LEDGER"], "a") as file:
        file.write(f"{number}\\n")
    time.sleep(0.001)
"""


def test_a_trace_function_of_greenlets_that_raises_reaches_no_other_job(project: Project) -> None:
    project.write("tracing.py", TRACES)
    others = []
    for number in range(40):
        project.queue("tracing.traces", {"number": number % 8})
        others.append(project.queue("tracing.once", {"number": number}))
    worker = project.work_off("--greenlets", "5")
    assert {project.ended(job_id).status for job_id in others} == {Status.SUCCESS}, worker.output
    assert sorted(map(int, project.ledger())) == list(range(40))


TRACED_LOOPS = """
import asyncio

import greenlet
from mrq_core import task


def ignores(event, arguments):
    pass


def raises(event, arguments):
    raise ValueError("traced")


async def loops():
    for _ in range(20):
        await asyncio.sleep(0.002)
        assert asyncio.get_running_loop() is asyncio.current_task().get_loop()
    return "done"


@task
def runs():
    return asyncio.run(loops())


@task
def traces(name: str):
    async def main():
        earlier = greenlet.settrace(globals()[name])
        if name == "ignores":
            assert greenlet.gettrace() is ignores
        await loops()
        greenlet.settrace(earlier)
        return await loops()

    return asyncio.run(main())
"""


@pytest.mark.parametrize("name", ["ignores", "raises"])
def test_a_trace_function_of_greenlets_does_not_mix_the_loops_of_asyncio(project: Project, name: str) -> None:
    project.write("looping.py", TRACED_LOOPS)
    jobs = []
    for _ in range(6):
        jobs += [project.queue("looping.traces", {"name": name}), project.queue("looping.runs")]
    worker = project.work_off("--greenlets", "4")
    assert [project.ended(job_id).result for job_id in jobs] == ["done"] * len(jobs), worker.output


COMMANDS = """
import runpy
import sys

from mrq_core import task


@task
def calls(arguments: list[str]):
    sys.argv = ["mrq", *arguments]
    runpy.run_module("mrq_core.cli", run_name="__main__")


@task
def ends():
    return "done"
"""


@pytest.mark.parametrize("arguments", [["worker", "--burst"], ["jobs", "list"], ["--version"]])
def test_a_command_that_a_job_calls_in_the_process_of_its_worker_is_refused(
    project: Project, arguments: list[str]
) -> None:
    project.write("commanding.py", COMMANDS)
    calls = [project.queue("commanding.calls", {"arguments": list(arguments)}) for _ in range(3)]
    ends = [project.queue("commanding.ends") for _ in range(3)]
    worker = project.work_off("--greenlets", "2")
    assert [project.ended(job_id).result for job_id in ends] == ["done"] * 3, worker.output
    for job_id in calls:
        job = project.ended(job_id)
        assert (job.status, job.exception_type) == (Status.FAILED, "SystemExit")
        assert "start the command in another process" in (job.traceback or "")
