"""Each test gets a folder with the tasks below, an empty broker, and the real `mrq` program."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from mrq_core.cli.app import application
from tests import brokers
from tests.support import PATIENCE, Project, open_project

TASKS = """
import os
import signal
import time

from mrq_core import Task, abort_current_job, log, queue_job, retry_current_job, task


class Add(Task):
    def run(self, params):
        print("printed by the task")
        log.info("adding %s and %s", params["a"], params["b"])
        return params["a"] + params["b"]


@task(queue="mail")
def greet(name: str, password: str = ""):
    return f"Hello {name}"


@task
def fail():
    raise ValueError("it does [bold]not[/bold] work")


@task
def again():
    retry_current_job(delay=30)


@task
def stop():
    abort_current_job()


@task(isolate=True)
def die():
    os.kill(os.getpid(), signal.SIGKILL)


@task
def login():
    return {"user": "anna", "sessionToken": "geheim", "max_tokens": 3}


@task
def nap(seconds: float):
    log.info("first line")
    time.sleep(seconds)
    log.info("last line")


@task
def children(number: int):
    return [queue_job("tasks.fail") for _ in range(number)]
"""


@dataclass(frozen=True)
class Said:
    """What the program said, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Shell:
    """Calls `mrq` in a project's folder."""

    def __init__(self, project: Project) -> None:
        self.project = project

    def __call__(self, *arguments: str, env: Mapping[str, str] | None = None, code: int | None = 0) -> Said:
        """The answer of the program, which must end with this code (None: with any).

        A command that leaves gevent alone is called in this process: starting another takes longer
        than most of them.
        """
        variables = {**self.project.env, "COLUMNS": "200", **(env or {})}
        call = _in_this_process if _is_plain(arguments) else in_another_process
        said = call(arguments, self.project.path, variables)
        assert code is None or said.code == code, said
        return said


def _is_plain(arguments: tuple[str, ...]) -> bool:
    return "--help" in arguments or arguments[0] in (
        "jobs",
        "queues",
        "workers",
        "plugins",
        "check",
        "explain",
        "stack",
        "schedules",
        "tasks",
        "limits",
    )


def _in_this_process(arguments: tuple[str, ...], folder: Path, env: dict[str, str]) -> Said:
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with (
        contextlib.chdir(folder),
        mock.patch.dict(os.environ, env, clear=True),
        mock.patch.object(sys, "stdin", io.StringIO()),
        mock.patch.object(sys, "path", [str(folder), *sys.path]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            application(arguments[0])(args=list(arguments), prog_name="mrq")
        except SystemExit as ended:
            code = ended.code
        finally:
            sys.modules.pop("tasks", None)  # the next test has another module of that name
    assert isinstance(code, int)
    return Said(code, out.getvalue(), err.getvalue())


def in_another_process(arguments: tuple[str, ...], folder: Path, env: dict[str, str]) -> Said:
    done = subprocess.run(
        [sys.executable, "-m", "mrq_core.cli", *arguments],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return Said(done.returncode, done.stdout, done.stderr)


@pytest.fixture(params=brokers.PARAMS)
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Project]:
    with tasks_project(tmp_path, request.param) as opened:
        yield opened


@pytest.fixture
def mrq(project: Project) -> Shell:
    return Shell(project)


@contextlib.contextmanager
def tasks_project(path: Path, broker: str = "sqlite") -> Iterator[Project]:
    """A project with the tasks above."""
    with open_project(path, *brokers.address_of(broker, path)) as opened:
        opened.write("tasks.py", TASKS)
        yield opened


def work_through(project: Project) -> dict[str, str]:
    """Ids of jobs that have ended, or wait, by what they are."""
    ids = {
        "added": project.queue("tasks.Add", {"a": 1, "b": 2}),
        "failed": project.queue("tasks.fail"),
        "retry": project.queue("tasks.again"),
        "greeting": project.queue("tasks.greet", {"name": "Anna", "password": "geheim"}, queue="mail"),
    }
    project.work_off()
    return ids
