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

HOLDS_A_LOCK = """
import os
import threading

lock = threading.Lock()
os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
from mrq_core import Queue, queue_job

queue_job("tasks.x")
stops = threading.Event()
calls = 0

def call():
    global calls
    while not stops.is_set():
        with lock:
            queue_job("tasks.x")
            calls += 1

threads = [threading.Thread(target=call) for _ in range(2)]
for thread in threads:
    thread.start()
for _ in range(10):
    child = os.fork()
    if not child:
        queue_job("tasks.child", queue="children")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
stops.set()
for thread in threads:
    thread.join()
print(Queue("children").size(), Queue("default").size() == calls + 1)
"""

BESIDE_GREENLETS = """
import os
import sys
os.environ["GEVENT_RESOLVER"] = "block"  # copies of greenlets that wait for a thread of gevent do not end
import gevent.monkey
gevent.monkey.patch_all()
import gevent
from mrq_core import Queue, configure, queue_job
from mrq_core.errors import BrokerUnavailable

parent = os.getpid()
wait_blocking = gevent.monkey.get_original("os", "waitpid")  # so that the child is the first to read
answers, errors, children = [], [], []

def call():
    for _ in range(10):
        try:
            answers.append(queue_job("tasks.x", queue="parent"))
        except BrokerUnavailable as error:
            errors.append(error)
        if os.getpid() != parent:
            return

def call_in_child():
    answers.clear()
    if connects:  # gevent reports the copies of threads that were just starting
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    queue_job("tasks.x", queue="children")
    if connects:  # some copies wait for seconds until pymongo gives up
        gevent.sleep(0.05)
    else:
        gevent.joinall(callers)
    os._exit(1 if answers or not all("was forked" in str(error) for error in errors) else 0)

connects = sys.argv[1:] == ["connects"]
queue_job("tasks.x", queue="first")
if connects:
    configure()  # the next call connects anew
else:
    gevent.joinall([gevent.spawn(queue_job, "tasks.x", queue="first") for _ in range(4)])
callers = [gevent.spawn(call) for _ in range(4)]
for _ in range(10):
    gevent.sleep(0.001 if connects else 0)
    child = os.fork()
    if not child:
        call_in_child()
    if connects:
        children.append(child)
    else:
        assert wait_blocking(child, 0)[1] == 0
gevent.joinall(callers)
assert not errors, errors
for child in children:
    assert os.waitpid(child, 0)[1] == 0
print(Queue("children").size(), Queue("parent").size(), len(set(answers)))
"""

IN_HOOKS_OF_FORKS = """
import os
import gevent.monkey
gevent.monkey.patch_all()
import subprocess
import mrq_core

def call():
    mrq_core.queue_job("tasks.x", queue="hooks")

mrq_core.queue_job("tasks.x", queue="hooks")
os.register_at_fork(before=call, after_in_parent=call, after_in_child=call)
subprocess.run(["true"], check=True)
child = os.fork()
if not child:
    call()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(mrq_core.Queue("hooks").size())
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

WITHIN_LOGGING = """
import logging
import logging.config
import sys
import warnings
IMPORTS

def call(*ignored):
    import mrq_core
    mrq_core.queue_job("tasks.x")

class Calls(logging.Handler):
    def __init__(self, *ignored):
        super().__init__()
        call()

    def emit(self, record):
        pass

class OnlyImports(Calls):
    def __init__(self):
        logging.Handler.__init__(self)
        from mrq_core import queue_job
        self.first = queue_job

    def emit(self, record):
        self.first("tasks.x")

class Emits(Calls):
    def __init__(self):
        logging.Handler.__init__(self)
        self.calls = 0

    def emit(self, record):
        self.calls += 1
        if self.calls == 1:
            warn = lambda event, arguments: event == "import" and warnings.warn("of an import", stacklevel=1)
            sys.addaudithook(warn)
            call()

class Named(logging.Logger):
    def __init__(self, name):
        super().__init__(name)
        if name == "first":
            call()

warnings.simplefilter("always")
logging.captureWarnings(True)
way = WAY
if way in ("Calls", "OnlyImports"):
    sys.modules["handling"] = sys.modules["__main__"]
    handlers = {"h": {"class": f"handling.{way}"}}
    logging.config.dictConfig({"version": 1, "handlers": handlers, "root": {"handlers": ["h"]}})
    if way == "OnlyImports":
        logging.warning("a line")
elif way == "Emits":
    logging.getLogger().addHandler(Emits())
    logging.warning("a line")
else:
    logging.setLoggerClass(Named)
    logging.getLogger("first")
from mrq_core import Queue
print(Queue("default").size())
"""


def output_of(program: str, address: brokers.Address, *arguments: str) -> str:
    """What the program prints. It has to end in time, and without a word on standard error."""
    done = subprocess.run(
        # It forks beside threads.
        [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", program, *arguments],
        env={**os.environ, "MRQ_BROKER": address.broker, "MRQ_STORE": address.store},
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("name", brokers.PARAMS)
def test_functions_that_a_program_runs_around_each_fork_make_calls(name: str, tmp_path: Path) -> None:
    assert output_of(AROUND_FORKS, brokers.address_of(name, tmp_path)) == "6 3\n"


@pytest.mark.parametrize("name", brokers.PARAMS)
def test_a_fork_that_waits_for_the_lock_of_a_caller_ends(name: str, tmp_path: Path) -> None:
    assert output_of(HOLDS_A_LOCK, brokers.address_of(name, tmp_path)) == "10 True\n"


@pytest.mark.parametrize("name", [one for one in brokers.PARAMS if one != "sqlite"])
@pytest.mark.parametrize("state", ["wait", "connects"])
def test_a_child_takes_no_replies_to_calls_of_other_greenlets(name: str, state: str, tmp_path: Path) -> None:
    assert output_of(BESIDE_GREENLETS, brokers.address_of(name, tmp_path), state) == "10 40 40\n"


@pytest.mark.parametrize("name", brokers.PARAMS)
def test_hooks_of_forks_make_calls_in_a_program_with_greenlets(name: str, tmp_path: Path) -> None:
    assert output_of(IN_HOOKS_OF_FORKS, brokers.address_of(name, tmp_path)) == "8\n"


@pytest.mark.parametrize("name", brokers.PARAMS)
def test_a_log_handler_makes_calls_while_the_first_call_connects(name: str, tmp_path: Path) -> None:
    assert output_of(IN_A_LOG_HANDLER, brokers.address_of(name, tmp_path)) == "True 1\n"


@pytest.mark.parametrize("imports", ["", "import mrq_core", "from mrq_core import queue_job"])
@pytest.mark.parametrize("way", ["Calls", "OnlyImports", "Emits", "Named"])
@pytest.mark.parametrize("name", brokers.PARAMS)
def test_the_first_call_of_a_program_may_be_made_within_logging(
    name: str, way: str, imports: str, tmp_path: Path
) -> None:
    program = WITHIN_LOGGING.replace("IMPORTS", imports).replace("WAY", repr(way))
    assert output_of(program, brokers.address_of(name, tmp_path)) == "1\n"
