"""`mrq scheduler` and `mrq worker --scheduler`."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from mrq_core.contract.queries import JobFilter, Order
from mrq_core.contract.record import JobRecord
from mrq_core.ids import seconds_of
from mrq_core.operations import schedules
from tests import brokers
from tests.mongo.servers import Server as MongoServer
from tests.redis.servers import Server as RedisServer
from tests.support import PATIENCE, Project, open_project, until

TASKS = """
from mrq_core import Task, task

@task(every=1)
def tick():
    return "tick"

class Report(Task):
    def run(self, params):
        return params["a"]
"""


@pytest.fixture(params=brokers.PARAMS)
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Project]:
    with open_project(tmp_path, *brokers.address_of(request.param, tmp_path)) as opened:
        opened.write("tasks.py", TASKS)
        opened.write(
            "mrq-config.py",
            'SCHEDULER_TASKS = [{"path": "tasks.Report", "params": {"a": 5}, "interval": 3600}]',
        )
        yield opened


def jobs(project: Project, path: str) -> list[JobRecord]:
    page = project.client.broker.find(JobFilter(paths=(path,)), order=Order.OLDEST_FIRST, limit=1000)
    return list(page.records)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_mrq_scheduler_queues_jobs_until_it_is_told_to_stop(project: Project, number: signal.Signals) -> None:
    earlier = signal.signal(number, signal.SIG_IGN)  # as in the background of a shell without job control
    try:
        process = project.start("scheduler")
    finally:
        signal.signal(number, earlier)
    process.until_output("scheduler.started")
    until(lambda: len(jobs(project, "tasks.tick")) >= 4)
    assert schedules.schedulers(project.client.broker) != []
    process.send(number)
    assert process.wait(10) == 0, process.output
    assert schedules.schedulers(project.client.broker) == []
    (report,) = jobs(project, "tasks.Report")
    assert report.params == {"a": 5}
    ticks = jobs(project, "tasks.tick")
    seconds = [seconds_of(job.id) for job in ticks]
    assert seconds == list(range(seconds[0], seconds[0] + len(ticks)))


def test_fires_are_made_within_a_tenth_of_a_second(project: Project) -> None:
    process = project.start("scheduler")
    process.until_output("scheduler.started")
    until(lambda: len(jobs(project, "tasks.tick")) >= 8)
    process.end()
    (stored,) = [
        one for one in schedules.list_schedules(project.client.broker) if one.definition.interval == 1
    ]
    times = {fire.job: fire.at for fire in stored.recent}
    late = sorted(
        job.due_at.timestamp() * 1000 - times[job.id]
        for job in jobs(project, "tasks.tick")
        if job.due_at is not None and job.id in times
    )
    assert late[0] >= 0
    assert late[len(late) // 2] < 100, "of half of them, whatever else the machine does"


@pytest.mark.parametrize("kind", ["redis", pytest.param("mongo", marks=pytest.mark.campaign)])
def test_a_server_that_is_killed_and_comes_back_loses_and_doubles_no_fire(tmp_path: Path, kind: str) -> None:
    server = (
        RedisServer("--appendonly", "yes", "--appendfsync", "always") if kind == "redis" else MongoServer()
    )
    try:
        with open_project(tmp_path, server.url) as project:
            project.write("tasks.py", TASKS.replace("every=1", 'every=1, schedule={"missed": "all"}'))
            processes = [project.start("scheduler", "--broker-timeout", "2") for _ in range(2)]
            for process in processes:
                process.until_output("scheduler.started")
            until(lambda: len(jobs(project, "tasks.tick")) >= 2)
            server.kill()
            for process in processes:
                process.until_output("scheduler.waiting")
            server.start()
            before = len(jobs(project, "tasks.tick"))
            until(lambda: len(jobs(project, "tasks.tick")) >= before + 4)
            seconds = [seconds_of(job.id) for job in jobs(project, "tasks.tick")]
            assert seconds == list(range(seconds[0], seconds[0] + len(seconds)))
    finally:
        server.stop()


def test_a_worker_runs_the_scheduler_and_its_jobs(project: Project) -> None:
    worker = project.worker("--scheduler", "-g", "2")
    until(lambda: sum(job.result == "tick" for job in jobs(project, "tasks.tick")) >= 3)
    (report,) = jobs(project, "tasks.Report")
    assert project.ended(report.id).result == 5
    worker.send(signal.SIGTERM)
    assert worker.wait(PATIENCE) == 0, worker.output
    assert schedules.schedulers(project.client.broker) == []


def test_several_workers_under_one_parent_make_one_job_of_each_fire(project: Project) -> None:
    parent = project.start("worker", "--scheduler", "-p", "2", "--max-latency", "0.05")
    until(lambda: len(schedules.schedulers(project.client.broker)) == 2)
    until(lambda: sum(job.result == "tick" for job in jobs(project, "tasks.tick")) >= 4)
    parent.send(signal.SIGTERM)
    assert parent.wait(PATIENCE) == 0, parent.output
    seconds = [seconds_of(job.id) for job in jobs(project, "tasks.tick")]
    assert seconds == list(range(seconds[0], seconds[0] + len(seconds)))
    assert len(jobs(project, "tasks.Report")) == 1


def test_a_worker_without_the_flag_schedules_nothing(project: Project) -> None:
    project.work_off()
    assert schedules.list_schedules(project.client.broker) == []


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ('SCHEDULER_TASKS = [{"path": "tasks.Report", "intervall": 5}]', "did you mean 'interval'"),
        ('SCHEDULER_TASKS = [{"path": "tasks.Report", "weekday": 1}]', "weekday is given without dailytime"),
        ('SCHEDULER_TASKS = [{"path": "tasks.tick", "interval": 1}]', "expected each schedule once"),
        ('SCHEDULER_TASKS = {"tasks.Report": 5}', "expected a list"),
        ('SCHEDULER_TASKS = ["tasks.Report"]', "expected a dict"),
        ('SCHEDULER_MODULES = ["nowhere"]', "SCHEDULER_MODULES names nowhere"),
    ],
)
def test_wrong_definitions_are_refused_at_the_start(tmp_path: Path, config: str, reason: str) -> None:
    with open_project(tmp_path, f"sqlite:///{tmp_path}/jobs.sqlite3") as project:
        project.write("tasks.py", TASKS)
        project.write("mrq-config.py", config)
        for command in (
            ["scheduler"],
            ["worker", "--scheduler"],
            ["worker", "--scheduler", "-p", "2"],
            ["check"],
        ):
            if command[-1] == "2" and ("tick" in reason or "MODULES" in reason or "once" in reason):
                continue  # the parent of several workers imports no tasks
            process = project.start(*command)
            code = process.wait()
            assert reason in " ".join(process.output.split()), process.output
            assert code == (1 if command == ["check"] and "a list" not in reason else 2)
            assert "Traceback" not in process.output


def test_check_warns_about_a_schedule_of_a_missing_task(tmp_path: Path) -> None:
    with open_project(tmp_path, f"sqlite:///{tmp_path}/jobs.sqlite3") as project:
        project.write("mrq-config.py", 'SCHEDULER_TASKS = [{"path": "nowhere.Report", "interval": 5}]')
        assert "the jobs of this schedule fail" in project.mrq("check")


@contextmanager
def silent_server() -> Iterator[socket.socket]:
    """A server that accepts connections and answers nothing, as one that was suspended."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        yield server


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
@pytest.mark.parametrize(("command", "code"), [(("scheduler",), 0), (("run", "tasks.tick", "--async"), 130)])
def test_a_signal_ends_a_command_whose_broker_does_not_answer(
    tmp_path: Path, command: tuple[str, ...], code: int, number: signal.Signals
) -> None:
    if command[0] == "run" and number is signal.SIGTERM:
        code = -number
    with silent_server() as server, open_project(tmp_path, "sqlite") as project:
        project.write("tasks.py", TASKS)
        address = f"redis://127.0.0.1:{server.getsockname()[1]}/0"
        process = project.start(*command, "--broker", address, "--store", "", "--broker-timeout", "60")
        connection, _ = server.accept()
        with connection:
            connection.settimeout(PATIENCE)
            connection.recv(1)  # it has asked
            until(lambda: _sleeps(process.pid), what="the process to wait for the answer")
            process.send(number)
            assert process.wait(20) == code, process.output
        assert "KeyboardInterrupt" not in process.output


def _sleeps(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_SLEEPING
