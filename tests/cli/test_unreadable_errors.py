"""Exceptions of loaded code whose attributes raise are told in one line, like any other."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Shell
from tests.support import Project

UNREADABLE = """
from mrq_core import hookimpl


class Unreadable(Exception):
    def __getattribute__(self, name):
        raise ValueError(name)


class Claiming(Exception):
    @property
    def __class__(self):
        raise ValueError("no class")


"""
HOOK = """
@hookimpl
def mrq_before_enqueue(record):
    raise {kind}
"""


@pytest.mark.parametrize("kind", ["Unreadable", "Claiming"])
@pytest.mark.parametrize("where", ["config", "module", "hook"])
def test_an_exception_whose_attributes_raise_is_told_without_a_traceback(
    mrq: Shell, project: Project, kind: str, where: str
) -> None:
    raised = HOOK.format(kind=kind) if where == "hook" else f"raise {kind}\n"
    project.write("mrq-config.py" if where == "config" else "odd.py", UNREADABLE + raised)
    plugins = [] if where == "config" else ["--plugins", "odd"]
    code = 1 if where == "hook" else 2
    said = mrq("run", "tasks.Add", "--async", *plugins, code=code)
    assert kind in said.err
    assert "Traceback" not in said.err
    assert "object address" not in said.err
