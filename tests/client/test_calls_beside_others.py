"""Calls of log handlers and of functions around forks, in the middle of other calls of the same program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import brokers
from tests.support import PATIENCE

AROUND_FORKS = """
import os
from mrq_core import Queue, queue_job

def call():
    queue_job("tasks.around", queue="around")

os.register_at_fork(before=call, after_in_parent=call, after_in_child=call)  # before mrq does so
queue_job("tasks.x")
for _ in range(2):
    child = os.fork()
    if not child:
        queue_job("tasks.x")
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
print(Queue("around").size(), Queue("default").size())
"""

WAITS_FOR_A_THREAD = """
import os
import threading
from mrq_core import MrqError, queue_job

def call():
    try:
        queue_job("tasks.around")
    except MrqError as error:
        print(error)

def wait():
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()

os.register_at_fork(after_in_parent=wait)
queue_job("tasks.x")
from mrq_core.embedded.server import forks
forks._CALL_WAITS = 0.1
child = os.fork()
if not child:
    os._exit(0)
os.waitpid(child, 0)
print(len(queue_job("tasks.x")))
"""

IN_A_LOG_HANDLER = """
import logging
from mrq_core import MrqError, Queue, queue_job

class Handler(logging.Handler):
    def emit(self, record):
        try:
            queue_job("tasks.line", queue="lines")
        except MrqError:
            pass

logging.getLogger().addHandler(Handler())
logging.getLogger().setLevel(logging.DEBUG)
queue_job("tasks.x")
logging.info("a line")
print(Queue("lines").size() > 0, Queue("default").size())
"""


def output_of(program: str, address: brokers.Address) -> str:
    """What the program prints. It has to end in time, and without a word on standard error."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "MRQ_BROKER": address.broker, "MRQ_STORE": address.store},
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("name", brokers.PARAMS)
def test_functions_that_a_program_runs_around_each_fork_make_calls(name: str, tmp_path: Path) -> None:
    assert output_of(AROUND_FORKS, brokers.address_of(name, tmp_path)) == "6 3\n"


def test_a_call_that_keeps_a_fork_from_ending_says_so(tmp_path: Path) -> None:
    said = output_of(WAITS_FOR_A_THREAD, brokers.address_of("sqlite", tmp_path)).splitlines()
    assert "os.register_at_fork" in said[0]
    assert said[1] == "24"


@pytest.mark.parametrize("name", brokers.PARAMS)
def test_a_log_handler_makes_calls_while_the_first_call_connects(name: str, tmp_path: Path) -> None:
    assert output_of(IN_A_LOG_HANDLER, brokers.address_of(name, tmp_path)) == "True 1\n"
