"""The first call of a program imports most of mrq. What happens beside this import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os, signal, sys, threading
import mrq_core

def within_import(act):
    "Traces the thread, and acts when it begins to run the code of a module of mrq."
    def trace(frame, event, argument):
        if frame.f_code.co_name == "<module>" and frame.f_globals["__name__"] == "mrq_core.contract.codec":
            sys.settrace(None)
            act()
    sys.settrace(trace)
"""

FORK = """
importing, go_on = threading.Event(), threading.Event()

def first_call():
    within_import(lambda: (importing.set(), go_on.wait(60)))
    mrq_core.queue_job("tasks.parent")

other = threading.Thread(target=first_call)
other.start()
assert importing.wait(60)
child = os.fork()
if not child:
    signal.alarm(30)
    mrq_core.queue_job("tasks.child")
    os._exit(0)
_, status = os.waitpid(child, 0)
go_on.set()
other.join()
assert status == 0, status
print(mrq_core.Queue("default").size())
"""

SIGNAL = """
def handle(*_):
    try:
        mrq_core.queue_job("tasks.handler")
    except mrq_core.MrqError as error:
        print(type(error).__name__, error)

signal.signal(signal.SIGUSR1, handle)
within_import(lambda: signal.raise_signal(signal.SIGUSR1))
mrq_core.queue_job("tasks.program")
handle()
print(mrq_core.Queue("default").size())
"""

AT_EXIT = """
mrq_core.queue_job("tasks.program")

class Late:
    def __del__(self):
        try:
            mrq_core.subpool_map
        except mrq_core.MrqError as error:
            print(type(error).__name__, error)

late = Late()
late.itself = late
"""


HANDLER_BESIDE = """
def handle(*_):
    jobs.append(mrq_core.queue_job("tasks.handler"))

def interrupt(event, arguments):
    if event == "import" and arguments[0] == "mrq_core.contract.codec" and not sent:
        sent.append(True)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

jobs, sent = [], []
signal.signal(signal.SIGUSR1, handle)
sys.addaudithook(interrupt)
jobs.append(mrq_core.queue_job("tasks.program"))
print(len(jobs), mrq_core.Queue("default").size())
"""


def run(program: str, folder: Path, *, nested: bool = False) -> str:
    """What the program prints, in this folder. `nested`: it is a module that another program imports."""
    code = PROGRAM + program
    if nested:
        (folder / "first.py").write_text(code)
        code = "import first"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, check=True, capture_output=True, text=True, timeout=100
    ).stdout


def test_a_child_works_that_is_forked_while_another_thread_makes_the_first_call(tmp_path: Path) -> None:
    assert run(FORK, tmp_path) == "2\n"


def test_a_handler_may_call_mrq_while_another_thread_imports_for_the_first_call(tmp_path: Path) -> None:
    assert run(HANDLER_BESIDE, tmp_path) == "2 2\n"


def test_a_handler_that_calls_mrq_within_the_imports_of_the_first_call_is_told_so(tmp_path: Path) -> None:
    """A call in a module that is being imported imports in its own thread."""
    told, number = run(SIGNAL, tmp_path, nested=True).splitlines()
    assert told.startswith("BrokerUnavailable mrq_core.queue_job cannot be used in a signal handler")
    assert number == "2"


def test_a_name_that_is_first_used_while_the_interpreter_ends_is_an_error_of_mrq(tmp_path: Path) -> None:
    (told,) = run(AT_EXIT, tmp_path).splitlines()
    assert told.startswith("BrokerUnavailable mrq_core.subpool_map cannot be used for the first time while")
