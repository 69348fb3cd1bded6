"""The greenlets of a worker that start again."""

from __future__ import annotations

from collections import deque

import gevent
import gevent.event
import pytest

from mrq_core.worker.guards import guarded_log
from mrq_core.worker.guards.lasting import LastingGreenlet


@pytest.mark.parametrize("may_end", [True, False])
def test_a_greenlet_is_called_again_and_named_in_the_log_unless_it_may_end(
    may_end: bool, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []
    again = gevent.event.Event()

    def run() -> None:
        calls.append(1)
        if len(calls) > 1:
            again.set()
            gevent.sleep(60)

    greenlet = LastingGreenlet(run)
    if may_end:
        greenlet.may_end()
    greenlet.start()
    assert again.wait(0.2 if may_end else 20) is not may_end
    greenlet.stop()
    assert len(calls) == (1 if may_end else 2)
    assert ("greenlet.ended" in caplog.text) is not may_end


def test_a_broken_loop_is_reported_a_few_times_and_other_exceptions_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guarded_log, "_reports", deque(maxlen=20))
    assert [guarded_log.may_report(SystemError) for _ in range(100)].count(True) == 20
    assert all(guarded_log.may_report(SystemExit) for _ in range(100))
