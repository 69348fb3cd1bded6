"""Frames of other threads are read while no garbage is collected."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading

import pytest

from mrq_core import frames
from mrq_core.frames import current_frames, reading_frames

THREADS = """
import gc, os, sys, threading, time
from mrq_core.frames import current_frames

class Link:
    def __init__(self):
        self.link = self

    def __del__(self):
        time.sleep(0.0001)  # lets other threads run

def begin_and_end():
    while True:
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()

gc.set_threshold(1)
threading.Thread(target=begin_and_end).start()
for _ in range(300):
    Link()
    current_frames()
print("read", flush=True)
os._exit(0)
"""


def test_threads_begin_and_end_while_frames_are_read() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", THREADS],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "read\n", "")


needs_to_hold = pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="collections begin between instructions only"
)


@needs_to_hold
def test_no_collection_begins_until_the_last_block_ends() -> None:
    assert gc.isenabled()
    entered, may_leave = threading.Event(), threading.Event()

    def read() -> None:
        with reading_frames:
            entered.set()
            may_leave.wait()

    thread = threading.Thread(target=read)
    with reading_frames:
        thread.start()
        entered.wait()
        assert not gc.isenabled()
    assert not gc.isenabled()
    may_leave.set()
    thread.join()
    assert gc.isenabled()
    assert threading.get_ident() in current_frames()
    assert gc.isenabled()


@needs_to_hold
def test_a_process_that_collects_nothing_goes_on_so() -> None:
    gc.disable()
    try:
        current_frames()
        assert not gc.isenabled()
    finally:
        gc.enable()


@needs_to_hold
def test_a_child_that_is_forked_amid_a_block_collects_again() -> None:
    with reading_frames:
        pid = os.fork()
        if pid == 0:
            os._exit(0 if gc.isenabled() and not frames._readers else 1)
    assert os.waitpid(pid, 0)[1] == 0
