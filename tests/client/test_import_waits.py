"""A module of tasks whose import waits for a thread or greenlet that queues a job of the same module."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mrq_core.tasks import import_waits
from mrq_core.tasks.import_waits import wait_for_import
from tests.support import PATIENCE, until

TASK = """
@task(queue="special")
def work(): ...
"""
WAITS = {
    "join": """
thread = threading.Thread(target=call)
thread.start()
thread.join()
""",
    "pool": """
with ThreadPoolExecutor(1) as pool:
    pool.submit(call).result()
""",
    "queue": """
import queue
answers = queue.Queue()
threading.Thread(target=lambda: answers.put(call())).start()
answers.get()
""",
    "gevent": """
import gevent
gevent.spawn(call).join()
""",
}
MODULE = """
import threading
from concurrent.futures import ThreadPoolExecutor
from mrq_core import Job, MrqError, queue_job, task

def call():
    try:
        print(Job(queue_job("circle.work")).fetch().queue)
    except MrqError as error:
        print(type(error).__name__, error)
"""
RUN = """
{patch}
from mrq_core.tasks import import_waits
import_waits._PATIENCE_WITH_WAIT = import_waits._PATIENCE_WITH_SPAWNER = 0.2
{begin}
"""
PATCH = "from gevent.monkey import patch_all; patch_all()"
BEGIN = {
    "import": "import circle",
    "call": "from mrq_core import queue_job; queue_job('circle.work')",
}


def said(folder: Path, code: str, *, patched: bool, begin: str) -> str:
    (folder / "circle.py").write_text(MODULE + code)
    run = RUN.format(patch=PATCH if patched else "", begin=BEGIN[begin])
    done = subprocess.run(
        [sys.executable, "-c", run], cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize("begin", BEGIN)
@pytest.mark.parametrize(
    ("wait", "patched"),
    [("join", False), ("join", True), ("pool", False), ("pool", True), ("queue", False), ("gevent", True)],
)
def test_a_call_that_an_import_waits_for_uses_the_module_as_far_as_it_is(
    tmp_path: Path, wait: str, patched: bool, begin: str
) -> None:
    assert said(tmp_path, TASK + WAITS[wait], patched=patched, begin=begin) == "special"


@pytest.mark.parametrize("patched", [False, True])
def test_a_call_for_a_task_that_the_waiting_import_has_not_made_yet_is_refused(
    tmp_path: Path, patched: bool
) -> None:
    """Its queue is not known yet."""
    text = said(tmp_path, WAITS["join"] + TASK, patched=patched, begin="import")
    assert text.startswith(
        "TaskImportFailed circle.work cannot be imported: the import of circle waits for this call"
    )


def test_an_import_that_goes_on_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(import_waits, "_PATIENCE_WITH_WAIT", 0.2)
    (tmp_path / "slow_circle.py").write_text(
        "import time\nfor _ in range(60):\n    time.sleep(0.01)\nended = time.monotonic()\n"
    )
    thread = threading.Thread(target=__import__, args=("slow_circle",))
    thread.start()
    until(lambda: "slow_circle" in sys.modules, what="the import to begin")
    assert wait_for_import("slow_circle.x", gives_up=True)
    assert time.monotonic() >= sys.modules["slow_circle"].ended
    thread.join()
