"""An exception of a signal handler in the imports of a call reaches the caller, and the next call works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import brokers
from tests.support import PATIENCE

PROGRAM = """
import os, signal, sys, threading
import mrq_core
from mrq_core.errors import MrqError

class Stop(Exception):
    pass

def handle(number, frame):
    raise Stop

def interrupt(event, arguments):
    "Interrupts the main thread when the import of the next point begins, in any thread."
    if event == "import" and points and arguments[0] == points[0]:
        points.pop(0)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

points = sys.argv[2:]
signal.signal(signal.SIGUSR1, {"stop": handle, "ctrl-c": signal.default_int_handler}[sys.argv[1]])
sys.addaudithook(interrupt)

def calls(call):
    "The number of interrupted calls, and the answer of the first whole one."
    for number in range(10):
        try:
            return number, call()
        except (Stop, KeyboardInterrupt):
            pass
"""
FIRST_CALLS = """
interrupted, job = calls(lambda: mrq_core.queue_job("tasks.add"))
print(interrupted, points, mrq_core.Job(job).fetch().queue)
"""
DRIVERS = {
    "sqlite": ["mrq_core.contract.codec", "sqlite3.dbapi2"],
    "redis": ["mrq_core.contract.codec", "asyncio.runners", "redis.connection"],
    "mongo": ["mrq_core.contract.codec", "bson.codec_options", "pymongo.errors"],
    "redis+mongo": ["asyncio.runners", "redis.connection", "bson.codec_options"],
}
"""Modules in whose import the calls are interrupted: most are parts of packages that import their parts."""


def told(folder: Path, program: str, *arguments: str, broker: str = "sqlite", nested: bool = False) -> str:
    """What the program prints. `nested`: it is a module that another program imports."""
    (folder / "first.py").write_text(PROGRAM + program)
    start = ["-c", "import first"] if nested else ["first.py"]
    address = brokers.address_of(broker, folder)
    environment = {**os.environ, "MRQ_BROKER": address.broker, "MRQ_STORE": address.store}
    done = subprocess.run(
        [sys.executable, *start, *arguments], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("broker", brokers.PARAMS)
@pytest.mark.parametrize(("kind", "nested"), [("ctrl-c", False), ("stop", True)])
def test_the_next_call_works_after_an_interrupt_within_the_imports_of_a_call(
    tmp_path: Path, broker: str, kind: str, nested: bool
) -> None:
    points = DRIVERS[broker]
    said = told(tmp_path, FIRST_CALLS, kind, *points, broker=broker, nested=nested)
    assert said == f"{len(points)} [] default\n"


INTERRUPTED_BEFORE = """
try:
    import asyncio
except Stop:
    pass
assert "asyncio" not in sys.modules and "asyncio.base_events" in sys.modules
"""


def test_a_call_works_after_the_program_has_interrupted_an_import_that_the_driver_needs(
    tmp_path: Path,
) -> None:
    said = told(tmp_path, INTERRUPTED_BEFORE + FIRST_CALLS, "stop", "asyncio.runners", broker="redis")
    assert said == "0 [] default\n"


TASKS = {
    "shop/__init__.py": "from shop.parts import *\nfrom shop.late import *\nNAMES = parts.NAMES\n",
    "shop/parts.py": "NAMES = ['x']\n",
    "shop/late.py": "",
    "shop/tasks.py": "import shop, mrq_core\nshop.NAMES\n\n\n@mrq_core.task(queue='mail')\ndef send(): ...\n",
}
CALLS_OF_TASK = """
interrupted, job = calls(lambda: mrq_core.queue_job("shop.tasks.send"))
print(interrupted, points, mrq_core.Job(job).fetch().queue)
"""


@pytest.mark.parametrize("kind", ["ctrl-c", "stop"])
def test_the_package_of_a_task_is_imported_anew_after_an_interrupt(tmp_path: Path, kind: str) -> None:
    (tmp_path / "shop").mkdir()
    for name, text in TASKS.items():
        (tmp_path / name).write_text(text)
    assert told(tmp_path, CALLS_OF_TASK, kind, "shop.late") == "1 [] mail\n"


@pytest.mark.parametrize("by", ["PLUGINS", "config file"])
def test_a_package_of_a_plugin_or_config_file_is_imported_anew_after_an_interrupt(
    tmp_path: Path, by: str
) -> None:
    (tmp_path / "shop").mkdir()
    for name, text in TASKS.items():
        (tmp_path / name).write_text(text)
    config = "PLUGINS = ['shop']\n" if by == "PLUGINS" else "import shop\nshop.NAMES\n"
    (tmp_path / "mrq-config.py").write_text(config)
    assert told(tmp_path, FIRST_CALLS, "stop", "shop.late") == "1 [] default\n"


FORK_IN_HANDLER = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # from Python 3.12 on, of a fork beside threads

def handle(number, frame):
    global child
    child = os.fork()
    if not child:
        signal.alarm(60)

signal.signal(signal.SIGUSR1, handle)
job = mrq_core.queue_job("tasks.add")
if child:
    assert os.waitpid(child, 0)[1] == 0
    print(mrq_core.Queue("default").size())
"""


def test_a_child_that_a_handler_forks_within_the_imports_of_a_call_goes_on(tmp_path: Path) -> None:
    assert told(tmp_path, FORK_IN_HANDLER, "stop", "sqlite3.dbapi2") == "2\n"


MAIN_THREAD = """
import sys
is_first = "threading" not in sys.modules
from mrq_core import queue_job
import threading
print(is_first, threading.current_thread() is threading.main_thread())
"""


def test_a_program_that_imports_mrq_first_keeps_its_main_thread(tmp_path: Path) -> None:
    program = [sys.executable, "-c", MAIN_THREAD]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout.split() == ["True", "True"]
