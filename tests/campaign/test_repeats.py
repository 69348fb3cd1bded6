"""The conformance suite passes not once but every time, plain and in a process that gevent has patched."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.campaign

ROOT = Path(__file__).resolve().parents[2]
REPEATS = int(os.environ.get("MRQ_TEST_REPEATS", "10"))
DRIVERS = {
    "memory": ["tests/testing/test_memory_conformance.py"],
    "embedded": ["tests/embedded/test_conformance.py", "tests/testing/test_embedded_against_model.py"],
    "redis": ["tests/redis/test_conformance.py", "tests/redis/test_against_model.py"],
    "mongo": ["tests/mongo/test_conformance.py", "tests/mongo/test_against_model.py"],
}
WAYS = {
    "plain": ["-m", "pytest"],
    "patched": ["-m", "gevent.monkey", "--module", "pytest"],
}


@pytest.mark.timeout(0)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("driver", DRIVERS)
def test_the_conformance_suite_passes_every_time(driver: str, way: str) -> None:
    command = [sys.executable, *WAYS[way], "-q", "-p", "no:cacheprovider", *DRIVERS[driver]]
    env = {name: value for name, value in os.environ.items() if not name.startswith("MRQ_")}
    for number in range(1, REPEATS + 1):
        started = time.monotonic()
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode:
            pytest.fail(f"run {number} of {REPEATS} failed:\n{done.stdout}", pytrace=False)
        summary = done.stdout.strip().rpartition("\n")[2]
        print(f"{driver}, {way}, run {number}: {summary}; {time.monotonic() - started:.0f} s in all")
