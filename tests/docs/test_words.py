"""Files that are clean of banned turns of phrase stay clean. The list of the others only shrinks."""

from __future__ import annotations

import pytest

from tests.docs.words import LIST, files, found_in

LISTED = LIST.read_text(encoding="utf-8").split()


@pytest.mark.parametrize("folder", sorted({name.partition("/")[0] for name in files()}))
def test_no_clean_file_gets_a_banned_turn_of_phrase(folder: str) -> None:
    found = {
        name: sorted(set(found_in(name)))
        for name in files()
        if name.partition("/")[0] == folder and name not in LISTED
    }
    assert {name: phrases for name, phrases in found.items() if phrases} == {}


def test_the_list_only_shrinks() -> None:
    known = set(files())
    assert [name for name in LISTED if name not in known] == [], (
        "these files are gone: take them off the list"
    )
    clean = [name for name in LISTED if not found_in(name)]
    assert clean == [], "these files are clean: take them off the list"
    assert sorted(LISTED) == LISTED
