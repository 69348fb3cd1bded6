"""Calls from `__del__` while the interpreter ends, when daemon threads are stopped wherever they were."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mrq_core.ids import is_id
from tests import brokers
from tests.support import PATIENCE

PROGRAM = r"""
import builtins
import os
import sys
import threading
import time

from mrq_core import MrqError, configure, queue_job

client = configure(broker=sys.argv[1], store=sys.argv[2])
entered = threading.Event()


def loop():
    while True:
        client.queue_job("tasks.y")
        entered.set()


class Late:
    def __del__(self, time=time, queue=client.queue_job, kind=MrqError, write=os.write):
        began = time.monotonic()
        try:
            answer = queue("tasks.x")
        except kind as error:
            answer = error
        write(1, f"{time.monotonic() - began:.3f} {answer}\n".encode())


if "connected" in sys.argv[3]:
    client.queue_job("tasks.x")
if "thread" in sys.argv[3]:
    threading.Thread(target=loop, daemon=True).start()
    entered.wait()
builtins.late = Late()
"""
BOUND = 5.0
"""Seconds that a call may take; a wait for a lock of SQLite or for an answer takes 10."""


@pytest.mark.parametrize("name", brokers.PARAMS)
@pytest.mark.parametrize("kind", ["plain", "connected", "thread"])
def test_a_call_at_the_end_of_the_interpreter_ends_soon_and_says_why_it_fails(
    name: str, kind: str, tmp_path: Path
) -> None:
    address = brokers.address_of(name, tmp_path)
    for _ in range(5 if kind == "thread" else 1):  # the thread is not always stopped in the middle of a call
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, address.broker, address.store, kind],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        answers = [line.split(" ", 1) for line in done.stdout.splitlines()]
        assert answers
        for seconds, answer in answers:
            assert float(seconds) < BOUND
            assert len(answer) == 24 or "while the interpreter ends" in answer
            if kind == "connected" and name in ("sqlite", "redis"):
                assert len(answer) == 24
            if name in ("mongo", "redis+mongo"):
                assert "while the interpreter ends" in answer


FIRST_CALL_AT_EXIT = """
import atexit
from mrq_core import MrqError, configure, queue_job

def call():
    try:
        print(queue_job("tasks.x", {}))
    except Exception as error:
        print(type(error).__name__, error)

atexit.register(call)
"""


@pytest.mark.parametrize("name", brokers.PARAMS)
def test_a_first_call_in_an_exit_handler_is_answered_or_says_why_it_fails(name: str, tmp_path: Path) -> None:
    address = brokers.address_of(name, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", FIRST_CALL_AT_EXIT],
        env={**os.environ, "MRQ_BROKER": address.broker, "MRQ_STORE": address.store},
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    said = done.stdout.strip()
    is_refused = "BrokerUnavailable" in said and "cannot be opened while the interpreter ends" in said
    assert is_id(said) or is_refused, (said, done.stderr)


LATE = """
import sys
import threading

from mrq_core import configure, queue_job


def go():
    threading.main_thread().join()
    configure(broker=sys.argv[1], store=sys.argv[2])
    print(queue_job("tasks.x"))


threading.Thread(target=go).start()
"""


@pytest.mark.parametrize("name", brokers.PARAMS)
def test_a_first_call_works_after_the_main_thread_has_ended(name: str, tmp_path: Path) -> None:
    address = brokers.address_of(name, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", LATE, address.broker, address.store],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert not done.stderr
    assert is_id(done.stdout.strip())
