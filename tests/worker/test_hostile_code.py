"""Hostile exceptions, results and answers to interrupts: each job gets a clear outcome."""

from __future__ import annotations

import signal

import gevent
import pytest

from mrq_core.contract.record import JobRecord, Status
from mrq_core.worker.executions import Execution
from mrq_core.worker.pool import GreenletPool
from tests.support import PATIENCE, Project, until
from tests.worker.records import execution

HOSTILE = '''
import sys
import time
import gevent
from mrq_core import task
from mrq_core.errors import TimeoutInterrupt
from tasks import note


def hostile(*arguments):
    raise SystemExit("hostile")


class Looks(Exception):
    """Raises for each attribute that it does not have."""

    def __getattr__(self, name):
        return self.values[name]


class Denies(Exception):
    __str__ = __repr__ = __bool__ = __len__ = __eq__ = hostile
    __class__ = __traceback__ = __cause__ = __context__ = __notes__ = property(hostile)
    __suppress_context__ = with_traceback = add_note = property(hostile)
    __hash__ = None


class DeniesAll(BaseException):
    def __getattribute__(self, name):
        raise KeyboardInterrupt(name)

    __str__ = hostile


class Poses(Exception):
    """Says that it is a timeout."""

    __class__ = property(lambda self: TimeoutInterrupt)


class Kind(type):
    def __getattribute__(self, name):
        raise RuntimeError(name)


class Nameless(Exception, metaclass=Kind):
    pass


class Sleeps(Exception):
    def __str__(self):
        time.sleep(1000)


class OddText(str):
    __format__ = __len__ = __getitem__ = __add__ = __radd__ = isascii = encode = hostile


class Odd(Exception):
    def __str__(self):
        return OddText("odd")


class Named(Exception):
    __module__ = "\\0\\udc80"


def chained(number):
    error = None
    for index in range(number):
        error, before = ValueError(index), error
        error.__cause__ = before
    return error


def cyclic():
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    return one


def nested(depth):
    error = ValueError("innermost")
    for _ in range(depth):
        error = ExceptionGroup("nested", [error])
    return error


def deep(frames):
    return deep(frames - 1) if frames else 1 / 0


ERRORS = {
    "looks": lambda: Looks("text"),
    "denies": Denies,
    "denies_all": DeniesAll,
    "poses": Poses,
    "nameless": lambda: Nameless("text"),
    "odd": Odd,
    "named": Named,
    "group": lambda: ExceptionGroup("group", [Looks("text"), Denies(), Nameless()]),
    "wide_group": lambda: ExceptionGroup("wide", [ValueError(n) for n in range(100_000)]),
    "deep_group": lambda: nested(10_000),
    "long_chain": lambda: chained(10_000),
    "cycle": cyclic,
    "huge": lambda: ValueError("x" * 50_000_000),
    "surrogates": lambda: ValueError("\\udc80 and \\0"),
    "greenlet_exit": gevent.GreenletExit,
    "generator_exit": GeneratorExit,
    "timeout_of_gevent": lambda: gevent.Timeout(1000),
    "keyboard": KeyboardInterrupt,
}


def raise_error(how):
    if how == "deep":
        sys.setrecursionlimit(200_000)
        deep(100_000)
    if how == "from_denied":
        try:
            raise Denies
        except BaseException as error:
            raise ValueError("after") from error
    raise ERRORS[how]()


@task(retry_on=(LookupError,))
def raises(how: str):
    raise_error(how)


@task(isolate=True)
def raises_solo(how: str):
    raise_error(how)


@task(timeout=0.5)
def sleeps_in_str():
    raise Sleeps


class Value:
    __repr__ = __eq__ = __iter__ = __len__ = __bool__ = __getattr__ = hostile
    __hash__ = None
    __class__ = property(hostile)


class Unreadable(dict):
    def items(self):
        raise LookupError("no items")


class Keys:
    def keys(self):
        raise LookupError("no keys")


class Text(str):
    __str__ = __eq__ = isascii = hostile
    __hash__ = None


class Key(str):
    __repr__ = __contains__ = __str__ = isascii = hostile


class Number(int):
    __le__ = __ge__ = __lt__ = __gt__ = lambda self, other: True
    __int__ = __index__ = lambda self: 5


def generates():
    try:
        yield 1
    finally:
        hostile()


def started():
    generator = generates()
    next(generator)
    return generator


def recursive():
    value = []
    value += [value, value]
    return value


VALUES = {
    "value": Value,
    "unreadable": lambda: Unreadable(a=1),
    "keys": Keys,
    "text": lambda: Text("text"),
    "big_number": lambda: Number(10**30),
    "small_number": lambda: Number(7),
    "digits": lambda: int("9" * 4000) ** 3,
    "recursive": recursive,
    "odd_keys": lambda: {1: "one"},
    "odd_key": lambda: {Key("key"): 1},
    "generator": generates,
    "started": started,
    "exception": lambda: ValueError("returned"),
    "bytes": lambda: b"bytes",
    "nan": lambda: [float("nan")],
    "surrogates": lambda: "\\udc80",
}


@task
def returns(how: str):
    return VALUES[how]()


@task(isolate=True)
def returns_solo(how: str):
    return VALUES[how]()


@task(timeout=0.5)
def swallows(value: object = None, seconds: float = 0):
    note("swallows")
    try:
        time.sleep(1000)
    except BaseException:
        pass
    return value


@task(timeout=0.5, isolate=True)
def swallows_solo():
    return swallows.function("kept")


@task(timeout=0)
def swallows_later():
    return swallows.function("kept")
'''

