"""The last resort ends the process with its exit code, whatever breaks on the way."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time

import pytest

from mrq_core.contract.messages import Outcome
from mrq_core.contract.record import Status
from mrq_core.errors import Interrupt
from mrq_core.running.context import JobContext
from mrq_core.worker import giving_up
from mrq_core.worker.giving_up import GivingUp
from mrq_core.worker.outcomes import Outcomes
from mrq_core.worker.stopping import Stopping
from tests.support import Project, until
from tests.worker.test_claim_kinds import Bench

BREAKING = """
import os, time
from dataclasses import replace
from gevent.monkey import get_original
from mrq_core import hookimpl
from mrq_core.client.client import Client
from mrq_core.config.sources import load_config
from mrq_core.contract.driver import Driver
from mrq_core.plugins.opening import open_broker
from mrq_core.worker.giving_up import _CALL_SECONDS


def raise_value_error(*arguments):
    raise ValueError("broken on purpose")


def leave(*arguments):
    raise SystemExit(7)


def hang(*arguments):
    get_original("time", "sleep")(1000)


def opened(opening):
    '''The real broker. What the last resort opens is broken.'''
    settings = {"broker": os.environ["REAL_BROKER"], "store": os.environ["REAL_STORE"]}
    config = replace(load_config(settings, environ={}), broker_timeout=opening.timeout)
    broker = open_broker(config, Client(config).plugins, run_blocking=opening.run_blocking)
    if opening.timeout == _CALL_SECONDS:
        match os.environ["BREAK"]:
            case "open":
                raise_value_error()
            case "settle":
                broker.settle = raise_value_error
            case "logs":
                broker.append_logs = raise_value_error
            case "exit":
                broker.settle = leave
            case "hang":
                broker.settle = hang
    return broker


@hookimpl
def mrq_driver():
    return Driver(name="breaking", summary="", open_broker=opened)
"""

DEAF = """
import logging, os, time
from tasks import note
from mrq_core import hookimpl, task
from mrq_core.embedded.server.forks import is_transaction_running


def wait_for_ever():
    note("deaf")
    while True:
        try:
            logging.warning("a line")
            time.sleep(0.05)
        except BaseException:
            pass


@task(timeout=0.5)
def deaf():
    wait_for_ever()


@task
def spins_deaf():
    note("deaf")
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass


@task(timeout=0.5)
def closes_stderr():
    os.close(2)
    wait_for_ever()


@task
def closes(kind):
    # As a double close of a descriptor does.
    for number in range(3, 100):
        try:
            found = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        if found.startswith(kind):
            os.close(number)
            return


@task
def takes_database():
    while is_transaction_running():  # which would write into these files
        time.sleep(0.001)
    numbers = [n for n in range(3, 100) if ".sqlite3" in os.path.realpath(f"/proc/self/fd/{n}")]
    for number in range(20):
        own = os.open(f"own{number}", os.O_RDWR | os.O_CREAT)
        if number < len(numbers):
            os.dup2(own, numbers[number])  # at once: the worker opens its files anew where they are closed


@task
def closes_all():
    time.sleep(0.5)
    os.closerange(3, 1000)
    time.sleep(2)


@task
def opens_all():
    opened = []
    try:
        while True:
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass
    time.sleep(12)


@task
def naps():
    time.sleep(2)


@task
def waits():
    note("waits")
    time.sleep(20 if len(open("ledger").read().splitlines()) == 1 else 0)


@task(timeout=0.5)
def garbage():
    return "garbage"
"""

DEAF_PLUGIN = """
from deaf_tasks import wait_for_ever
from mrq_core import hookimpl
from mrq_core.worker import outcomes

checked = outcomes.storable


def unchecked(value, **more):
    return object() if value == "garbage" else checked(value, **more)


outcomes.storable = unchecked


@hookimpl(wrapper=True)
def mrq_around_job(context):
    result = yield
    if context.job.path.endswith("garbage"):
        wait_for_ever()
    return result
