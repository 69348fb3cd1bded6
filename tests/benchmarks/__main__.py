"""`python -m tests.benchmarks`: runs the measurements in turns, and prints medians as a table and as JSON."""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from mrq_core import __version__
from tests.benchmarks import huey_peer, ours
from tests.benchmarks.ours import Figures

Measurement = Callable[[Path], Figures]


def measurements(scale: float) -> dict[str, list[Measurement]]:
    """By name; those of one name are compared, and so run one after the other each time."""

    def jobs(number: int) -> int:
        return max(int(number * scale), 100)

    chosen: dict[str, list[Measurement]] = {
        "enqueue": [partial(ours.enqueue, jobs=jobs(20_000))],
        "drain": [
            partial(ours.drain, jobs=jobs(20_000)),
            partial(ours.drain, jobs=jobs(20_000), processes=2),
        ],
        "latency": [partial(ours.latency, jobs=jobs(200))],
        "naps": [partial(ours.naps, jobs=jobs(2_000))],
        "memory": [partial(ours.memory, jobs=0)],
        "claim": [partial(ours.claim_cost, jobs=jobs(1_000_000))],
    }
    if importlib.util.find_spec("huey") is not None:
        chosen["enqueue"].append(partial(huey_peer.enqueue, jobs=jobs(1_000)))
        chosen["drain"] += [
            partial(huey_peer.drain, jobs=jobs(3_000), kind="greenlet"),
            partial(huey_peer.drain, jobs=jobs(3_000), kind="thread"),
        ]
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="how often each is measured (5)")
    parser.add_argument("--scale", type=float, default=1.0, help="this part of the jobs (1.0)")
    parser.add_argument(
        "--only", nargs="*", default=[], help="only these: enqueue drain latency naps memory claim"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    options = parser.parse_args()
    chosen = {n: m for n, m in measurements(options.scale).items() if not options.only or n in options.only}
    values: dict[str, list[float]] = {}
    for run in range(options.runs):
        for name, group in chosen.items():
            # A million jobs are not queued anew for each run: within one, the cost is a median already.
            if name == "claim" and run >= min(3, options.runs):
                continue
            for measure in group:
                for figure, value in _measured(measure).items():
                    values.setdefault(figure, []).append(value)
        print(f"run {run + 1} of {options.runs} is done", flush=True)
    medians = {figure: statistics.median(found) for figure, found in values.items()}
    _print_table(values, medians)
    _print_ratios(medians)
    if options.json:
        about = {"mrq": __version__, "python": platform.python_version(), "machine": platform.machine(),
                 "runs": options.runs, "scale": options.scale, "at": time.strftime("%Y-%m-%d")}  # fmt: skip
        options.json.write_text(json.dumps({"about": about, "medians": medians, "values": values}, indent=1))


def _measured(measure: Measurement) -> Figures:
    folder = Path(tempfile.mkdtemp(prefix="mrq-bench-"))
    try:
        return measure(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _print_table(values: dict[str, list[float]], medians: Figures) -> None:
    width = max(map(len, medians))
    print(f"\n{'':{width}}  {'median':>10}  {'least':>10}  {'most':>10}")
    for figure, median in medians.items():
        print(
            f"{figure:{width}}  {median:10,.1f}  {min(values[figure]):10,.1f}  {max(values[figure]):10,.1f}"
        )


def _print_ratios(medians: Figures) -> None:
    """What is promised as a ratio, from the same run."""
    ours_drain = next((v for k, v in medians.items() if k.startswith("drain, 1 process")), None)
    two = next((v for k, v in medians.items() if k.startswith("drain, 2 processes")), None)
    hueys = [v for k, v in medians.items() if k.startswith("Huey on SQLite, drain")]
    claims = [v for k, v in medians.items() if k.startswith("claim, ")]
    if ours_drain and hueys:
        print(f"\ndrain against Huey's faster one: {ours_drain / max(hueys):.1f} times")
    if ours_drain and two:
        print(f"two processes against one: {two / ours_drain:.2f} times")
    if len(claims) > 1:
        print(f"claim of the largest queue against the smallest: {claims[-1] / claims[0]:.2f} times")


if __name__ == "__main__":
    main()
