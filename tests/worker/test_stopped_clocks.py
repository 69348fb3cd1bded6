"""A task that stops or sets the clocks of the process: its neighbours and the worker go by the machine's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mrq_core.contract.record import Status
from tests.support import Project

STOPPING = """
import time
from datetime import datetime, timezone
from tasks import note
from mrq_core import task

@task
def stops(tool: str, forever: bool):
    if tool == "freezegun":
        from freezegun import freeze_time
        clocks = freeze_time("2012-01-14")
    else:
        from time_machine import travel
        clocks = travel(datetime(2012, 1, 14, tzinfo=timezone.utc), tick=False)
    clocks.start()
    note("stopped")
    time.sleep(0.4)
    year = time.gmtime().tm_year
    if not forever:
        clocks.stop()
    return year
"""


@pytest.mark.parametrize("tool", ["freezegun", "time-machine"])
@pytest.mark.parametrize("forever", [False, True])
def test_each_job_runs_once_in_its_own_time(project: Project, tool: str, forever: bool) -> None:
    project.write("stopping.py", STOPPING)
    before = datetime.now(UTC) - timedelta(seconds=1)
    stopping = project.queue("stopping.stops", {"tool": tool, "forever": forever})
    others = [project.queue("tasks.noted", {"word": f"w{n}", "seconds": 0.2}) for n in range(6)]
    project.work_off("--greenlets", "3", "--lease", "2")
    assert project.ended(stopping).result == 2012
    for record in map(project.ended, [stopping, *others]):
        assert (record.status, record.claims) == (Status.SUCCESS, 1)
        assert record.total_time is not None
        assert 0.1 < record.total_time < 30
        assert record.ended_at is not None
        assert before < record.ended_at
