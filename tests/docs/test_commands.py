"""What the pages say of the command line without running it: calls in `sh` blocks, and in the text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mrq_core.config.settings import SETTINGS
from tests.deploy.program import checked, options_of, our_calls
from tests.docs.pages import blocks, name_of, pages, prose

_CODE = re.compile(r"`(mrq(?:-worker|-run)? [^`\n]+(?:\n[^`\n]+)?)`")
_VARIABLE = re.compile(r"\bMRQ_([A-Z][A-Z_]*[A-Z])\b")
_OPTION = re.compile(r"(?<!\S)(--?[a-z][\w-]*)")
_OF_TESTS = ("TEST_", "BENCH_")
_OF_NOBODY = {"CONFIG", "GREENLET"}
"""A variable that is no setting, and one that the pages show as a mistake."""


def calls(page: Path) -> Iterator[tuple[str, dict[str, str], list[str]]]:
    """Where a call stands, its variables and its words."""
    for block in blocks(page.read_text()):
        if block.language == "sh":
            for call in our_calls(block.body):
                yield f"{name_of(page)}, line {block.line}", call.environ, call.words


@pytest.mark.parametrize("page", [page for page in pages() if any(calls(page))], ids=name_of)
def test_calls_that_are_not_run_are_taken_by_the_command_line(page: Path) -> None:
    for where, environ, words in calls(page):
        try:
            checked(words, environ)
        except Exception as error:
            raise AssertionError(f"{where}: {error}") from error


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_options_in_the_text_are_those_of_their_commands(page: Path) -> None:
    for found in _CODE.findall(prose(page.read_text())):
        known = options_of(found.split())
        for option in _OPTION.findall(found):
            assert option in known, f"{name_of(page)}: `{found}`"


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_variables_on_the_pages_are_settings(page: Path) -> None:
    for name in _VARIABLE.findall(page.read_text()):
        is_known = name in SETTINGS or name in _OF_NOBODY or name.startswith(_OF_TESTS)
        assert is_known, f"{name_of(page)}: MRQ_{name}"
