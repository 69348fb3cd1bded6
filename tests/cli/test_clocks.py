"""Ages on a terminal whose clock, or the clock of a worker, differs from the broker's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import time_machine

from mrq_core.clock import after
from tests.cli.conftest import Shell
from tests.dashboard import scenes
from tests.support import Project


def cells(said: str, name: str) -> list[str]:
    """The cells of the row that begins with this name."""
    [row] = [line for line in said.splitlines() if line.startswith(name)]
    return [cell.strip() for cell in row.split("  ") if cell.strip()]


@pytest.mark.parametrize("hours", [-3, 3])
def test_ages_are_by_the_clock_of_the_broker(mrq: Shell, project: Project, hours: int) -> None:
    broker = project.client.broker
    job = project.queue("tasks.fail", queue="held")
    project.queue("tasks.fail")
    [record] = scenes.take(broker, "held")
    off = after(broker.now(), -3600.0 * hours)  # the worker's clock, while the terminal's is off by the same
    scenes.report(broker, started_at=after(off, -18_000), reported_at=off)
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=hours)):
        [*_, due] = cells(mrq("queues").out, "default")
        [*_, up, reported] = cells(mrq("workers").out, scenes.WORKER)
        row = cells(mrq("jobs", "list", "--queue", "held").out, job)
        shown = mrq("jobs", "show", job).out
    assert record.id == job
    assert due.endswith((" s", " ms"))
    assert up == "5 h"
    assert reported.endswith((" s ago", " ms ago"))
    assert row[4].endswith("s")
    assert row[5].endswith("s")
    assert "(stale)" not in shown
    for said in (due, reported, *row[4:6]):
        assert not said.startswith(("-", "0 ms"))
