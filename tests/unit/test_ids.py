"""Ids: their layout, their order, and that no two are the same."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time

import pytest

from mrq_core import ids


def test_an_id_is_24_lower_case_hex_digits() -> None:
    assert re.fullmatch(r"[0-9a-f]{24}", ids.new_id())


def test_an_id_starts_with_the_unix_seconds_of_its_making() -> None:
    before = int(time.time())
    made = int(ids.new_id()[:8], 16)
    assert before <= made <= int(time.time())


@pytest.mark.parametrize("seconds", [-5.0, 0.0, 2.0**32 + 7, 1e12, 1e20])
def test_an_id_of_a_wrong_clock_is_valid(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "now_ms", lambda: int(seconds * 1000))
    assert ids.is_id(ids.new_id())


def test_the_ids_of_a_process_share_their_middle_part() -> None:
    assert ids.new_id()[8:18] == ids.new_id()[8:18]


def test_a_derived_id_embeds_its_time_and_follows_from_its_arguments() -> None:
    made = ids.derived_id(1_800_000_000.9, "followup", "a", "b", index=7)
    assert ids.is_id(made)
    assert ids.seconds_of(made) == 1_800_000_000
    assert made == ids.derived_id(1_800_000_000, "followup", "a", "b", index=7)
    others = [
        ids.derived_id(1_800_000_001, "followup", "a", "b", index=7),
        ids.derived_id(1_800_000_000, "followup", "ab", "", index=7),
        ids.derived_id(1_800_000_000, "followup", "a", "b", "", index=7),
        *(ids.derived_id(1_800_000_000, "followup", "a", "b", index=n) for n in range(10_000) if n != 7),
    ]
    assert len({made, *others}) == len(others) + 1


def test_derived_ids_of_one_time_are_in_the_order_of_their_indexes() -> None:
    made = [ids.derived_id(1_800_000_000, "fire", "daily", index=n) for n in range(4096)]
    assert made == sorted(made)


def test_later_ids_are_greater() -> None:
    made = [ids.new_id() for _ in range(10_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_ids_of_many_threads_are_all_different() -> None:
    made: list[str] = []
    threads = [
        threading.Thread(target=lambda: made.extend([ids.new_id() for _ in range(2000)])) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 16_000


def test_a_forked_child_does_not_continue_the_sequence_of_its_parent() -> None:
    code = """
import os
from mrq_core.ids import new_id
new_id()
if os.fork() == 0:
    print(new_id(), flush=True)
    os._exit(0)
os.wait()
print(new_id(), flush=True)
"""
    output = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    child, parent = output.split()
    assert child[8:18] != parent[8:18]


@pytest.mark.parametrize("text", ["0" * 24, "5f0123456789abcdef012345"])
def test_what_has_the_form_of_an_id_is_one(text: str) -> None:
    assert ids.is_id(text)


@pytest.mark.parametrize(
    "text", ["", "0" * 23, "0" * 25, "G" * 24, "ABCDEF" * 4, "0" * 24 + "\n", " " + "0" * 23, "\u0660" * 24]
)
def test_what_has_another_form_is_none(text: str) -> None:
    assert not ids.is_id(text)


def test_id_at_is_a_lower_bound_of_the_ids_of_that_second() -> None:
    bound = ids.id_at(time.time())
    assert ids.is_id(bound)
    assert bound <= ids.new_id()
    assert ids.id_at(time.time() + 10) > ids.new_id()


@pytest.mark.parametrize(("seconds", "start"), [(-5.0, "00000000"), (0, "00000000"), (1e12, "ffffffff")])
def test_id_at_keeps_within_what_an_id_can_hold(seconds: float, start: str) -> None:
    assert ids.id_at(seconds) == start + "0" * 16


def test_nonces_are_different_and_hex() -> None:
    nonces = {ids.new_nonce() for _ in range(1000)}
    assert len(nonces) == 1000
    assert all(re.fullmatch(r"[0-9a-f]{16}", nonce) for nonce in nonces)
