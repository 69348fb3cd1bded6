"""`python -m tests.benchmarks`: measures in turns, several times, and prints medians. With `--peers` other
task queues are measured beside mrq, each in an environment of its own, which needs the package index once."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from mrq_core import __version__
from tests.benchmarks import chart, environments, ours
from tests.benchmarks.alone import ALONE
from tests.benchmarks.peers.registry import PEERS
from tests.benchmarks.processes import Refused
from tests.benchmarks.results import Results, as_json
from tests.benchmarks.systems import System
from tests.benchmarks.workloads import WORKLOADS, Figures
from tests.mongo import servers as mongo_servers
from tests.redis import servers as redis_servers

LONG_RUNS = 3
"""Millions of jobs are not queued anew for each run: within one, the cost of a claim is a median already."""


class Step(NamedTuple):
    """One measurement of one system."""

    workload: str
    system: System
    measure: Callable[[], Figures]


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="how often each is measured (5)")
    parser.add_argument("--scale", type=float, default=1.0, help="this part of the jobs (1.0)")
    names = (*WORKLOADS, *ALONE)
    parser.add_argument("--only", nargs="*", choices=names, help="these (all; with --peers what they share)")
    parser.add_argument(
        "--broker", nargs="*", choices=[*ours.ARRANGEMENTS],
        help="these arrangements of mrq (all; with --peers those at ordinary settings)",
    )  # fmt: skip
    parser.add_argument(
        "--peers", nargs="*", metavar="NAME", help="other systems too: all, or those named so"
    )
    parser.add_argument(
        "--venvs", type=Path, default=environments.default_folder(), help="where their environments are kept"
    )
    parser.add_argument("--json", type=Path, help="write all values to this file, and a chart beside it")
    return parser.parse_args()


def chosen_systems(chosen: argparse.Namespace) -> list[System]:
    """Ours and the peers; those that are compared, because the same keeps their jobs, stand together."""
    with_peers = chosen.peers is not None
    names = chosen.broker
    if names is None:
        names = [name for name in ours.ARRANGEMENTS if not (with_peers and " with " in name)]
    found = [ours.system_of(ours.ARRANGEMENTS[name]) for name in names]
    if with_peers:
        found += [peer for peer in PEERS if not chosen.peers or peer.name.startswith(tuple(chosen.peers))]
    return sorted(found, key=lambda system: system.store)


def steps(chosen: argparse.Namespace, systems: Sequence[System]) -> list[list[Step]]:
    """By workload; those of one workload are compared, and so follow on each other."""
    senders = {system.enqueues_as: system for system in reversed(systems)}
    wanted = chosen.only or (*WORKLOADS, *(ALONE if chosen.peers is None else ()))
    python = {system.name: environments.python_with(system.requires, chosen.venvs) for system in systems}
    found = [
        [
            Step(name, system, partial(workload, system, python[system.name], chosen.scale))
            for system in systems
            if name != "enqueue" or senders[system.enqueues_as] is system
        ]
        for name, workload in WORKLOADS.items()
        if name in wanted
    ]
    own = {arrangement.title: arrangement for arrangement in ours.ARRANGEMENTS.values()}
    found += [
        [
            Step(name, system, partial(measure, own[system.name], chosen.scale))
            for system in systems
            if system.is_ours
        ]
        for name, measure in ALONE.items()
        if name in wanted
    ]
    return found


def measure(turns: Sequence[Sequence[Step]], runs: int) -> Results:
    """All of them so many times, each second time in the opposite order."""
    results = Results()
    for group in turns:
        for step in group:
            if step.workload in step.system.cannot:
                results.refuse(step.workload, step.system.name, step.system.cannot[step.workload])
    for run in range(runs):
        for group in turns:
            for step in group if run % 2 == 0 else reversed(group):
                if results.is_refused(step.workload, step.system.name):
                    continue
                if step.workload in ALONE and run >= LONG_RUNS:
                    continue
                try:
                    results.add(step.workload, step.system.name, step.measure())
                except Refused as refused:
                    print(f"{step.system.name}, {step.workload}: {refused}", flush=True)
                    results.refuse(step.workload, step.system.name, str(refused).partition(";")[0])
        results.loads.append(round(os.getloadavg()[0], 1))
        print(f"run {run + 1} of {runs} is done, load {results.loads[-1]}", flush=True)
    return results


def servers() -> dict[str, str]:
    """Versions of the servers that there are."""
    found = {}
    for name, program, before in (
        ("redis-server", redis_servers.PROGRAM.find(), "v="),
        ("mongod", mongo_servers.PROGRAM.find(), "version v"),
    ):
        if program:
            words = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
            found[name] = words.partition(before)[2].split()[0]
    return found


def versions_of(system: System, venvs: Path) -> dict[str, str]:
    """Of the packages that a system consists of, and of what it was measured with."""
    names = tuple(map(environments.name_of, system.requires)) or ("gevent", "redis", "hiredis", "pymongo")
    found = environments.versions(environments.python_with(system.requires, venvs), names)
    return {"mrq": __version__, **found} if system.is_ours else found


def main() -> None:
    chosen = options()
    systems = chosen_systems(chosen)
    started = time.monotonic()
    results = measure(steps(chosen, systems), chosen.runs)
    results.print(systems)
    about = {
        "at": time.strftime("%Y-%m-%d"), "python": platform.python_version(), "machine": platform.machine(),
        "cores": os.cpu_count(), "runs": chosen.runs, "scale": chosen.scale, "servers": servers(),
        "loads": results.loads, "minutes": round((time.monotonic() - started) / 60),
    }  # fmt: skip
    versions = {system.name: versions_of(system, chosen.venvs) for system in systems}
    for name, packages in versions.items():
        print(f"{name}: {', '.join(' '.join(package) for package in packages.items())}")
    print(json.dumps(about))
    if chosen.json:
        document = as_json(results, systems, about, versions)
        chosen.json.write_text(json.dumps(document, indent=1) + "\n")
        chosen.json.with_suffix(".svg").write_text(chart.drawn(document))


if __name__ == "__main__":
    main()
