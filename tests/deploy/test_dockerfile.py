"""The Dockerfile builds what pyproject.toml describes, and starts what the command line has.

No image is built here: there may be no engine. What can be looked at without one is looked at.
"""

from __future__ import annotations

import fnmatch
import re
import shlex
import tomllib
from pathlib import PurePosixPath

import pytest

from mrq_core.plugins.manager import ENTRY_POINT_GROUP
from tests.deploy.dockerfiles import STAGES, Instruction, command_of_the_image, last
from tests.deploy.program import checked, split_program
from tests.docs.pages import ROOT

BUILD, FINAL = STAGES
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def copied() -> dict[str, str]:
    """What is copied from the clone, and where to."""
    found: dict[str, str] = {}
    for one in BUILD:
        if one.name == "COPY":
            *sources, target = one.rest.split()
            found.update(dict.fromkeys(sources, target))
    return found


def is_ignored(path: str) -> bool:
    """Whether .dockerignore keeps the path from the build: the last pattern that fits decides."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!").removeprefix("**/")
        if not line or line.startswith("#"):
            continue
        parts = PurePosixPath(path).parts
        fits = any(fnmatch.fnmatch(part, pattern) for part in (parts if "**/" in line else parts[:1]))
        ignored = not line.startswith("!") if fits else ignored
    return ignored


def variables(stage: list[Instruction]) -> dict[str, str]:
    pairs = [word for one in stage if one.name == "ENV" for word in shlex.split(one.rest)]
    return dict(pair.split("=", 1) for pair in pairs)


def test_everything_that_the_build_needs_is_copied_and_not_ignored() -> None:
    needed = {"pyproject.toml", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]}
    packages = {name.rstrip("*.") for name in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert set(copied()) == needed | packages
    for name, target in copied().items():
        assert (ROOT / name).exists()
        assert not is_ignored(name)
        assert target == ("./" if name in needed else name)


@pytest.mark.parametrize(
    "name", [".git", ".venv", "tests", "docs", "app", "mrq_core/cli/__pycache__", ".env"]
)
def test_nothing_else_is_sent_to_the_build(name: str) -> None:
    assert is_ignored(name)


def test_the_drivers_are_installed_with_what_they_need() -> None:
    [install] = [one.rest for one in BUILD if one.name == "RUN" and "install" in one.rest]
    program, *words = shlex.split(install)
    assert program == "/opt/mrq/bin/pip"
    found = re.fullmatch(r"\.\[([\w,]+)\]", words[-1])
    assert found is not None
    extras = PROJECT["project"]["optional-dependencies"]
    assert found[1] == "all"
    servers = set(PROJECT["project"]["entry-points"][ENTRY_POINT_GROUP]) - {"sqlite"}
    assert set(re.findall(r"\w+", *extras["all"])) == {"mrq", "dashboard", *servers}


def test_the_interpreter_is_one_that_is_supported() -> None:
    [version] = re.findall(r"^PYTHON=(\d+\.\d+)$", BUILD[0].rest)
    assert BUILD[0].name == "ARG"
    classifiers = PROJECT["project"]["classifiers"]
    assert f"Programming Language :: Python :: {version}" in classifiers
    images = [one.rest.split()[0] for stage in STAGES for one in stage if one.name == "FROM"]
    assert len(set(images)) == 1, "an environment works only under the interpreter that has made it"


def test_the_environment_is_taken_over_where_it_was_made() -> None:
    assert any(one.name == "RUN" and one.rest == "python -m venv /opt/mrq" for one in BUILD)
    assert any(one.name == "COPY" and one.rest == "--from=build /opt/mrq /opt/mrq" for one in FINAL)
    assert variables(FINAL)["PATH"] == "/opt/mrq/bin:$PATH"
    assert not [name for name in variables(FINAL) if name.startswith("MRQ_")]


def test_process_1_passes_signals_on_to_the_program() -> None:
    init, dashes, *program = last(FINAL, "ENTRYPOINT").words
    assert (init, dashes) == ("tini", "--")
    assert any(one.name == "RUN" and "install" in one.rest and " tini " in one.rest for one in FINAL)
    words = split_program([*program, *command_of_the_image()])
    assert words is not None
    assert checked(words, {}).queues == ("default",)
    assert program[0] in PROJECT["project"]["scripts"]
    assert not [one for one in FINAL if one.name == "STOPSIGNAL"], "SIGTERM is what a worker expects"


def test_the_program_is_run_by_a_user_without_rights() -> None:
    user, group = last(FINAL, "USER").rest.split(":")
    assert int(user) >= 1000
    [made] = [one.rest for one in FINAL if one.name == "RUN" and "useradd" in one.rest]
    assert f"--uid {user} --gid {group} " in made
    assert f"groupadd --gid {group} " in made
    # Everything that needs rights comes before.
    assert [one.name for one in FINAL][FINAL.index(last(FINAL, "USER")) + 1 :] == ["ENTRYPOINT", "CMD"]


def test_tasks_are_found_in_the_working_directory() -> None:
    assert last(FINAL, "WORKDIR").rest == "/app"
