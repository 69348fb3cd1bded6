"""`python -m tests.benchmarks`: runs the measurements in turns, and prints medians as a table and as JSON."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import zip_longest
from pathlib import Path

from mrq_core import __version__
from tests.benchmarks import huey_peer, ours, redis_peers
from tests.benchmarks.ours import Figures
from tests.benchmarks.ratios import print_ratios, ratios
from tests.mongo import servers as mongo_servers
from tests.redis import servers as redis_servers

Measurement = Callable[[Path], Figures]
BROKERS = ("sqlite", "redis", "mongo")
NAMES = ("enqueue", "drain", "latency", "naps", "memory", "claim")


def measurements(scale: float, brokers: Sequence[str]) -> dict[str, list[Measurement]]:
    """By name; those of one name are compared, and so take turns, ours among the peers'."""

    def jobs(number: float) -> int:
        return max(int(number * scale), 100)

    drained = jobs(20_000)
    mine: dict[str, list[Measurement]] = {name: [] for name in NAMES}
    for broker in ours.BROKERS:
        if broker.partition(" ")[0] not in brokers:
            continue
        mine["enqueue"].append(partial(ours.enqueue, jobs=drained, broker=broker))
        for processes in (1, 2):
            mine["drain"].append(partial(ours.drain, jobs=drained, processes=processes, broker=broker))
        if " with " in broker:
            continue
        mine["latency"].append(partial(ours.latency, jobs=jobs(200), broker=broker))
        mine["naps"].append(partial(ours.naps, jobs=jobs(2_000), broker=broker))
        mine["memory"].append(partial(ours.memory, jobs=0, broker=broker))
        mine["claim"].append(partial(ours.claim_cost, jobs=jobs(1_000_000), broker=broker))
    peers: dict[str, list[Measurement]] = {name: [] for name in NAMES}
    if "sqlite" in brokers and _is_here("huey"):
        peers["enqueue"].append(partial(huey_peer.enqueue, jobs=jobs(1_000)))
        for kind in ("greenlet", "thread"):
            peers["drain"].append(partial(huey_peer.drain, jobs=jobs(3_000), kind=kind))
    if "redis" in brokers:
        for peer in redis_peers.PEERS:
            if _is_here(peer.package):
                peers["enqueue"].append(partial(redis_peers.enqueue, peer=peer, jobs=jobs(2_000)))
                number = jobs(20_000 * peer.part)
                peers["drain"].append(partial(redis_peers.drain, peer=peer, jobs=number))
    return {
        name: [measure for turn in zip_longest(mine[name], peers[name]) for measure in turn if measure]
        for name in NAMES
    }


@cache
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
        "--broker", nargs="*", default=BROKERS, choices=BROKERS, help="only these brokers (all)"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    options = parser.parse_args()
    found = measurements(options.scale, options.broker)
    chosen = {name: group for name, group in found.items() if name in options.only and group}
    values: dict[str, list[float]] = {}
    loads = []
    for run in range(options.runs):
        for name, group in chosen.items():
            # Millions of jobs are not queued anew for each run: within one, the cost is a median already.
            if name == "claim" and run >= 3:
                continue
            for measure in group:
                for figure, value in _measured(measure).items():
                    values.setdefault(figure, []).append(value)
        loads.append(os.getloadavg()[0])
        print(f"run {run + 1} of {options.runs} is done, load {loads[-1]:.1f}", flush=True)
    medians = {figure: statistics.median(found) for figure, found in values.items()}
    compared = ratios(values)
    _print_table(values, medians)
    print_ratios(compared)
    about = {"mrq": __version__, "python": platform.python_version(), "machine": platform.machine(),
             "runs": options.runs, "scale": options.scale, "at": time.strftime("%Y-%m-%d"),
             "loads": loads, "versions": _versions()}  # fmt: skip
    print("\n" + ", ".join(f"{name} {version}" for name, version in _versions().items()))
    if options.json:
        options.json.write_text(
            json.dumps({"about": about, "medians": medians, "ratios": compared, "values": values}, indent=1)
        )


def _versions() -> dict[str, str]:
    """Of what took part, where it is installed."""
    found = {}
    for package in (
        "gevent",
        "redis",
        "hiredis",
        "pymongo",
        *dict.fromkeys(peer.package for peer in redis_peers.PEERS),
    ):
        if importlib.util.find_spec(package):
            found[package] = importlib.metadata.version(package)
    for name, program in (
        ("redis-server", redis_servers.PROGRAM.find()),
        ("mongod", mongo_servers.PROGRAM.find()),
    ):
        if program:
            words = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
            found[name] = words.partition("v=" if name == "redis-server" else "version v")[2].split()[0]
    return found


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


if __name__ == "__main__":
    main()
