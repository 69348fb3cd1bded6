"""Tests of the contract that the usual run leaves to the campaign: they repeat others, or take long.

Most of them are tests of MongoDB, and of Redis with MongoDB: a step takes several times as long there as on
Redis. What runs is chosen by names alone: it is the same each time, and does not change with other tests.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import pytest

from tests.crashes.contract import CrashContract

_HISTORIES = {
    "test_a_random_history_goes_as_it_goes_in_memory": 4,
    "test_totals_and_queues_are_right_after_a_random_history": 2,
}
"""Tests whose variants are seeds, and how many of them run."""
_SAME_CODE = frozenset(
    {
        "test_a_metric_that_cannot_be_added_up_is_refused_with_its_whole_call",
        "test_a_queue_may_have_any_name",
        "test_any_json_value_comes_back",
        "test_any_name_can_be_a_search_key",
        "test_any_text_can_be_a_parameter",
        "test_any_text_can_be_the_name_of_a_queue_and_a_path",
        "test_any_text_is_a_key_until_record",
        "test_any_text_is_the_name_of_a_queue",
        "test_find_by_params_of_any_name",
        "test_keys_and_values_survive_a_claim_and_a_result",
        "test_names_and_tags_are_any_text",
        "test_names_are_only_names",
        "test_other_keys_are_other_keys",
        "test_params_come_back_as_they_were",
        "test_the_numbers_of_a_count_that_goes_on_from_its_cursor_add_up",
    }
)
"""Tests whose variants are values that go the same way through the code. About a third of them run."""
_LONG = frozenset(
    {
        "TestComposedOfMemory::test_all_jobs_of_ten_thousand_subqueues_are_found_in_bounded_calls",
        "TestMemoryBroker::test_all_jobs_of_ten_thousand_subqueues_are_found_in_bounded_calls",
    }
)
"""Tests that take the broker in memory seconds, and all others less."""
_ON_PAIR = 2
"""The number of variants of a test on the pair: the composition tells statuses and kinds of queues apart in
few places, and all variants run on it with both halves in memory."""


def leave_to_campaign(items: Iterable[pytest.Item]) -> None:
    """Marks what does not run."""
    earlier: dict[str, int] = {}
    for item in items:
        if not isinstance(item, pytest.Function) or item.cls is None:
            continue
        test = f"{item.cls.__name__}::{item.originalname}"
        number = earlier[test] = earlier.get(test, -1) + 1
        if test in _LONG or not _runs(item, number):
            item.add_marker(pytest.mark.campaign)


def _runs(item: pytest.Function, number: int) -> bool:
    """Whether the variant of this number runs."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    if issubclass(item.cls, CrashContract) and "story" in parameters:
        return bool(item.cls.is_told(item.originalname, parameters["story"]))
    kind = item.cls.__name__
    if kind not in ("TestMongoBroker", "TestRedisAndMongo"):
        return True
    is_pair = kind == "TestRedisAndMongo"
    if item.originalname in _HISTORIES:
        return number < _HISTORIES[item.originalname]
    if is_pair:
        return number < _ON_PAIR
    return number == 0 or item.originalname not in _SAME_CODE or zlib.crc32(item.name.encode()) % 3 == 0
