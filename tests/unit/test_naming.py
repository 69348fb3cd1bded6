"""The meaning of queue names: kinds of raw queues, trees and what a list of names covers."""

from __future__ import annotations

import pytest

from mrq_core.contract.naming import RawKind, is_covered, is_in, raw_kind


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
    ],
)
def test_a_tree_covers_its_subqueues_and_not_its_neighbours(queue: str, name: str, belongs: bool) -> None:
    assert is_in(queue, name) is belongs
    assert is_covered(queue, {"x", name}) is belongs
