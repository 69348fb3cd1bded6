"""Patches the standard library for gevent, quickly. Imports nothing else of mrq."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from gevent import monkey


def patch_all() -> None:
    """`gevent.monkey.patch_all`, with one search for entry points.

    gevent looks for plugins before and after each module that it patches, and each search reads the metadata
    of all installed packages: 25 searches are a third of the time that a worker needs to start.
    """
    search: Any = metadata.entry_points
    installed = search()
    patched: Any = metadata
    patched.entry_points = lambda **wanted: installed.select(**wanted)
    try:
        monkey.patch_all()
    finally:
        patched.entry_points = search
