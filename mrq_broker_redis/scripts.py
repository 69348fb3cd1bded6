"""The Lua scripts: read from `lua/`, each with the libraries that it names in its ``-- needs:`` line."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import NamedTuple

_NEEDS = re.compile(r"^-- needs: (.+)$", re.MULTILINE)


class Script(NamedTuple):
    """A script as the server gets it, and the digest under which the server keeps it."""

    source: str
    digest: str


@cache
def script(name: str) -> Script:
    """The script of that name with everything it needs."""
    source = "\n".join(_text(part) for part in [*_needs(name), name])
    return Script(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


@cache
def _text(name: str) -> str:
    return files("mrq_broker_redis").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")


def _needs(name: str) -> list[str]:
    found = _NEEDS.search(_text(name))
    return found[1].split(", ") if found else []
