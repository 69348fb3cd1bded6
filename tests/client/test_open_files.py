"""The first call of a client in a process without free file descriptors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import brokers
from tests.support import PATIENCE

CALL = """
import os, resource, sys
import mrq_core

if {is_imported}:
    mrq_core.queue_job
os.environ.update(MRQ_BROKER=sys.argv[1], MRQ_STORE=sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
held = []
while True:
    try:
        held.append(os.open("/dev/null", 0))
    except OSError:
        break
for _ in range({free}):
    os.close(held.pop())
try:
    mrq_core.queue_job("tasks.x")
except mrq_core.MrqError as error:
    print(type(error).__name__, error)
for descriptor in held:
    os.close(descriptor)
print(len(mrq_core.queue_job("tasks.x")))
"""


@pytest.mark.parametrize("broker", brokers.PARAMS)
@pytest.mark.parametrize(("is_imported", "free"), [(False, 0), (True, 0), (True, 1)])
def test_a_client_without_free_descriptors_says_so_and_works_once_there_are_some(
    broker: str, is_imported: bool, free: int, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CALL.format(is_imported=is_imported, free=free),
         *brokers.address_of(broker, tmp_path)],
        cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=True,
    )  # fmt: skip
    told, length = done.stdout.splitlines()
    assert told.startswith("BrokerUnavailable ")
    assert "this process has no free file descriptor, and may have 64 open files: close files or" in told
    assert length == "24"
