"""A module of tasks whose import waits for a thread or greenlet that queues a job of the same module."""

from __future__ import annotations

import re
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
    "simple queue": """
import queue
answers = queue.SimpleQueue()
threading.Thread(target=lambda: answers.put(call())).start()
answers.get()
""",
    "condition": """
ended = threading.Condition()
def notify():
    call()
    with ended:
        ended.notify()
with ended:
    threading.Thread(target=notify).start()
    ended.wait()
""",
    "lock": """
lock = threading.Lock()
lock.acquire()
threading.Thread(target=lambda: (call(), lock.release())).start()
lock.acquire()
""",
    "poll": """
import time
ended = []
threading.Thread(target=lambda: ended.append(call())).start()
while not ended:
    time.sleep(0.01)
""",
    "poll threads": """
import time
thread = threading.Thread(target=call)
thread.start()
while thread.is_alive():
    thread.join(0.01)
    time.sleep(0.01)
""",
    "socket": """
import socket
end, other = socket.socketpair()
threading.Thread(target=lambda: (call(), other.send(b"."))).start()
end.recv(1)
""",
    "select": """
import select, socket
end, other = socket.socketpair()
threading.Thread(target=lambda: (call(), other.send(b"."))).start()
select.select([end], [], [])
""",
    "process": """
import subprocess, sys
process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
threading.Thread(target=lambda: (call(), process.stdin.close())).start()
process.wait()
""",
    "to_thread": """
import asyncio
async def main():
    await asyncio.to_thread(call)
asyncio.run(main())
""",
    "run_in_executor": """
import asyncio
async def main():
    with ThreadPoolExecutor(1) as pool:
        await asyncio.get_running_loop().run_in_executor(pool, call)
asyncio.run(main())
""",
    "asyncio poll": """
import asyncio
async def main():
    ended = []
    threading.Thread(target=lambda: ended.append(call())).start()
    while not ended:
        await asyncio.sleep(0.01)
asyncio.run(main())
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
for name in vars(import_waits).copy():
    if name.startswith("_PATIENCE"):
        setattr(import_waits, name, 0.2)
{begin}
"""
PATCH = "from gevent.monkey import patch_all; patch_all()"
BEGIN = {
    "import": "import circle",
    "call": "from mrq_core import queue_job; queue_job('circle.work')",
}


UNPATCHED = ["poll threads", "asyncio poll", "run_in_executor", "queue", "process"]
"""Kinds that are the same in a process that gevent has patched as others here."""
VARIANTS = [
    (wait, patched)
    for wait in WAITS
    for patched in (False, True)
    if not (patched and wait in UNPATCHED) and (patched or wait != "gevent")
]


def said(folder: Path, code: str, *, patched: bool, begin: str) -> str:
    (folder / "circle.py").write_text(MODULE + code)
    return printed(folder, RUN.format(patch=PATCH if patched else "", begin=BEGIN[begin]))


def printed(folder: Path, run: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", run], cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize("begin", BEGIN)
@pytest.mark.parametrize(("wait", "patched"), VARIANTS)
def test_a_call_that_an_import_waits_for_uses_the_module_as_far_as_it_is(
    tmp_path: Path, wait: str, patched: bool, begin: str
) -> None:
    assert said(tmp_path, TASK + WAITS[wait], patched=patched, begin=begin) == "special"


@pytest.mark.parametrize(("wait", "patched"), VARIANTS)
def test_a_call_for_a_task_that_the_waiting_import_has_not_made_yet_is_refused(
    tmp_path: Path, wait: str, patched: bool
) -> None:
    """Its queue is not known yet."""
    text = said(tmp_path, WAITS[wait] + TASK, patched=patched, begin="import")
    seems = r"has not ended for \d s, and seems to wait"
    refusal = r"TaskImportFailed circle\.work cannot be imported: the import of circle"
    assert re.match(f"{refusal} (waits|{seems}) for this call", text)


@pytest.mark.parametrize("wait", ["join", "to_thread", "poll"])
def test_a_package_that_waits_for_a_call_gives_it_the_task_of_a_module(tmp_path: Path, wait: str) -> None:
    (tmp_path / "circle").mkdir()
    (tmp_path / "circle/tasks.py").write_text(f"from mrq_core import task\n{TASK}")
    code = MODULE.replace("circle.work", "circle.tasks.work")
    (tmp_path / "circle/__init__.py").write_text(f"import circle.tasks\n{code}{WAITS[wait]}")
    assert printed(tmp_path, RUN.format(patch="", begin="import circle.tasks")) == "special"


@pytest.mark.parametrize("wait", ["join", "to_thread", "poll"])
def test_a_module_that_another_one_of_the_circle_imports_gives_the_call_its_task(
    tmp_path: Path, wait: str
) -> None:
    """A task in a class too."""
    (tmp_path / "tasks.py").write_text(
        "from mrq_core import task\nclass All:\n    @task(queue='special')\n    def work(): ...\nimport app\n"
    )
    code = MODULE.replace("circle.work", "tasks.All.work")
    (tmp_path / "app.py").write_text(f"{code}{WAITS[wait]}")
    assert printed(tmp_path, RUN.format(patch="", begin="import tasks")) == "special"


@pytest.mark.campaign
@pytest.mark.parametrize("begin", BEGIN)
def test_a_call_that_an_event_loop_waits_for_goes_on_within_twenty_seconds(
    tmp_path: Path, begin: str
) -> None:
    (tmp_path / "circle.py").write_text(MODULE + TASK + WAITS["to_thread"])
    began = time.monotonic()
    assert printed(tmp_path, BEGIN[begin]) == "special"
    assert time.monotonic() - began < 20


def test_an_import_that_goes_on_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("_PATIENCE_WITH_WAIT", "_PATIENCE_WITH_TASK", "_PATIENCE_WITHOUT_PROGRESS"):
        monkeypatch.setattr(import_waits, name, 0.2)
    (tmp_path / "slow_circle.py").write_text(
        "import time\n" + "time.sleep(0.02)\n" * 40 + "ended = time.monotonic()\n"
    )
    thread = threading.Thread(target=__import__, args=("slow_circle",))
    thread.start()
    until(lambda: "slow_circle" in sys.modules, what="the import to begin")
    assert wait_for_import("slow_circle.x", has_task=lambda: False) is None
    assert time.monotonic() >= sys.modules["slow_circle"].ended
    thread.join()


def test_a_caller_that_needs_the_whole_module_waits_for_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of a worker."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("_PATIENCE_WITH_WAIT", "_PATIENCE_WITH_TASK", "_PATIENCE_WITHOUT_PROGRESS"):
        monkeypatch.setattr(import_waits, name, 0.1)
    (tmp_path / "whole_circle.py").write_text(
        "import time, threading\nthreading.Event().wait(0.5)\nended = time.monotonic()\n"
    )
    thread = threading.Thread(target=__import__, args=("whole_circle",))
    thread.start()
    until(lambda: "whole_circle" in sys.modules, what="the import to begin")
    assert wait_for_import("whole_circle.x") is None
    assert time.monotonic() >= sys.modules["whole_circle"].ended
    thread.join()
