"""What an installed mrq is made of: every file of its packages is in the wheel."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SETUPTOOLS: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
    "setuptools"
]
PACKAGES = list(dict.fromkeys(name.rstrip("*.") for name in SETUPTOOLS["packages"]["find"]["include"]))


def files_of(package: str) -> set[Path]:
    return {
        path for path in (ROOT / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_that_is_no_module_is_package_data(package: str) -> None:
    listed = {path for glob in SETUPTOOLS["package-data"][package] for path in (ROOT / package).glob(glob)}
    assert listed != set()
    assert {path for path in files_of(package) if path.suffix != ".py"} - listed == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_with_modules_is_a_package(package: str) -> None:
    folders = {path.parent for path in files_of(package) if path.suffix == ".py"}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []
