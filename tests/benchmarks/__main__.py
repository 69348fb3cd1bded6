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
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from mrq_core import __version__
from tests.benchmarks import huey_peer, ours, redis_peers
from tests.benchmarks.ours import Figures

Measurement = Callable[[Path], Figures]
NAMES = ("enqueue", "drain", "latency", "naps", "memory", "claim")


def measurements(scale: float, brokers: Sequence[str]) -> dict[str, list[Measurement]]:
    """By name; those of one name are compared, and so run one after the other each time."""

    def jobs(number: int) -> int:
        return max(int(number * scale), 100)

    chosen: dict[str, list[Measurement]] = {name: [] for name in NAMES}
    for broker in brokers:
        chosen["enqueue"].append(partial(ours.enqueue, jobs=jobs(20_000), broker=broker))
        for processes in (1, 2):
            measure = partial(ours.drain, jobs=jobs(20_000), processes=processes, broker=broker)
            chosen["drain"].append(measure)
        if broker == "redis with AOF":
            continue
        chosen["latency"].append(partial(ours.latency, jobs=jobs(200), broker=broker))
        chosen["naps"].append(partial(ours.naps, jobs=jobs(2_000), broker=broker))
        chosen["memory"].append(partial(ours.memory, jobs=0, broker=broker))
        chosen["claim"].append(partial(ours.claim_cost, jobs=jobs(1_000_000), broker=broker))
    if "sqlite" in brokers and _is_here("huey"):
        chosen["enqueue"].append(partial(huey_peer.enqueue, jobs=jobs(1_000)))
        chosen["drain"] += [
            partial(huey_peer.drain, jobs=jobs(3_000), kind="greenlet"),
            partial(huey_peer.drain, jobs=jobs(3_000), kind="thread"),
        ]
    if "redis" in brokers:
        for peer in redis_peers.PEERS:
            if _is_here(peer.package):
                chosen["enqueue"].append(partial(redis_peers.enqueue, peer=peer, jobs=jobs(2_000)))
                chosen["drain"].append(partial(redis_peers.drain, peer=peer, jobs=jobs(peer.jobs)))
    return chosen


def _is_here(package: str) -> bool:
    """Whether the peer is installed; says so if not."""
    is_here = importlib.util.find_spec(package) is not None
    if not is_here:
        print(f"{package} is not installed, and is left out")
    return is_here


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="how often each is measured (5)")
    parser.add_argument("--scale", type=float, default=1.0, help="this part of the jobs (1.0)")
    parser.add_argument("--only", nargs="*", default=NAMES, choices=NAMES, help="only these")
    parser.add_argument(
        "--broker", nargs="*", default=list(ours.BROKERS), choices=ours.BROKERS, help="only these brokers"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    options = parser.parse_args()
    found = measurements(options.scale, options.broker)
    chosen = {name: group for name, group in found.items() if name in options.only and group}
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
    print()
    for broker in ours.BROKERS:
        mine = {figure: value for figure, value in medians.items() if figure.startswith(f"{broker}: ")}
        one, two = _one(mine, "drain, 1 process"), _one(mine, "drain, 2 processes")
        where = "SQLite" if broker == "sqlite" else "Redis"
        for figure, value in medians.items():
            if one and f" on {where}, drain" in figure:
                print(f"{broker}: drain against {figure.partition(' (')[0]}: {one / value:.1f} times")
        if one and two:
            print(f"{broker}: two processes against one: {two / one:.2f} times")
        bulk, peer = _one(mine, "enqueue, in bulk"), _one(medians, "RQ on Redis, enqueue")
        if bulk and peer and broker != "sqlite":
            print(f"{broker}: enqueue in bulk against RQ: {bulk / peer:.1f} times")
        claims = [value for figure, value in mine.items() if ": claim, " in figure]
        if len(claims) > 1:
            ratio = claims[-1] / claims[0]
            print(f"{broker}: claim of the largest queue against the smallest: {ratio:.2f} times")


def _one(figures: Figures, part: str) -> float | None:
    return next((value for figure, value in figures.items() if part in figure), None)


if __name__ == "__main__":
    main()
