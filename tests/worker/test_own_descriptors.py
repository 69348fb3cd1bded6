"""The descriptors that a worker watches."""

from __future__ import annotations

import subprocess
import sys

from tests.support import PATIENCE

PROGRAM = """
import os
import socket
import gevent
from mrq_core.worker.guards.own_descriptors import OwnDescriptors

lower = os.open("/dev/null", os.O_RDONLY)
own = OwnDescriptors()
own.add_loop()
loop = gevent.get_hub().loop
before = loop.fileno()

one, other = socket.socketpair()
watcher = loop.io(one.fileno(), 1)
watcher.start(lambda: None)
gevent.sleep(0.01)
ready, go_on = os.pipe()
child = os.fork()
if not child:  # keeps the connection open that the parent closes
    os.close(go_on)
    os.read(ready, 1)
    os._exit(0)
watcher.stop()
one.close()
other.send(b"for a closed connection")
os.close(lower)
for _ in range(100):
    gevent.sleep(0.01)
    if loop.fileno() != before:
        break
print(before, loop.fileno(), own.lost(), flush=True)
os.dup2(go_on, loop.fileno())
print(own.lost(), flush=True)
os.close(go_on)
os._exit(0)
"""


def test_the_descriptor_of_the_loop_may_change_beside_forked_children_and_may_not_be_replaced() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stderr == ""
    changed, replaced = done.stdout.splitlines()
    before, now, lost = changed.split()
    assert before != now
    assert lost == "None"
    assert replaced.startswith(f"{now} (now pipe:")
