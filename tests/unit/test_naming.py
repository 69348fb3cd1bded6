"""The meaning of queue names: kinds of raw queues, trees and what a list of names covers."""

from __future__ import annotations

import pytest

from mrq_core.contract.naming import (
    RawKind,
    check_queue_name,
    is_covered,
    is_in,
    names_in,
    quoted_name,
    raw_kind,
    shown_names,
)
from mrq_core.errors import InvalidValue


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("urls_timed_set", RawKind.TIMED_SET),
        ("urls_sorted_set", RawKind.SORTED_SET),
        ("urls_set", RawKind.SET),
        ("urls_raw", RawKind.LIST),
        ("urls_raw/site", RawKind.LIST),
        ("urls_raw/", RawKind.LIST),
        ("urls", None),
        ("urls/a_raw", None),
        *((str(kind), None) for kind in RawKind),  # no name is left without its suffix
    ],
)
def test_the_root_of_a_name_says_the_kind_of_raw_queue(name: str, kind: RawKind | None) -> None:
    assert raw_kind(name) is kind


@pytest.mark.parametrize(
    ("queue", "name", "belongs"),
    [
        ("a/b", "a/", True),
        ("a/b/c", "a/b/", True),
        ("a", "a", True),
        ("ab", "a/", False),
        ("a", "a/", False),
        ("a/b", "a", False),
        ("a/", "a/", True),
        ("a/b/", "a/b/", True),
        ("a/", "a/b/", False),
        ("/a", "/", True),
        ("a//b", "a//", True),
        ("a//b", "a/", True),
    ],
)
def test_a_tree_covers_its_queue_and_subqueues_and_not_its_neighbours(
    queue: str, name: str, belongs: bool
) -> None:
    assert is_in(queue, name) is belongs
    assert is_covered(queue, {"x", name}) is belongs


@pytest.mark.parametrize(
    "name", ["a", " ", "two words", "a,b", "/", "a//b", "main/", "\n", "\U0001f680" * 200]
)
def test_the_name_of_a_queue_is_any_text(name: str) -> None:
    assert check_queue_name(name) == name


@pytest.mark.parametrize("name", ["", "q" * 201, "a\0b", "\udcff", None, 5, b"q"])
def test_other_values_are_no_names_of_queues(name: object) -> None:
    with pytest.raises(InvalidValue, match=r"^queue is .*: expected "):
        check_queue_name(name)


@pytest.mark.parametrize(
    ("text", "by_spaces", "by_commas"),
    [
        ("", (), ("",)),
        (" , ,", (), ("", "", "")),
        ("a,,b,", ("a", "b"), ("a", "", "b", "")),
        ("high", ("high",), ("high",)),
        ("high low", ("high", "low"), ("high low",)),
        ("high,low", ("high", "low"), ("high", "low")),
        (" high , low\n", ("high", "low"), ("high", "low")),
        ('"two words" low', ("two words", "low"), None),
        ('"two words", low', ("two words", "low"), ("two words", "low")),
        ("'a,b','c d'", ("a,b", "c d"), ("a,b", "c d")),
        ('"say ""hi""" \'it\'\'s\'', ('say "hi"', "it's"), None),
        ("it's main/", ("it's", "main/"), ("it's main/",)),
        ('a"b', ('a"b',), ('a"b',)),
        ('""', ("",), ("",)),
        ('" x "', (" x ",), (" x ",)),
        ('"open', None, None),
        ('"a"b', None, None),
        ("'", None, None),
    ],
)
def test_a_list_of_names_has_quotes_where_a_name_needs_them(
    text: str, by_spaces: tuple[str, ...] | None, by_commas: tuple[str, ...] | None
) -> None:
    for flag, expected in ((True, by_spaces), (False, by_commas)):
        if expected is not None:
            assert names_in(text, by_spaces=flag) == expected
            continue
        with pytest.raises(InvalidValue, match="the list "):
            names_in(text, by_spaces=flag)


NAMES = [
    "a",
    "main/",
    "two words",
    "a,b",
    'say "hi"',
    "it's",
    "'x'",
    '"',
    "\n",
    " ",
    "",
    "\U0001f680",
    "a\tb",
]


def test_names_in_quotes_are_read_as_they_were_written() -> None:
    for separator in (",", ", ", " "):
        text = separator.join(map(quoted_name, NAMES))
        assert names_in(text, by_spaces=True) == tuple(NAMES)
    assert names_in(",".join(map(quoted_name, NAMES))) == tuple(NAMES)
    assert quoted_name("main/it's") == "main/it's"


def test_names_for_people_are_in_one_line() -> None:
    assert shown_names(["a", "b c", "x\ny\x1b[31m"]) == 'a, "b c", "x\\ny\\x1b[31m"'
