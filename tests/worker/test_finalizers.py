"""A finalizer of a job's garbage that waits keeps no greenlet of the worker."""

from __future__ import annotations

import weakref

import gevent
import pytest

from mrq_core.worker.guards import finalizers
from mrq_core.worker.guards.finalizers import FinalizerWatch

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Waits:
    def __del__(self) -> None:
        gevent.sleep(1000)


class GoesOn:
    def __init__(self) -> None:
        self.interrupts = interrupts

    def __del__(self) -> None:
        while True:
            try:
                gevent.sleep(1000)
            except BaseException as error:
                self.interrupts.append(error)
                if isinstance(error, gevent.GreenletExit):
                    raise


interrupts: list[BaseException] = []


class IsFinalized:
    def __init__(self) -> None:
        weakref.finalize(self, gevent.sleep, 1000)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> FinalizerWatch:
    monkeypatch.setattr(finalizers, "PATIENCE", 0.05)
    monkeypatch.setattr(finalizers, "_LOOK", 0.01)
    return FinalizerWatch()


@pytest.mark.parametrize("kind", [Waits, IsFinalized])
def test_a_finalizer_that_waits_is_interrupted_and_the_next_ones_at_once(
    watch: FinalizerWatch, caplog: pytest.LogCaptureFixture, kind: type[object]
) -> None:
    garbage = [kind() for _ in range(20)]
    rounds = []

    def works() -> None:
        garbage.clear()
        rounds.append("works")

    greenlet = gevent.spawn(works)
    watch.add(greenlet)
    watch.start()
    greenlet.join(timeout=10)
    watch.stop()
    assert rounds == ["works"]
    assert watch.fault == ""
    lines = [line for line in caplog.messages if "finalizer.interrupted" in line]
    assert len(lines) == 1
    assert "__del__ (" in lines[0] or "__call__ (" in lines[0]


def test_a_finalizer_that_ignores_interrupts_is_a_fault_of_its_worker(watch: FinalizerWatch) -> None:
    garbage = [GoesOn()]
    greenlet = gevent.spawn(garbage.clear)
    watch.add(greenlet)
    watch.start()
    with gevent.Timeout(10):
        while not watch.fault:
            gevent.sleep(0.01)
    watch.stop()
    assert len(interrupts) == finalizers.TRIES
    assert "__del__" in watch.fault
    greenlet.kill(timeout=1)


def test_a_greenlet_that_waits_otherwise_is_left_alone(watch: FinalizerWatch) -> None:
    greenlet = gevent.spawn(gevent.sleep, 0.3)
    watch.add(greenlet)
    watch.start()
    greenlet.join(timeout=10)
    watch.stop()
    assert greenlet.exception is None
    assert watch.fault == ""
