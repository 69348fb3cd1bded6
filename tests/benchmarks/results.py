"""What the runs gave: values, what was refused and why, and ratios within a run."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.benchmarks.systems import System
from tests.benchmarks.workloads import DRAIN, DRAIN_TWO, IN_BULK, NAPS, ONE_BY_ONE, Figures

FASTEST = "the fastest peer"
"""In a ratio: whichever that was in each run."""
COMPARED = (DRAIN, DRAIN_TWO, IN_BULK, ONE_BY_ONE, NAPS)
"""Figures of which more is better."""


class Ratio(NamedTuple):
    """How many times as much one has as the other: a value of each run."""

    what: str
    of: str
    against: str
    values: list[float]

    def __str__(self) -> str:
        low, high = min(self.values), max(self.values)
        middle = statistics.median(self.values)
        return f"{self.what}: {self.of} against {self.against}: {middle:.2f} times ({low:.2f} to {high:.2f})"


@dataclass(slots=True)
class Results:
    """Values by figure and system, one of each run; and by workload and system, why there are none."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    none: dict[str, dict[str, str]] = field(default_factory=dict)
    loads: list[float] = field(default_factory=list)
    """Of the machine, at the end of each run."""
    _figures: dict[str, set[str]] = field(default_factory=dict)

    def add(self, workload: str, system: str, figures: Figures) -> None:
        """Takes in the figures of one run."""
        for figure, value in figures.items():
            self.values.setdefault(figure, {}).setdefault(system, []).append(value)
        self._figures.setdefault(workload, set()).update(figures)

    def refuse(self, workload: str, system: str, why: str) -> None:
        """The system gets no figures of that workload, neither of earlier runs nor of later ones."""
        self.none.setdefault(workload, {})[system] = why
        for figure in self._figures.get(workload, ()):
            self.values[figure].pop(system, None)

    def is_refused(self, workload: str, system: str) -> bool:
        """Whether it gets no figures of that workload."""
        return system in self.none.get(workload, ())

    def ratios(self, systems: Sequence[System]) -> Iterator[Ratio]:
        """Of ours to each peer with the same store, and to the fastest; and of two workers to one."""
        ours = [system for system in systems if system.is_ours]
        for figure in COMPARED:
            values = self.values.get(figure, {})
            for mine in ours:
                others = {
                    other.name: values[other.name]
                    for other in systems
                    if not other.is_ours and other.store == mine.store and other.name in values
                }
                if mine.name in values and others:
                    fastest = [max(run) for run in zip(*others.values(), strict=True)]
                    for name, against in {FASTEST: fastest, **others}.items():
                        yield Ratio(figure, mine.name, name, _quotients(values[mine.name], against))
        for mine in ours:
            one, two = (self.values.get(figure, {}).get(mine.name) for figure in (DRAIN, DRAIN_TWO))
            if one and two:
                yield Ratio("drain", f"two workers of {mine.name}", "one", _quotients(two, one))

    def print(self, systems: Sequence[System]) -> None:
        """As tables."""
        width = max(len(system.name) for system in systems)
        for figure, values in self.values.items():
            if not any(map(any, values.values())):
                continue  # nothing of the kind has happened
            print(f"\n{figure:{width}}  {'median':>10}  {'least':>10}  {'most':>10}")
            for name, found in values.items():
                middle = statistics.median(found)
                print(f"{name:{width}}  {middle:10,.1f}  {min(found):10,.1f}  {max(found):10,.1f}")
        print()
        for workload, reasons in self.none.items():
            for name, why in reasons.items():
                print(f"{name} has no figure of {workload!r}: {why}")
        for ratio in self.ratios(systems):
            print(ratio)


def _quotients(mine: Sequence[float], others: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(mine, others, strict=True)]


def as_json(results: Results, systems: Sequence[System], about: Mapping[str, object],
            versions: Mapping[str, Mapping[str, str]]) -> dict[str, object]:  # fmt: skip
    """All there is to know of a measurement, for `--json` and for the pages that are made from it."""
    return {
        "about": about,
        "systems": {
            system.name: {
                "store": system.store, "is_ours": system.is_ours, "versions": versions[system.name],
                "settings": system.settings, "keeps": system.keeps, "killed": system.killed,
            }
            for system in systems
        },
        "values": results.values,
        "none": results.none,
        "ratios": [ratio._asdict() for ratio in results.ratios(systems)],
    }  # fmt: skip