RAISED = {
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
    "big_number": "result is the integer of 100 bits",
    "digits": "result is the integer of 39864 bits",
    "recursive": "nested more than 64 levels deep",
    "odd_keys": "result has the key of 1 bits of type int",
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
    records = work_off(project, path, list(RAISED))
    found = {how: (record.status, record.exception_type) for how, record in records.items()}
    assert found == {how: (Status.FAILED, name) for how, name in RAISED.items()}
    for how, record in records.items():
        text = record.traceback or ""
        assert "in raise_error" in text, how
        assert len(text) < 81_000
    assert "hostile.Denies: <exception str() failed>" in (records["group"].traceback or "")
    assert (records["long_chain"].traceback or "").endswith("ValueError: 9999\n")
    assert "ZeroDivisionError" in (records["deep"].traceback or "")
    assert records["from_denied"].original_traceback is not None


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


@pytest.mark.parametrize("path", ["hostile.swallows", "hostile.swallows_solo"])
def test_code_that_swallows_its_timeout_and_returns_is_a_timeout_whose_log_has_the_result(
    project: Project, path: str
) -> None:
    job = project.queue(path, {"value": "kept"} if path == "hostile.swallows" else {})
    project.work_off()
    record = project.ended(job)
    assert (record.status, record.result) == (Status.TIMEOUT, None)
    assert record.exception_type == "mrq_core.errors.TimeoutInterrupt"
    assert "in swallows" in (record.traceback or "")
    assert any('TimeoutInterrupt and returned "kept"' in line for line in project.log_of(job))


def test_code_that_swallows_a_timeout_and_returns_what_cannot_be_stored_is_a_timeout(
    project: Project,
) -> None:
    project.write(
        "swallowing.py",
        """
        from hostile import swallows
        from mrq_core import task

        @task(timeout=0.5)
        def odd():
            swallows.function()
            return b"bytes"
        """,
    )
    job = project.queue("swallowing.odd")
    project.work_off()
    assert project.ended(job).status == Status.TIMEOUT
    assert "result is of type bytes" in (project.ended(job).traceback or "")


def test_code_that_swallows_a_cancel_and_returns_is_cancelled(project: Project) -> None:
    job = project.queue("hostile.swallows_later")
    worker = project.worker("--paused-queues-refresh-interval", "0.05")
    until(project.ledger, what="the job to start")
    project.job(job).cancel(interrupt=True)
    assert project.ended(job).status == Status.CANCEL
    assert any('CancelInterrupt and returned "kept"' in line for line in project.log_of(job))
    assert worker.popen.poll() is None


def test_code_that_a_stop_interrupts_and_that_returns_has_succeeded(project: Project) -> None:
    job = project.queue("hostile.swallows_later")
    worker = project.worker()
    until(project.ledger, what="the job to start")
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    record = project.client.fetch(job)
    assert (record.status, record.result) == (Status.SUCCESS, "kept")


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

    def run(one: Execution) -> None:
        ran.append(one)
        if len(ran) < 3:
            raise GeneratorExit

    pool = GreenletPool(1, run)
    executions = [execution() for _ in range(3)]
    for one in executions:
        pool.start(one)
    with gevent.Timeout(PATIENCE):
        while len(ran) < 3:
            gevent.sleep(0.001)
    assert ran == executions
