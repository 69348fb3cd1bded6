"""What the measurements promise: no figure unless every job has run, and ratios within a run."""

from __future__ import annotations

import contextlib
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.benchmarks import processes
from tests.benchmarks.chart import drawn
from tests.benchmarks.processes import Bench, Refused, Workers
from tests.benchmarks.results import FASTEST, Results, as_json
from tests.benchmarks.systems import Place, System
from tests.benchmarks.workloads import DRAIN, until_all_have_run


@contextlib.contextmanager
def nowhere(_: Path) -> Iterator[Place]:
    yield Place({}, lambda: 0)


def system(name: str, store: str = "redis", requires: tuple[str, ...] = ()) -> System:
    return System(
        name=name, store=store, application="none", command=("none",), opened=nowhere, concurrency=1,
        requires=requires, settings="", keeps="", killed="",
    )  # fmt: skip


def bench(folder: Path, ran: Sequence[int], first: float = 0.0) -> Bench:
    """With the marks of these jobs, a second apart."""
    file = folder / "marks"
    file.write_bytes(b"".join(struct.pack("=qd", number, first + n) for n, number in enumerate(ran)))
    return Bench(system("one"), Path(sys.executable), Place({}, lambda: 0), folder, file)


def test_a_job_that_ran_in_place_of_another_refuses_the_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "PATIENCE_SECONDS", 0.05)
    with pytest.raises(Refused, match="not all of 3 jobs have run"):
        until_all_have_run(bench(tmp_path, [0, 1, 1]), Workers([]), 3)


def test_a_job_that_ran_twice_is_counted_once_and_told(tmp_path: Path) -> None:
    assert until_all_have_run(bench(tmp_path, [0, 1, 2, 2]), Workers([]), 3).repeated == 1


def test_a_drain_begins_with_the_first_mark(tmp_path: Path) -> None:
    now = time.monotonic()
    drained = until_all_have_run(bench(tmp_path, [2, 0, 1], now), Workers([]), 3)
    assert drained.seconds == pytest.approx(time.monotonic() - now, abs=1.0)


def test_what_is_refused_once_has_no_figure_of_any_run() -> None:
    results = Results()
    results.add("drain", "one", {DRAIN: 1.0})
    results.add("drain", "two", {DRAIN: 2.0})
    results.refuse("drain", "one", "a job is missing")
    assert results.values == {DRAIN: {"two": [2.0]}}
    assert results.is_refused("drain", "one")


def test_ratios_are_those_of_each_run_to_the_peers_with_the_same_store() -> None:
    systems = [system("ours"), *(system(name, requires=("it",)) for name in ("a", "b")),
               system("other", "sqlite", ("it",))]  # fmt: skip
    results = Results()
    for name, values in {"ours": (6.0, 12.0), "a": (1.0, 4.0), "b": (2.0, 3.0), "other": (9.0, 9.0)}.items():
        for value in values:
            results.add("drain", name, {DRAIN: value})
    found = {ratio.against: ratio.values for ratio in results.ratios(systems)}
    assert found == {FASTEST: [3.0, 3.0], "a": [6.0, 3.0], "b": [3.0, 4.0]}


def test_the_chart_names_every_system_and_escapes_what_it_shows() -> None:
    systems = [system("ours"), system("a < b", requires=("it",))]
    results = Results()
    for one in systems:
        results.add("drain", one.name, {DRAIN: 1.0})
    chart = drawn(as_json(results, systems, {}, {one.name: {} for one in systems}))
    assert ">ours<" in chart
    assert ">a &lt; b<" in chart