"""


@pytest.fixture(autouse=True)
def deaf_tasks(request: pytest.FixtureRequest) -> None:
    if "project" in request.fixturenames:
        request.getfixturevalue("project").write("deaf_tasks.py", DEAF)


def break_last_calls(project: Project, what: str) -> None:
    """Puts the plugin BREAKING before the broker of workers that are started later."""
    project.write("breaking.py", BREAKING)
    project.env |= {
        "REAL_BROKER": project.address.broker,
        "REAL_STORE": project.address.store,
        "BREAK": what,
        "MRQ_BROKER": "breaking",
        "MRQ_STORE": "",
    }


@pytest.mark.parametrize("what", ["open", "settle", "logs", "exit", "hang"])
def test_a_worker_that_is_given_up_exits_though_its_last_calls_break(project: Project, what: str) -> None:
    break_last_calls(project, what)
    job = project.queue("deaf_tasks.deaf")
    worker = project.worker("--plugins", "breaking", "--lease", "60")
    assert worker.wait() == 1
    assert project.ledger() == ["deaf"]
    status = project.client.fetch(job).status
    # Its log may have been stored before.
    assert status in ({Status.FAILED, Status.TIMEOUT} if what == "logs" else {Status.STARTED})
    assert project.client.fetch(job).lost_claims == 0


def test_a_stopping_worker_that_is_given_up_is_gone_within_five_seconds(project: Project) -> None:
    break_last_calls(project, "hang")
    project.queue("deaf_tasks.spins_deaf")
    worker = project.worker("--plugins", "breaking")
    until(lambda: project.ledger() == ["deaf"], what="the job to start")
    started = time.monotonic()
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert time.monotonic() - started < 5.0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["anon_inode:[eventfd]", "pipe:", "socket:"])
def test_a_worker_whose_descriptor_a_task_closes_is_given_up_and_loses_no_job(
    project: Project, kind: str
) -> None:
    other = project.queue("deaf_tasks.waits")
    worker = project.worker("--greenlets", "3", "--lease", "3")
    until(lambda: project.ledger() == ["waits"], what="the job to start")
    job = project.queue("deaf_tasks.closes", {"kind": kind})
    assert worker.wait() == 1
    assert "which the worker needs: this worker was given up" in worker.output
    project.worker("--lease", "3")
    assert project.ended(other).status == project.ended(job).status == Status.SUCCESS
    assert project.ledger() == ["waits", "waits"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_whose_database_lost_descriptors_to_other_files_is_given_up(project: Project) -> None:
    if not project.address.broker.startswith("sqlite"):
        pytest.skip("the embedded broker has files")
    job = project.queue("deaf_tasks.takes_database")
    worker = project.worker("--burst", "--lease", "3")
    assert worker.wait() == 1
    [said] = [line for line in worker.output.splitlines() if "this worker was given up" in line]
    assert "in which code has closed descriptors of the database" in said
    assert {(project.path / f"own{number}").stat().st_size for number in range(20)} == {0}
    assert project.client.fetch(job).status == Status.STARTED


@pytest.mark.campaign
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("task", ["closes_all", "opens_all"])
def test_a_job_that_ends_its_worker_each_time_comes_to_run_solo(project: Project, task: str) -> None:
    job = project.queue(f"deaf_tasks.{task}")
    others = [project.queue("deaf_tasks.naps") for _ in range(4)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    try:
        project.start("worker", "-p", "1", "-g", "5", "--lease", "2", "--stop-grace", "1")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for other in others:
        assert project.ended(other).status == Status.SUCCESS
    record = project.ended(job)
    assert 3 <= record.claims <= 5
    if task == "closes_all":  # it closes those of the solo process, too
        assert (record.status, record.exception_type) == (Status.FAILED, "mrq_core.errors.ProcessDied")
    else:
        assert record.status == Status.SUCCESS


def test_a_worker_that_is_given_up_exits_though_it_cannot_say_so(project: Project) -> None:
    job = project.queue("deaf_tasks.closes_stderr")
    worker = project.worker()
    assert worker.wait() == 1
    assert project.ended(job).status == Status.TIMEOUT


def test_an_outcome_that_cannot_be_stored_is_a_failure_in_the_last_resort_too(project: Project) -> None:
    project.write("deaf_plugin.py", DEAF_PLUGIN)
    job = project.queue("deaf_tasks.garbage")
    worker = project.worker("--plugins", "deaf_plugin")
    assert worker.wait() == 1
    record = project.ended(job)
    assert record.status == Status.FAILED
    assert "could not be stored" in (record.traceback or "")


class Exit(BaseException):
    """The end of the process."""


class BrokenOutcomes(Outcomes):
    """Cannot form the outcome of the first job."""

    broken: JobContext

    def forced(self, context: JobContext, interrupt: Interrupt, started: float) -> Outcome:
        if context is self.broken:
            raise ValueError("broken on purpose")
        return super().forced(context, interrupt, started)


def test_an_outcome_that_cannot_be_formed_keeps_no_other_from_being_settled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    codes: list[int] = []

    def leave(code: int) -> None:
        codes.append(code)
        raise Exit

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(giving_up, "end_process_within", lambda seconds, code, reason: None)
    bench = Bench()
    broken, other = bench.hold_jobs(2)
    outcomes = BrokenOutcomes(bench.client.config, bench.client.plugins)
    outcomes.broken = broken.context
    with pytest.raises(Exit):
        GivingUp(bench.state, outcomes, Stopping(bench.state)).give_up(broken)
    assert codes == [1]
    assert bench.status_of([broken, other]) == [Status.STARTED, Status.INTERRUPT]
