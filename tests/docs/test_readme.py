"""Every command of the README works as typed, one after the other, in one shell and one folder.

The folder stands for a clone of the repository. The environment of the tests stands for the environment
that the README makes, because making one takes a minute and a package index.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.docs.pages import ROOT, Block, Step, blocks, steps
from tests.docs.test_examples import check, outputs_of

README = ROOT / "README.md"
MAKES_ENVIRONMENT = "python3 -m venv .venv && .venv/bin/pip install --quiet '.[dashboard]' && "
MAKES_TEST_ENVIRONMENT = "python3 -m venv .venv-test && .venv-test/bin/pip install --quiet -e '.[test]' && "
ANYTHING = "...\n"


def readme_blocks(*languages: str) -> list[Block]:
    return [block for block in blocks(README.read_text()) if block.language in languages]


def shell_steps(block: Block) -> list[Step]:
    """The commands of a block, as the reader types them or pastes them into a file."""
    match block.language, block.title:
        case "python", str(title):
            return [Step(f"cat > {shlex.quote(title)} <<'END'\n{block.body}END", "", 0, block.line)]
        case "console", None:
            return steps(block)
        case "sh", None if "-m venv .venv-test " in block.body:
            return []  # the tests, which this test is one of
        case "sh", None:
            command = block.body.strip().replace(MAKES_ENVIRONMENT, "")
            return [Step(command, ANYTHING, 0, block.line)]
    raise AssertionError(f"line {block.line}: a reader does not know how to run this block")


def make_environment(folder: Path) -> None:
    """Stands for ``python3 -m venv`` and ``pip install``: programs that call those of this environment."""
    bin_folder = folder / "bin"
    bin_folder.mkdir(parents=True)
    for name, program in (("python", sys.executable), ("mrq", Path(sys.executable).with_name("mrq"))):
        (bin_folder / name).write_text(f'#!/bin/sh\nexec {shlex.quote(str(program))} "$@"\n')
        (bin_folder / name).chmod(0o755)
    (bin_folder / "activate").write_text(f'PATH={shlex.quote(str(bin_folder))}:"$PATH"\nexport PATH\n')


def test_every_command_of_the_readme_works_as_typed_one_after_the_other(tmp_path: Path) -> None:
    make_environment(tmp_path / ".venv")
    wanted = [step for block in readme_blocks("python", "console", "sh") for step in shell_steps(block)]
    assert len(wanted) > 8
    for step, (code, output) in zip(wanted, outputs_of(wanted, tmp_path, path=os.defpath), strict=True):
        check(step, code, output, f"README.md, line {step.line}: {step.command}")


def test_the_demo_and_the_tests_are_started_from_a_new_environment() -> None:
    demo, tests = [block.body for block in readme_blocks("sh") if "-m venv" in block.body]
    assert demo == f"{MAKES_ENVIRONMENT}.venv/bin/mrq demo\n"
    assert tests == f"{MAKES_TEST_ENVIRONMENT}.venv-test/bin/python -m pytest -n 4 --dist worksteal\n"


def test_the_shell_can_read_every_block() -> None:
    for block in readme_blocks("sh"):
        subprocess.run(["bash", "-n", "-c", block.body], check=True, capture_output=True)


def test_the_extras_that_the_readme_names_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"test", "redis", "mongo", "dashboard"} <= extras.keys()
    assert "'.[test]'" in README.read_text()
    assert "'.[redis,mongo]'" in README.read_text()
