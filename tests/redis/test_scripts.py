"""The Lua scripts: none is missing, none is left over, and each says what it is given."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import mrq_broker_redis
from mrq_broker_redis.server.scripts import script

PACKAGE = Path(mrq_broker_redis.__file__).parent
FILES = {path.stem: path for path in (PACKAGE / "lua").glob("*/*.lua")}
RUN = {
    name
    for path in PACKAGE.rglob("*.py")
    for name in re.findall(r'\.run\(\s*"(\w+)"', path.read_text(encoding="utf-8"))
}
"""The scripts that the driver runs. The other files are libraries."""


def header(name: str) -> list[str]:
    """The comment that a file begins with."""
    return FILES[name].read_text(encoding="utf-8").partition("\n\n")[0].splitlines()


def needs(name: str) -> list[str]:
    first = header(name)[0]
    return first.removeprefix("-- needs: ").split(", ") if first.startswith("-- needs: ") else []


def test_names_are_unique_in_all_folders() -> None:
    assert len(FILES) == len(list((PACKAGE / "lua").rglob("*.lua")))


def test_each_script_exists_and_each_file_is_used() -> None:
    assert RUN - FILES.keys() == set()
    assert RUN | {name for script in RUN for name in needs(script)} == FILES.keys()


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_lists_its_libraries_each_after_those_that_it_needs(name: str) -> None:
    listed = needs(name)
    assert (listed[0] if listed else name) == "base"
    for index, library in enumerate(listed):
        assert set(needs(library)) <= set(listed[:index]), f"{library} of {name}"


@pytest.mark.parametrize("name", sorted(RUN))
def test_the_header_of_a_script_lists_keys_arguments_and_answer(name: str) -> None:
    lines = header(name)
    assert all(line.startswith("-- ") for line in lines)
    assert sum(line.startswith("-- KEYS[1], ARGV[1]: see base.  ARGV[2]: ") for line in lines) == 1
    assert re.search(r"\b(Answers|No answer)\b", "\n".join(lines))


def test_a_script_is_sent_behind_its_libraries() -> None:
    parts = [FILES[name].read_text(encoding="utf-8") for name in [*needs("renew"), "renew"]]
    assert len(parts) == 5
    assert script("renew").source == "\n".join(parts)


def test_a_check_tries_the_commands_of_all_scripts() -> None:
    sources = {name: path.read_text(encoding="utf-8") for name, path in FILES.items()}
    tried = set(re.findall(r"\b([A-Z]+) = \{", sources["write_nothing"]))
    used = {word for source in sources.values() for word in re.findall(r"\('([A-Z]+)'", source)}
    assert used - tried == {"TIME", "SETRANGE"}
