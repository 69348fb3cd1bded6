"""A virtual environment for each peer: what one needs is not mixed with what another needs, or with ours."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

_VERSIONS = (
    "import importlib.metadata, json, sys;"
    "print(json.dumps({name: importlib.metadata.version(name) for name in sys.argv[1:]}))"
)


def default_folder() -> Path:
    """Where environments are kept from one run to the next."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mrq-benchmarks"


def python_with(requires: Sequence[str], folder: Path) -> Path:
    """The Python of an environment with these packages, which is made unless it is there. Without any, ours.

    Making one needs the package index. An environment that was not finished is made anew.
    """
    if not requires:
        return Path(sys.executable)
    digest = hashlib.sha256(repr((sorted(requires), sys.version)).encode()).hexdigest()[:12]
    place = folder.absolute() / f"{name_of(requires[0])}-{digest}"
    python, finished = place / "bin" / "python", place / "finished"
    if not finished.exists():
        print(f"making an environment with {', '.join(requires)}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
        install: list[str | Path] = [
            python,
            "-I",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            *requires,
        ]
        subprocess.run(install, check=True)
        finished.touch()
    return python


@cache
def versions(python: Path, names: tuple[str, ...]) -> dict[str, str]:
    """Of packages in an environment."""
    printed = subprocess.run(
        [python, "-I", "-c", _VERSIONS, *names], check=True, capture_output=True, text=True
    ).stdout
    found: dict[str, str] = json.loads(printed)
    return found


def name_of(requirement: str) -> str:
    """The package that a requirement is about."""
    return requirement.partition("[")[0].partition(">")[0].partition("=")[0].strip()
