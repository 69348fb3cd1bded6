"""The Lua scripts of the folder `lua`, each with the libraries of its ``-- needs:`` line.

Scripts and libraries are known by the names of their files, which are unique in all folders.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

from mrq_core.drivers import open_files
from mrq_core.errors import BrokerUnavailable

OPENING = "redis.call('DEL', KEYS[1] .. ':none')\n"
"""The first line of a script that runs on a server without free memory. Such a server refuses a command that
may take memory only before the first write of a script, and this write deletes nothing (`lua_write_dirty` in
scripting.c of Redis 6.2, `SCRIPT_WRITE_DIRTY` in script.c of 7)."""
_NEEDS = re.compile(r"^-- needs: (.+)$", re.MULTILINE)


class Script(NamedTuple):
    """The source of a script, and the digest under which the server caches it."""

    source: str
    digest: str


@cache
def script(name: str) -> Script:
    """The script with this name, with its libraries. Raises BrokerUnavailable if a file cannot be read."""
    source = "\n".join(_text(part) for part in [*_needs(name), name])
    return Script(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


def load_all() -> None:
    """Reads all files. A worker does it when it starts: later it may lack a free descriptor, and its package
    may be replaced."""
    for name in _files():
        _text(name)


@cache
def _text(name: str) -> str:
    try:
        return _files()[name].read_text(encoding="utf-8")
    except OSError as error:  # no descriptor is free, or the package was removed
        is_used_up = open_files.are_used_up(error)
        todo = open_files.advice() if is_used_up else "if the package was replaced, start the program again"
        raise BrokerUnavailable(
            f"the script {name} of the Redis driver cannot be read ({error.strerror}): {todo}"
        ) from error


@cache
def _files() -> dict[str, Traversable]:
    """All Lua files by name."""
    folders = files("mrq_broker_redis").joinpath("lua").iterdir()
    found = [file for folder in folders if folder.is_dir() for file in folder.iterdir()]
    return {file.name.removesuffix(".lua"): file for file in found if file.name.endswith(".lua")}


def _needs(name: str) -> list[str]:
    found = _NEEDS.search(_text(name))
    return found[1].split(", ") if found else []
