"""Each test gets a folder with the tasks below, an empty broker, and the real `mrq` program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import PATIENCE, Project, open_project

TASKS = """
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
        """The answer of the program, which must end with this code (None: with any)."""
        done = subprocess.run(
            [sys.executable, "-m", "mrq_core.cli", *arguments],
            cwd=self.project.path,
            env={**self.project.env, "COLUMNS": "200", **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        said = Said(done.returncode, done.stdout, done.stderr)
        assert code is None or said.code == code, said
        return said


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with open_project(tmp_path, f"sqlite:///{tmp_path}/jobs.sqlite3") as opened:
        opened.write("tasks.py", TASKS)
        yield opened


@pytest.fixture
def mrq(project: Project) -> Shell:
    return Shell(project)


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("MRQ_"):
            monkeypatch.delenv(name)
