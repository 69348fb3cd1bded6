"""Reads a Dockerfile: its instructions, without what only a build can tell."""

from __future__ import annotations

import json
from typing import NamedTuple

from tests.docs.pages import ROOT

KNOWN = frozenset(
    {"ARG", "FROM", "RUN", "COPY", "WORKDIR", "ENV", "USER", "ENTRYPOINT", "CMD", "STOPSIGNAL", "LABEL"}
)
"""The instructions that the tests know how to look at."""


class Instruction(NamedTuple):
    """A line of a Dockerfile, continued lines joined."""

    name: str
    rest: str

    @property
    def words(self) -> list[str]:
        """The words of the exec form. Raises ValueError for the shell form, which swallows signals."""
        found: list[str] = json.loads(self.rest)
        return found


def stages(text: str) -> list[list[Instruction]]:
    """The instructions of each stage; those before the first FROM count to the first."""
    found: list[list[Instruction]] = [[]]
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, rest = line.strip().partition(" ")
        assert name in KNOWN, f"{name} is no instruction that is known here"
        if name == "FROM" and any(one.name == "FROM" for one in found[-1]):
            found.append([])
        found[-1].append(Instruction(name, rest.strip()))
    return found


def last(instructions: list[Instruction], name: str) -> Instruction:
    """The instruction of that name which holds: the last one."""
    return [one for one in instructions if one.name == name][-1]


STAGES = stages((ROOT / "Dockerfile").read_text())


def command_of_the_image() -> list[str]:
    """What `mrq` is given where nothing else is asked for."""
    return last(STAGES[-1], "CMD").words
