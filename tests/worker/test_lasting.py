"""The greenlets of a worker that start again."""

from __future__ import annotations

import gevent
import gevent.event
import pytest

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
