"""The project's checks, each in a separate environment: `nox -l` lists them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nox

sys.path.append(str(Path(__file__).parent))  # nox's own script starts without it
from tests import pythons

nox.options.sessions = ["tests", "lint", "types", "docs"]
nox.options.reuse_existing_virtualenvs = True
# The sessions of the versions that are not installed are left out, and `python tests/pythons.py` says which.
nox.options.error_on_missing_interpreters = False

PYTHONS = [version for version in pythons.SUPPORTED if pythons.find(version)]


@nox.session(python=False)
@nox.parametrize("version", PYTHONS)
def tests(session: nox.Session, version: str) -> None:
    """All tests on each Python that is installed, with coverage of the test process and its children."""
    python = _environment(session, version)
    session.run(python, "-m", "coverage", "run", "-m", "pytest", *session.posargs, external=True)
    session.run(python, "-m", "coverage", "combine", external=True)
    session.run(python, "-m", "coverage", "report", external=True)


@nox.session(python=False)
def newest(session: nox.Session) -> None:
    """The tests of modules and client, and parts of the worker's, on the newest Python, with SQLite."""
    for version in pythons.SUPPORTED:
        session.log(f"Python {version}: {pythons.find(version) or 'not found, so nothing ran on it'}")
    python = _environment(session, PYTHONS[-1])
    session.run(*_installer(python), "--upgrade", "typer", external=True)
    # Those that meet the interpreter most: frames, threads, forks, asyncio, imports, the end of a process.
    names = (
        "asyncio",
        "context",
        "executing",
        "forked_children",
        "multiprocessing",
        "native_settling",
        "outcomes",
        "signals",
    )
    chosen = [f"tests/worker/test_{name}.py" for name in names]
    arguments = session.posargs or ["-n", "4", "--dist", "worksteal", "tests/unit", "tests/client", *chosen]
    brokers = {"MRQ_TEST_BROKERS": os.environ.get("MRQ_TEST_BROKERS", "sqlite")}
    session.run(python, "-m", "pytest", *arguments, env=brokers, external=True)


def _environment(session: nox.Session, version: str) -> str:
    """The Python of an environment of this version, with the project and its tests installed."""
    found = pythons.find(version)
    assert found is not None
    # Not nox's own way to find an interpreter: a shim on the PATH may start nothing.
    folder = session.cache_dir / f"python-{version}"
    if not (folder / "bin" / "python").exists():
        session.run(found, "-m", "venv", str(folder), external=True)
    python = str(folder / "bin" / "python")
    session.run(*_installer(python), "-e", ".[test]", external=True)
    return python


def _installer(python: str) -> list[str]:
    """The command that installs packages for this Python: the uv that $UV names, or else pip."""
    uv = os.environ.get("UV")
    return [
        *([uv, "pip", "install", "--python", python] if uv else [python, "-m", "pip", "install"]),
        "--quiet",
    ]


@nox.session
def lint(session: nox.Session) -> None:
    """Style, and the direction of imports."""
    session.install("-e", ".[lint]")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Types, strictly, in the package and in its tests."""
    session.install("-e", ".[types]")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation; a broken link is an error."""
    session.install("-e", ".[docs]")
    session.run("mkdocs", "build", "--strict", "--site-dir", str(session.create_tmp() + "/site"))


@nox.session
def bench(session: nox.Session) -> None:
    """Measures, and prints medians: `nox -s bench -- --help` lists the choices."""
    session.install(".[test]")
    kept = str(session.cache_dir / "peers")
    session.run("python", "-m", "tests.benchmarks", "--venvs", kept, *session.posargs)


_PARTS: dict[str, tuple[str, ...]] = {
    "workers": ("tests/worker",),
    "commands": ("tests/cli", "tests/client", "tests/operations", "tests/scheduler"),
    "brokers": ("tests/composed", "tests/mongo", "tests/redis"),
    "pages": ("tests/dashboard",),
    "faults": (),  # all others
}
_MEASURED = ("pages", "faults")
"""The parts that measure, or that load the machine themselves: their tests run one at a time."""


@nox.session
@nox.parametrize("part", [nox.param(part, id=part) for part in _PARTS])
def campaign(session: nox.Session, part: str) -> None:
    """The long tests: fault campaigns, and what the usual run leaves out. `campaign(faults)` is one part."""
    session.install("-e", ".[test]", "playwright")
    folders = _PARTS[part] or tuple(f"--ignore={one}" for part in _PARTS.values() for one in part)
    beside = ("-n", "0") if part in _MEASURED else ("-n", "4", "--dist", "worksteal")
    session.run("pytest", "-m", "campaign", "--timeout", "1800", *beside, *folders, *session.posargs)
