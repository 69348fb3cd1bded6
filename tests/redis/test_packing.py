"""Commands are packed like redis-py packs them, and a signal handler that raises meanwhile harms nothing."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from redis.connection import HiredisRespSerializer

from mrq_broker_redis.server.packing import Packer
from tests.support import PATIENCE


@pytest.mark.parametrize(
    "words",
    [
        ("PING",), ("CLIENT SETNAME", "ü"), (b"CONFIG GET", b"\xff\0"), ("SET", "k", 5), ("SET", "k", 1.5),
        ("SET", "k", -(2**70)), ("SET", "k", 1e300), ("SET", "", ""),
        ("SET", "k", bytearray(b"x"), memoryview(b"y")),
    ],
)  # fmt: skip
def test_a_command_has_the_form_that_redis_py_gives_it(words: tuple[Any, ...]) -> None:
    assert Packer().pack(*words) == HiredisRespSerializer().pack(*words)


def test_other_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match="of type list: expected text, bytes or a number"):
        Packer().pack("SET", "k", ["v"])


INTERRUPTED = """
import signal
from mrq_broker_redis.server.packing import Packer

class Alarm(Exception):
    pass

def handle(number, frame):
    raise Alarm

signal.signal(signal.SIGALRM, handle)
pack, alarms = Packer().pack, 0
for number in range(300):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.00002 + 0.000001 * (number % 60))
        for _ in range(1000):
            pack("EVALSHA", "x" * 40, 5, *range(50))
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Alarm:
        alarms += 1
signal.setitimer(signal.ITIMER_REAL, 0)
assert alarms > 200, alarms
"""


def test_a_signal_handler_that_raises_while_a_number_is_packed_does_not_end_the_process() -> None:
    program = [sys.executable, "-c", INTERRUPTED]
    done = subprocess.run(program, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
