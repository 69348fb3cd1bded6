"""The interpreters on this machine that the project supports: `python tests/pythons.py` lists them.

A name such as ``python3.13`` on the PATH may be a shim that starts nothing, so each candidate is run. Where
pyenv is installed, its versions are candidates too. This file imports nothing of the project: it runs before
any install.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

SUPPORTED = ("3.11", "3.12", "3.13", "3.14")


def find(version: str) -> str | None:
    """The path of an interpreter of this version that runs. None: none was found."""
    return next((path for path in _candidates(version) if _version_of(path) == version), None)


def newest() -> tuple[str, str] | None:
    """The newest version that is found, with its path."""
    return next(((version, path) for version in reversed(SUPPORTED) if (path := find(version))), None)


def _candidates(version: str) -> Iterator[str]:
    if f"{sys.version_info.major}.{sys.version_info.minor}" == version:
        yield sys.executable
    on_path = shutil.which(f"python{version}")
    if on_path:
        yield on_path
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    for folder in sorted(pyenv.glob(f"versions/{version}.*"), reverse=True):
        yield str(folder / "bin" / "python")


def _version_of(path: str) -> str | None:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([path, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


if __name__ == "__main__":
    for supported in SUPPORTED:
        print(f"{supported} {find(supported) or 'not found'}")
