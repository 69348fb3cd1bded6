"""A worker's greenlets share one client, and some are killed in the middle of a call."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.mongo.kit import Place

PATIENCE = 60.0
SCRIPT = """
import gevent.monkey

gevent.monkey.patch_all()

import random
import sys

import gevent

from mrq_core.contract.shared_state import Versions
from tests.mongo.kit import Place, new_job

place = Place(sys.argv[1], sys.argv[2])
chance = random.Random(1)
with_jobs = place.open()
with_jobs.enqueue([new_job()])
for _ in range(20):
    broker = place.open()
    greenlets = [gevent.spawn(broker.poll, "w", Versions()) for _ in range(8)]
    gevent.sleep(chance.uniform(0.0, 0.03))
    gevent.killall(greenlets, block=False)
    broker.state.delete("n", ["x"])
    assert broker.counts(["q"])[0].waiting == 1
    broker.close()
with_jobs.close()
"""


def test_greenlets_that_are_killed_while_they_connect_leave_the_client_whole(
    place: Place,
) -> None:
    try:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, place.url, place.prefix],
            capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        pytest.fail("the client waits for a lock that nobody will release")
    assert done.returncode == 0, done.stderr


NATIVE = """
import gevent.monkey

gevent.monkey.patch_all()

import atexit
import sys
import time

import gevent

from mrq_core import configure, queue_job


client = configure(broker=sys.argv[1])
queue_job("tasks.own")
pool = gevent.get_hub().threadpool
for started in [pool.spawn(queue_job, "tasks.native") for _ in range(2)]:
    started.get()
client.close()
began = time.monotonic()
atexit._run_exitfuncs()
print(time.monotonic() - began)
"""


def test_the_exit_waits_for_no_thread_of_pymongo_whose_hub_has_ended(place: Place) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NATIVE, f"{place.url}?prefix={place.prefix}"],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1.5
