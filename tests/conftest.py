"""What holds for all tests."""

from __future__ import annotations

import gc
import os
import signal
import sys
import zlib
from collections.abc import Generator, Iterator

import pytest

from tests import brokers, usual_run

# A shell without job control starts background commands deaf to SIGINT, and so their children, too: those
# that the tests interrupt would never notice.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# nohup does the same with SIGHUP.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# The tests start thousands of processes. Without Python's cache each of them compiles mrq again, which takes
# a third of its start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


@pytest.fixture(scope="session", autouse=True)
def _servers_end() -> Iterator[None]:
    """The servers that tests have started end with them."""
    yield
    brokers.stop_servers()


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Collects no garbage while objects of 25,000 tests are made, and never examines these again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks the tests that the usual run leaves out, and mixes the files for the processes of pytest-xdist:
    tests of the worker mostly wait, and those of the contract mostly compute."""
    brokers.leave_to_campaign(items)
    usual_run.leave_to_campaign(items)
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: zlib.crc32(item.location[0].encode()))
