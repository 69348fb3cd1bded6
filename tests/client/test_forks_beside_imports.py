"""A child can import and load what another thread was importing or loading at the moment of the fork."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support import PATIENCE

PACKAGE = {
    "slow/__init__.py": "from slow.part import *\nimport gate\ngate.wait()\nNAMES = part.NAMES\n",
    "slow/part.py": "NAMES = ['x']\n",
    "gate.py": """
import os, threading
parent, is_waiting, may_go = os.getpid(), threading.Event(), threading.Event()

def wait():
    if os.getpid() == parent:
        is_waiting.set()
        may_go.wait()
""",
}
FORK = """
import os, signal, sys, threading
import gate, mrq_core
from mrq_core import MrqError

def work():
    {work}

thread = threading.Thread(target=work)
thread.start()
gate.is_waiting.wait()
child = os.fork()
if not child:
    signal.alarm(20)
    work()
    os._exit(0)
gate.may_go.set()
thread.join()
work()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def ran(folder: Path, program: str) -> list[str]:
    """The lines that the program prints."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "MRQ_BROKER": "sqlite:///jobs.sqlite3"}
    environment["PYTHONWARNINGS"] = "ignore"  # of a fork beside threads
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def test_a_child_imports_what_another_thread_was_importing_at_the_fork(tmp_path: Path) -> None:
    write(tmp_path, PACKAGE)
    assert ran(tmp_path, FORK.format(work="import slow; assert slow.NAMES == ['x']")) == ["0"]


def test_a_child_loads_the_config_file_that_another_thread_was_loading_at_the_fork(tmp_path: Path) -> None:
    write(tmp_path, {**PACKAGE, "mrq-config.py": "import gate\ngate.wait()\n"})
    assert ran(tmp_path, FORK.format(work="mrq_core.queue_job('tasks.add')")) == ["0"]
