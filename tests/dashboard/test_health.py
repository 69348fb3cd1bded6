"""A check of the broker that takes long delays no page."""

from __future__ import annotations

import threading
import time

from mrq_core.contract.broker import Broker
from mrq_core.contract.queries import Finding
from mrq_core.testing import MemoryBroker
from mrq_dashboard import health
from mrq_dashboard.health import Health
from tests.support import until


def test_a_slow_check_is_awaited_by_no_page_and_its_findings_are_kept() -> None:
    may_end, calls = threading.Event(), []

    def check(broker: Broker) -> list[Finding]:
        calls.append(broker)
        may_end.wait(30)
        return [Finding(level="ok", subject="x", message=str(len(calls)))]

    found, broker = Health(check), MemoryBroker()
    began = time.monotonic()
    assert found.latest(lambda: broker) is None
    assert found.latest(lambda: broker) is None
    assert time.monotonic() - began < 5
    assert len(calls) == 1
    may_end.set()
    until(lambda: found.latest(lambda: broker))
    checked = found.latest(lambda: broker)
    assert checked is not None
    assert [one.message for one in checked.findings] == ["1"]


def test_old_findings_are_shown_while_new_ones_are_made() -> None:
    numbers = iter(range(100))

    def check(broker: Broker) -> list[Finding]:
        return [Finding(level="ok", subject="x", message=str(next(numbers)))]

    found, broker = Health(check), MemoryBroker()
    until(lambda: found.latest(lambda: broker))
    found._ended -= health.KEPT + 1
    until(lambda: [one.message for one in found.latest(lambda: broker).findings] == ["1"])  # type: ignore[union-attr]


def test_a_check_that_raises_is_a_finding() -> None:
    def check(broker: Broker) -> list[Finding]:
        raise RuntimeError("odd driver")

    found = Health(check)
    until(lambda: found.latest(MemoryBroker))
    checked = found.latest(MemoryBroker)
    assert checked is not None
    assert "odd driver" in checked.findings[0].message
