"""Files of a project that have the names of modules of Python and of the libraries of mrq."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from urllib.request import urlopen

import pytest

from mrq_core.config.hidden import LIBRARIES
from tests import brokers
from tests.cli.conftest import in_another_process
from tests.support import PATIENCE, Project, open_project

TASKS = """
from mrq_core import queue_job, task

@task
def plain():
    return queue_job("jobs.isolated")

@task(isolate=True)
def isolated():
    return 2
"""


@contextmanager
def hiding_project(path: Path, broker: str) -> Iterator[Project]:
    """A project with a file for each module of Python and of a library, which must not be imported."""
    with open_project(path, *brokers.address_of(broker, path)) as project:
        for name in (*sys.stdlib_module_names, *LIBRARIES):
            project.write(f"{name}.py", "raise RuntimeError('it is not the module')")
        project.write("jobs.py", TASKS)
        project.env["PYTHONSAFEPATH"] = "1"  # as for the program `mrq`, which `python -m` is not
        yield project


@pytest.fixture
def hiding(tmp_path: Path) -> Iterator[Project]:
    with hiding_project(tmp_path, "sqlite") as project:
        yield project


def work_through(hiding: Project, *arguments: str) -> None:
    job = hiding.queue("jobs.plain")
    output = hiding.work_off(*arguments).output
    other = hiding.ended(job).result
    assert isinstance(other, str)
    assert hiding.ended(other).result == 2
    assert "ERROR" not in output


@pytest.mark.parametrize("broker", brokers.PARAMS)
def test_no_file_hides_a_module_from_a_worker(broker: str, tmp_path: Path) -> None:
    with hiding_project(tmp_path, broker) as hiding:
        work_through(hiding)


def test_no_file_hides_a_module_from_workers_with_a_parent(hiding: Project) -> None:
    work_through(hiding, "--processes", "1")


def test_no_file_hides_a_module_from_a_command(hiding: Project) -> None:
    assert hiding.mrq("run", "jobs.isolated") == "2\n"
    hiding.mrq("check")


def test_no_file_hides_a_module_from_the_dashboard(hiding: Project) -> None:
    process = hiding.start("dashboard", "--dashboard-port", "0")
    process.until_output("http://127.0.0.1:")
    address = re.search(r"http://[\d.:]+", process.output)
    assert address is not None
    assert b"mrq" in urlopen(address[0], timeout=PATIENCE).read()


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with open_project(tmp_path, *brokers.address_of("sqlite", tmp_path)) as project:
        yield project


@pytest.mark.parametrize(
    ("name", "owner", "arguments"),
    [
        ("secrets", "of Python's standard library", ("run", "jobs.plain")),
        ("gevent", "of a library of mrq", ("worker", "--burst")),
        ("gevent", "of a library of mrq", ("worker", "-p", "1")),
        ("secrets", "of Python's standard library", ("queues",)),
    ],
)
def test_a_command_names_the_file_that_hides_a_module_of_its_path(
    project: Project, name: str, owner: str, arguments: tuple[str, ...]
) -> None:
    folder = project.path / "lib"
    folder.mkdir()
    file = project.write(f"lib/{name}.py", "")
    project.env["PYTHONPATH"] = str(folder)
    said = in_another_process(arguments, project.path, project.env)
    assert said.code == 2
    assert f"the file {file} hides the module {name} {owner}: rename the file\n" in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize("name", ["select", "secrets"])
def test_python_m_names_the_file_that_hides_a_module_in_the_working_directory(
    project: Project, name: str
) -> None:
    file = project.write(f"{name}.py", "")
    said = in_another_process(("queues",), project.path, project.env)
    if name == "select":  # mrq imports it before it puts the folder last
        assert said.code == 2
        assert said.err.endswith(
            f"the file {file} hides the module select of Python's standard library: rename the file\n"
        )
    else:
        assert said.code == 0
    assert "Traceback" not in said.err


def test_a_task_in_a_file_with_the_name_of_a_module_is_told_why_it_is_not_found(project: Project) -> None:
    file = project.write("queue.py", "from mrq_core import task\n@task\ndef add(): pass\n")
    said = in_another_process(("run", "queue.add"), project.path, project.env)
    assert said.code == 1
    assert f"the file {file} is not imported, because it has the name of the module queue of" in said.err


def test_a_config_file_is_told_why_a_file_of_its_project_is_not_imported(project: Project) -> None:
    project.write("secrets.py", "TOKEN = 1\n")
    project.write("mrq-config.py", "from secrets import TOKEN\n")
    said = in_another_process(("queues",), project.path, project.env)
    assert said.code == 2
    assert "secrets.py is not imported, because it has the name of the module secrets of Python's" in said.err


def test_the_libraries_are_those_on_which_mrq_depends() -> None:
    needed = _needed()
    owners = metadata.packages_distributions().items()
    names = {name for name, found in owners if needed & set(map(_normal, found))}
    assert {name for name in names - LIBRARIES if not name.startswith("mrq")} == set()


def _needed() -> set[str]:
    """The distributions that mrq[all] needs here."""
    needed: set[str] = set()
    waiting = ["mrq"]
    while waiting:
        name = _normal(waiting.pop())
        try:
            requirements = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        if name not in needed:
            needed.add(name)
            wanted = r"extra ==" if name != "mrq" else r"""extra == ['"](test|lint|types|docs)"""
            waiting += [re.split(r"[^\w.-]", one)[0] for one in requirements if not re.search(wanted, one)]
    return needed


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
