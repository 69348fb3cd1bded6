"""The project's checks, each in an environment of its own: `nox -l` lists them."""

from __future__ import annotations

import nox

nox.options.sessions = ["tests", "lint", "types", "docs"]
nox.options.reuse_existing_virtualenvs = True


@nox.session
def tests(session: nox.Session) -> None:
    """All tests, with coverage of what runs in the test process and its children."""
    session.install("-e", ".[test]")
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.run("coverage", "combine")
    session.run("coverage", "report")


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
    """Measures, and prints medians: `nox -s bench -- --help` says what can be chosen."""
    session.install(".[test]")
    kept = str(session.cache_dir / "peers")
    session.run("python", "-m", "tests.benchmarks", "--venvs", kept, *session.posargs)


@nox.session
def campaign(session: nox.Session) -> None:
    """The long tests: fault campaigns that take minutes."""
    session.install("-e", ".[test]")
    session.run("pytest", "-m", "campaign", "--timeout", "1800", *session.posargs)
